// The bar at the top: navigation, search, threshold and theme.

import { search } from "../data/search.js";
import { h, link } from "./dom.js";

/**
 * @typedef {import("../data/table.js").Table} Table
 *
 * @typedef {object} Handlers
 * @property {(threshold: number | null) => void} onThreshold
 * @property {(() => void) | null} onShards
 * @property {() => void} onHelp
 * @property {(path: (string | number)[], query?: Record<string, any>) => string} to
 */

const THEMES = [
  { id: "auto", text: "Theme: system", sign: "◐" },
  { id: "light", text: "Theme: light", sign: "☀" },
  { id: "dark", text: "Theme: dark", sign: "☾" },
];
const THEME_KEY = "wds-real-theme";

/**
 * @param {Table} table
 * @param {Handlers} handlers
 */
export function createHeader(table, { onThreshold, onShards, onHelp, to }) {
  const entries = [
    { path: [], text: "Overview" },
    { path: ["images"], text: "Images" },
    { path: ["classes"], text: "Classes" },
    ...(table.models.length ? [{ path: ["models"], text: "Models" }] : []),
    ...(table.models.length > 1 ? [{ path: ["compare"], text: "Compare" }] : []),
  ];
  const nav = h("nav", { "aria-label": "Views", class: "views" });
  const box = createSearch(table, to);
  const threshold = createThreshold(table, onThreshold);
  const node = h(
    "header",
    { class: "bar" },
    nav,
    h(
      "div",
      { class: "tools" },
      box.node,
      threshold.node,
      h(
        "div",
        { class: "buttons" },
        onShards && h("button", { type: "button", id: "open-shards", onclick: onShards }, "Shards…"),
        createTheme(),
        h("button", { type: "button", class: "icon", "aria-label": "Help and keys", title: "Help and keys (?)", onclick: onHelp }, "?"),
      ),
    ),
  );
  return {
    node,
    search: box.input,
    /** @param {import("../data/route.js").Route} route @param {number | null} permille */
    update(route, permille) {
      const now = section(route.path[0] ?? "");
      nav.replaceChildren(
        ...entries.map(({ path, text }) => link(to(path), { "aria-current": (path[0] ?? "") === now ? "page" : null }, text)),
      );
      threshold.update(permille);
    },
  };
}

/** @param {string} view @returns {string} The entry of the navigation that a view belongs to. */
function section(view) {
  return { image: "images", class: "classes", pair: "classes", model: "models" }[view] ?? view;
}

/** @param {Table} table @param {Handlers["onThreshold"]} onThreshold */
function createThreshold(table, onThreshold) {
  if (!table.hasThresholds) {
    return {
      node: h("p", { class: "threshold off" }, "There are no rater scores of these images."),
      update() {},
    };
  }
  const start = table.threshold ?? 800;
  /** @param {Event} event */
  const changed = (event) => {
    const value = Math.round(Number(/** @type {HTMLInputElement} */ (event.target).value) * 1000);
    if (Number.isFinite(value) && value >= 0 && value < 1000) onThreshold(value);
  };
  const slider = /** @type {HTMLInputElement} */ (h("input", { type: "range", id: "threshold", min: "0", max: "0.99", step: "0.01", value: String(start / 1000), oninput: changed }));
  const number = /** @type {HTMLInputElement} */ (h("input", { type: "number", id: "threshold-number", min: "0", max: "0.999", step: "0.001", value: String(start / 1000), "aria-label": "Rater threshold as a number", onchange: changed }));
  const reset = h("button", { type: "button", id: "threshold-reset", onclick: () => onThreshold(table.threshold) }, table.hasGiven ? "as given" : "released");
  const node = h(
    "div",
    { class: "threshold", role: "group", "aria-label": "Rater threshold" },
    h("label", { for: "threshold", title: "A label is a ReaL label if its rater score is above the threshold; released: 0.8" }, "rater threshold"),
    slider,
    number,
    reset,
  );
  return {
    node,
    /** @param {number | null} permille */
    update(permille) {
      const value = (permille ?? 800) / 1000;
      if (document.activeElement !== slider || Number(slider.value) !== value) slider.value = String(value);
      if (document.activeElement !== number) number.value = String(value);
      slider.setAttribute("aria-valuetext", permille === null ? "labels as given" : String(value));
      node.classList.toggle("given", permille === null);
      /** @type {HTMLButtonElement} */ (reset).disabled = permille === table.threshold;
    },
  };
}

function createTheme() {
  const button = h("button", { type: "button", id: "theme", class: "icon" });
  let at = Math.max(0, THEMES.findIndex(({ id }) => id === stored()));
  const show = () => {
    const { id, text, sign } = THEMES[at];
    document.documentElement.dataset.theme = id;
    button.textContent = sign;
    button.title = text;
    button.setAttribute("aria-label", text);
  };
  button.addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    try {
      localStorage.setItem(THEME_KEY, THEMES[at].id);
    } catch {
      // a browser may forbid it; the choice then holds until the page is closed
    }
    show();
  });
  show();
  return button;
}

/** @returns {string | null} */
function stored() {
  try {
    return localStorage.getItem(THEME_KEY);
  } catch {
    return null;
  }
}

/** @param {Table} table @param {Handlers["to"]} to */
function createSearch(table, to) {
  const list = h("ul", { id: "hits", role: "listbox", "aria-label": "Search results", hidden: true });
  const input = /** @type {HTMLInputElement} */ (h("input", {
    type: "search", id: "search", role: "combobox", "aria-expanded": "false", "aria-controls": "hits", "aria-autocomplete": "list",
    "aria-label": "Search a class, wnid, image or model", placeholder: "Search", autocomplete: "off", spellcheck: "false",
  }));
  /** @type {{href: string, node: HTMLElement}[]} */
  let options = [];
  let active = -1;

  function close() {
    list.hidden = true;
    options = [];
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function update() {
    const text = input.value;
    const hits = search(table, text).map((hit) => ({ href: to([hit.kind, hit.id]), text: hit.text, detail: hit.detail }));
    if (text.trim()) hits.push({ href: to(["images"], { q: text.trim() }), text: `images whose name has “${text.trim()}”`, detail: "filter" });
    options = hits.map(({ href, text: title, detail }, place) => ({
      href,
      node: h("li", { id: `hit-${place}`, role: "option", "aria-selected": "false", onmousedown: (/** @type {Event} */ event) => { event.preventDefault(); go(href); } },
        h("span", { class: "hit" }, title), " ", h("span", { class: "hit-detail" }, detail)),
    }));
    list.replaceChildren(...options.map(({ node }) => node));
    active = -1;
    list.hidden = !options.length;
    input.setAttribute("aria-expanded", String(options.length > 0));
    input.removeAttribute("aria-activedescendant");
  }

  /** @param {number} place */
  function choose(place) {
    options[active]?.node.setAttribute("aria-selected", "false");
    active = (place + options.length) % options.length;
    options[active].node.setAttribute("aria-selected", "true");
    options[active].node.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", options[active].node.id);
  }

  /** @param {string} href */
  function go(href) {
    input.value = "";
    close();
    input.blur();
    location.assign(href);
  }

  input.addEventListener("input", update);
  input.addEventListener("focus", () => { if (input.value) update(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (!options.length) return;
    if (event.key === "ArrowDown") choose(active + 1);
    else if (event.key === "ArrowUp") choose(active < 0 ? -1 : active - 1);
    else if (event.key === "Enter") go(options[Math.max(0, active)].href);
    else return;
    event.preventDefault();
  });
  return { input, node: h("div", { class: "search", role: "search" }, input, list) };
}

