// One image in a grid, and grids of images.

import { labelsOf } from "../data/labels.js";
import { resultOf } from "../data/outcomes.js";
import { count } from "../data/statistics.js";
import { NO_CLASS } from "../data/table.js";
import { ImageError } from "../images/errors.js";
import { h, link } from "./dom.js";
import { createGrid } from "./grid.js";
import { kindBadge, resultBadge } from "./parts.js";

/**
 * @typedef {import("./parts.js").Context} Context
 * @typedef {import("../data/filters.js").Filter} Filter
 */

/**
 * Return an element that shows an image when it has been read.
 * @param {Context} context
 * @param {number} row
 * @param {string} description
 * @param {{large?: boolean}} [options]  `large`: there is room for the whole message of a failure.
 * @returns {HTMLElement}
 */
export function picture(context, row, description, { large = false } = {}) {
  const { table, images } = context;
  const frame = h("span", { class: "picture" });
  const size = table.places && table.places.width[row] ? ` ${table.places.width[row]}×${table.places.height[row]}` : "";
  if (!table.places || !images.source) {
    frame.classList.add("empty");
    frame.append(h("span", { class: "stand-in", "aria-hidden": "true" }, shortKey(table.keys[row])));
    return frame;
  }
  frame.classList.add("waiting");
  images.url(row).then(
    (url) => {
      const image = /** @type {HTMLImageElement} */ (h("img", { alt: description, decoding: "async", title: `${table.keys[row]}${size}` }));
      image.onload = () => frame.classList.remove("waiting");
      image.onerror = () => failed(frame, large, new ImageError("cannot be decoded", `${table.keys[row]}: the browser cannot decode it.`));
      image.src = url;
      frame.replaceChildren(image);
    },
    (error) => {
      if (error instanceof ImageError) failed(frame, large, error);
    },
  );
  return frame;
}

/** @param {HTMLElement} frame @param {boolean} large @param {ImageError} error */
function failed(frame, large, error) {
  frame.classList.remove("waiting");
  frame.classList.add("failed");
  frame.title = error.message;
  frame.replaceChildren(h("span", { class: "stand-in" }, large ? error.message : error.short));
}

/** @param {string} key @returns {string} The number of a validation image, other keys as they are. */
export function shortKey(key) {
  return /^ILSVRC2012_val_0*(\d+)$/.exec(key)?.[1] ?? key;
}

/**
 * Return the names of the ReaL labels of an image.
 * @param {Context} context
 * @param {number} row
 * @returns {string}
 */
export function realText({ table, numbers }, row) {
  return labelsOf(numbers.accepted, row).map((label) => table.classes[label].name).join(", ");
}

/**
 * Return a grid of images.
 * @param {Context} context
 * @param {Uint32Array} rows
 * @param {{filter: Filter, sort?: string, label: string, model?: number}} options  The links hold filter
 *   and order, so that an image page knows its neighbours; the answers shown are those of `model`.
 * @returns {{node: HTMLElement, mounted: () => void, dispose: () => void}}
 */
export function imageGrid(context, rows, { filter, sort, label, model }) {
  if (!rows.length) return { node: h("p", { class: "nothing" }, "No image matches."), mounted() {}, dispose() {} };
  return createGrid({
    length: rows.length,
    label,
    kind: context.table.places ? "" : "text-only",
    card: (place) => card(context, rows[place], { ...filter, sort }, model),
    gone: (place) => context.images.drop(rows[place]),
  });
}

/** @param {Context} context @param {number} row @param {Record<string, any>} query @param {number} [model] */
function card(context, row, query, model) {
  const { table, numbers } = context;
  const original = table.classes[table.original[row]].name;
  const real = realText(context, row);
  const hasImages = table.places !== null;
  const answer = model === undefined ? NO_CLASS : table.models[model].top[0][row];
  return link(
    context.to(["image", table.keys[row]], query),
    { class: "card" },
    hasImages ? picture(context, row, "") : h("span", { class: "card-title" }, shortKey(table.keys[row])),
    h(
      "span",
      { class: "card-text" },
      h("span", { class: "card-line" }, h("span", { class: "card-name" }, "original"), h("span", { class: "card-value" }, original)),
      h("span", { class: "card-line" }, h("span", { class: "card-name" }, "ReaL"), h("span", { class: "card-value" }, real || "no label")),
      model === undefined
        ? missedLine(context, row)
        : h(
            "span",
            { class: "card-line" },
            h("span", { class: "card-name" }, "answer"),
            h("span", { class: "card-value" }, answer === NO_CLASS ? "none" : table.classes[answer].name),
          ),
      h(
        "span",
        { class: "card-badges" },
        kindBadge(numbers.accepted.kind[row]),
        model !== undefined && resultBadge(resultOf(numbers.outcome(model).bits[row])),
      ),
    ),
  );
}

/** @param {Context} context @param {number} row */
function missedLine({ table, numbers }, row) {
  if (!table.models.length) return null;
  const { wrong, answered } = numbers.missed();
  const text = answered[row] ? `${count(wrong[row])} of ${count(answered[row])} wrong` : "not counted";
  return h("span", { class: "card-line" }, h("span", { class: "card-name" }, "models"), h("span", { class: "card-value" }, text));
}
