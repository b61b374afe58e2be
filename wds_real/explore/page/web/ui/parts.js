// Small parts that several views share.

import { KINDS } from "../data/labels.js";
import { RESULTS } from "../data/outcomes.js";
import { formatRoute } from "../data/route.js";
import { count, percent, share } from "../data/statistics.js";
import { h, link } from "./dom.js";

/**
 * @typedef {import("../data/table.js").Table} Table
 * @typedef {import("../data/table.js").Model} Model
 * @typedef {import("./dom.js").Child} Child
 *
 * @typedef {object} Context  The input of a view; the view is made again when any of it changes.
 * @property {Table} table
 * @property {import("../data/numbers.js").Numbers} numbers
 * @property {import("../data/route.js").Route} route
 * @property {import("../images/loader.js").Images} images
 * @property {(path: (string | number)[], query?: Record<string, any>) => string} to  Address that keeps the current threshold.
 *
 * @typedef {{title: string, node: HTMLElement, mounted?: () => void, dispose?: () => void}} View
 */

/** @param {string} title @param {...Child} children @returns {HTMLElement} */
export function section(title, ...children) {
  return h("section", { class: "panel" }, h("h2", {}, title), ...children);
}

/** @param {Context} context @param {number} label @param {Record<string, any>} [attributes] @returns {HTMLElement} */
export function classLink(context, label, attributes = {}) {
  const info = context.table.classes[label];
  return link(context.to(["class", label]), { title: `${label} ${info.wnid}: ${info.lemmas}`, ...attributes }, info.name);
}

/** @param {Context} context @param {Model} model @returns {HTMLElement} */
export function modelLink(context, model) {
  return link(context.to(["model", model.name]), {}, model.name);
}

/** @param {number} kind @returns {HTMLElement} */
export function kindBadge(kind) {
  const { id, short, text } = KINDS[kind];
  return h("span", { class: `badge kind-${id}`, title: text }, short);
}

/** @param {number} result @returns {HTMLElement} */
export function resultBadge(result) {
  const { id, text, title } = RESULTS[result];
  return h("span", { class: `badge result-${id}`, title }, text);
}

/**
 * Return counts as bars, each a link to the images that are counted; a `total` of 0 shows no shares.
 * @param {{text: string, images: number, href: string, style?: string, title?: string}[]} entries
 * @param {number} total
 * @returns {HTMLElement}
 */
export function bars(entries, total) {
  const most = Math.max(1, ...entries.map(({ images }) => images));
  return h(
    "ul",
    { class: total ? "bars" : "bars bare" },
    entries.map(({ text, images, href, style = "", title }) =>
      h(
        "li",
        {},
        link(
          href,
          { title },
          h("span", { class: "bar-text" }, text),
          h("span", { class: "bar-count" }, count(images)),
          total > 0 && h("span", { class: "bar-share" }, `${percent(images / total, 1)} %`),
          h(
            "span",
            { class: "bar-track", "aria-hidden": "true" },
            h("span", { class: `bar-fill ${images ? style : "zero"}`, style: { width: `${(100 * images) / most}%` } }),
          ),
        ),
      ),
    ),
  );
}

/**
 * @typedef {object} Column
 * @property {string} id
 * @property {string} text
 * @property {boolean} [number]
 * @property {string} [title]
 * @property {(row: any) => Child} cell
 * @property {(row: any) => string | number} [sort]  Makes the column sortable.
 */

/**
 * Return a table; a sortable column's head is a link to the same view, sorted.
 * @param {Context} context
 * @param {string} caption
 * @param {Column[]} columns
 * @param {any[]} rows
 * @param {{sort?: string, parameter?: string, limit?: number}} [options]  `sort`: column and direction at first, such as
 *   "real-down"; `limit`: rows shown before "show all".
 * @returns {HTMLElement}
 */
export function dataTable(context, caption, columns, rows, { sort = "", parameter = "sort", limit = Infinity } = {}) {
  const { query, path } = context.route;
  const [by, direction] = (query[parameter] ?? sort).split(/-(?=up$|down$)/);
  const chosen = columns.find(({ id }) => id === by);
  const all = query.all === parameter;
  const ordered = chosen?.sort ? sortedRows(rows, chosen.sort, direction === "down") : rows;
  const visible = all ? ordered : ordered.slice(0, limit);
  const head = columns.map((column) => {
    const isSorted = column === chosen;
    const next = isSorted ? (direction === "down" ? "up" : "down") : column.number ? "down" : "up";
    const content = column.sort
      ? link(
          formatRoute(path, { ...query, [parameter]: `${column.id}-${next}` }),
          { id: `${parameter}-${column.id}`, class: "sorter" },
          column.text,
          h("span", { "aria-hidden": "true", class: "arrow" }, isSorted ? (direction === "down" ? "▼" : "▲") : "↕"),
        )
      : column.text;
    return h(
      "th",
      {
        scope: "col",
        class: column.number ? "number" : "",
        title: column.title,
        "aria-sort": column.sort ? (isSorted ? (direction === "down" ? "descending" : "ascending") : "none") : null,
      },
      content,
    );
  });
  return h(
    "div",
    { class: "scroller", role: "region", tabindex: "0", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, head)),
      h(
        "tbody",
        {},
        visible.map((row) =>
          h(
            "tr",
            { class: row.mark },
            columns.map((column, place) =>
              place
                ? h("td", { class: column.number ? "number" : "" }, column.cell(row))
                : h("th", { scope: "row" }, column.cell(row)),
            ),
          ),
        ),
      ),
    ),
    ordered.length > visible.length &&
      h(
        "p",
        { class: "more" },
        link(formatRoute(path, { ...query, all: parameter }), { id: `all-${parameter}` }, `Show all ${count(ordered.length)}`),
      ),
  );
}

/** @param {any[]} rows @param {(row: any) => string | number} value @param {boolean} down @returns {any[]} */
function sortedRows(rows, value, down) {
  const sign = down ? -1 : 1;
  return rows
    .map((row, place) => ({ row, place, value: value(row) }))
    .sort((a, b) => (a.value < b.value ? -sign : a.value > b.value ? sign : a.place - b.place))
    .map(({ row }) => row);
}

/**
 * Return a labelled select.
 * @param {string} id
 * @param {string} text
 * @param {{value: string, text: string}[]} options
 * @param {string} value
 * @param {(value: string) => void} onChange
 * @returns {HTMLElement}
 */
export function choice(id, text, options, value, onChange) {
  const select = h(
    "select",
    { id, onchange: (/** @type {Event} */ event) => onChange(/** @type {HTMLSelectElement} */ (event.target).value) },
    options.map((option) => h("option", { value: option.value, selected: option.value === value }, option.text)),
  );
  return h("label", { class: "choice", for: id }, h("span", {}, text), select);
}

/** @param {{correct: number, total: number}} accuracy @returns {string} */
export function fraction(accuracy) {
  return `${count(accuracy.correct)} / ${count(accuracy.total)}`;
}

/** @param {{correct: number, total: number}} accuracy @returns {string} */
export function percentText(accuracy) {
  return percent(share(accuracy));
}

/** @param {number} number @param {string} noun @returns {string} */
export function counted(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
