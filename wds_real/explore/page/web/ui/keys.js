// Keys, and the dialog that lists them.

import { h } from "./dom.js";

const KEYS = [
  ["/", "search"],
  ["[ and ]", "lower or raise the rater threshold by 0.01"],
  ["← and →", "on an image or class: the one before or after"],
  ["arrow keys, Home, End", "in a grid: move between images; Enter opens one"],
  ["?", "this list"],
  ["Esc", "close"],
];

/** @returns {HTMLDialogElement} */
export function createHelp() {
  return /** @type {HTMLDialogElement} */ (h(
    "dialog",
    { "aria-labelledby": "help-title" },
    h("h2", { id: "help-title" }, "Help"),
    h(
      "p",
      {},
      "ReaL labels are a re-assessment of ImageNet's validation labels: raters scored the labels of each image, and the labels " +
        "with a score above a threshold (released: 0.8) are accepted. An answer is right by ReaL if it is any accepted label; " +
        "images without one are not counted.",
    ),
    h("p", {}, "Every count is a link to its images. The address of the page holds all that you see: copy it to share a view."),
    h("dl", { class: "keys" }, KEYS.map(([key, text]) => [h("dt", {}, key), h("dd", {}, text)])),
    h("form", { method: "dialog" }, h("button", {}, "Close")),
  ));
}

/**
 * @param {object} options
 * @param {(threshold: number) => void} options.step
 * @param {() => number | null} options.threshold
 * @param {HTMLInputElement} options.search
 * @param {HTMLDialogElement} options.help
 */
export function listenForKeys({ step, threshold, search, help }) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.matches("input, select, textarea")) return;
    const now = threshold() ?? 800;
    if (event.key === "/") search.focus();
    else if (event.key === "?") help.showModal();
    else if (event.key === "[") step(Math.max(0, now - 10));
    else if (event.key === "]") step(Math.min(990, now + 10));
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      if (target.closest(".grid, .scroller")) return;
      const button = document.getElementById(event.key === "ArrowLeft" ? "previous" : "next");
      if (!(button instanceof HTMLAnchorElement)) return;
      button.click();
    } else return;
    event.preventDefault();
  });
}
