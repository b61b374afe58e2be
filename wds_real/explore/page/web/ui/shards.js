// Where the images come from: a server, or files of this machine.

import { FileShards } from "../images/files.js";
import { HttpShards } from "../images/http.js";
import { h } from "./dom.js";

/**
 * @typedef {import("../data/table.js").Table} Table
 * @typedef {import("../images/loader.js").Images} Images
 */

/**
 * Return the dialog that chooses the source of the images, and the line that says what is wrong with it.
 * @param {Table} table
 * @param {Images} images
 * @param {() => void} onChange
 */
export function createShards(table, images, onChange) {
  const notice = h("div", { class: "notices", role: "status" });
  const status = h("p", { class: "source" });
  const files = new FileShards(table.places?.shards ?? []);
  const place = serverPlace();
  /** @param {Event} event */
  const chosen = (event) => take(/** @type {HTMLInputElement} */ (event.target).files ?? []);
  const dialog = /** @type {HTMLDialogElement} */ (h(
    "dialog",
    { "aria-labelledby": "shards-title" },
    h("h2", { id: "shards-title" }, "Shards"),
    status,
    h("p", {}, "Images are read from the tar shards of the data set. Files that you choose stay on this machine: nothing is uploaded."),
    h("p", { class: "filepick" }, h("label", { for: "shard-files" }, "Shard files"), h("input", { type: "file", id: "shard-files", multiple: true, accept: ".tar", onchange: chosen })),
    h("p", { class: "filepick" }, h("label", { for: "shard-folder" }, "or their folder"), h("input", { type: "file", id: "shard-folder", webkitdirectory: true, onchange: chosen })),
    place !== null && h("p", {}, h("button", { type: "button", onclick: () => { useServer(); dialog.close(); } }, `Read from ${place}`)),
    h("form", { method: "dialog" }, h("button", {}, "Close")),
  ));

  /** @param {string} text @param {string} kind @param {...HTMLElement} actions */
  function say(text, kind, ...actions) {
    const close = h("button", { type: "button", class: "icon", "aria-label": "Close this message", onclick: () => line.remove() }, "×");
    const line = h("div", { class: `notice ${kind}` }, h("span", {}, text), ...actions, close);
    notice.replaceChildren(line);
  }

  function useServer() {
    if (place === null) return;
    notice.replaceChildren();
    images.use(new HttpShards(place, { origin: location.origin, onNotice: (text) => say(text, "warning") }));
    onChange();
  }

  /** @param {Iterable<File>} list */
  function take(list) {
    const { taken, problems } = files.add(list);
    if (taken) {
      notice.replaceChildren();
      images.use(files);
      dialog.close();
    }
    if (problems.length) {
      say(problems.slice(0, 3).join(" "), "error", openButton("Choose again…"));
      dialog.close();
    }
    onChange();
  }

  /** @param {string} text */
  function openButton(text) {
    return h("button", { type: "button", onclick: open }, text);
  }

  function open() {
    status.textContent = images.source ? `Now: ${images.source.text}.` : "No shards are open yet.";
    dialog.showModal();
  }

  if (table.places) {
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer?.files.length) take(event.dataTransfer.files);
    });
    if (place !== null) images.use(new HttpShards(place, { origin: location.origin, onNotice: (text) => say(text, "warning") }));
    else say(`To see the images, choose the shard files, such as ${table.places.shards[0].name}.`, "hint", openButton("Choose shards…"));
  }

  return {
    notice,
    dialog,
    open,
    /** @param {Error} error  Why no image can be read. */
    failed(error) {
      const again = h("button", { type: "button", onclick: () => { notice.replaceChildren(); images.retry(); onChange(); } }, "Try again");
      say(error.message, "error", again, openButton("Choose files…"));
    },
  };
}

/** @returns {string | null} The URL of the shards; null if the page has none or cannot read it. */
function serverPlace() {
  const place = document.querySelector('meta[name="shards"]')?.getAttribute("content") ?? "";
  if (!place) return null;
  if (/^https?:/i.test(place)) return place;
  if (!/^https?:$/.test(location.protocol)) return null; // a page on disk may not read files beside it
  return new URL(place, document.baseURI).href.replace(/\/$/, "");
}
