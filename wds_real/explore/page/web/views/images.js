// All images, filtered and ordered, in a grid.

import { FLIPS } from "../data/comparison.js";
import { FILTERS, ORDERS, matchingRows } from "../data/filters.js";
import { KINDS, countLengths } from "../data/labels.js";
import { RESULTS } from "../data/outcomes.js";
import { formatRoute } from "../data/route.js";
import { imageGrid } from "../ui/card.js";
import { h, link } from "../ui/dom.js";
import { choice, counted } from "../ui/parts.js";

/**
 * @typedef {import("../ui/parts.js").Context} Context
 * @typedef {import("../data/filters.js").Filter} Filter
 */

/** @param {Record<string, string>} query @returns {Filter} */
export function filterOf(query) {
  return Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
}

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function imagesView(context) {
  const { table, numbers, route } = context;
  const filter = filterOf(route.query);
  const sort = route.query.sort ?? "key";
  const rows = matchingRows(numbers, filter, sort);
  const model = table.models.find(({ name }) => name === filter.model)?.index;
  const grid = imageGrid(context, rows, { filter, sort: route.query.sort, label: "Images", model });
  return {
    title: "Images",
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, "Images"),
      filterForm(context, filter, sort),
      chips(context, filter),
      h("p", { class: "found", role: "status" }, rows.length === table.numImages ? `All ${counted(rows.length, "image")}` : `${counted(rows.length, "image")} of ${table.numImages.toLocaleString("en")}`),
      grid.node,
    ),
    mounted: grid.mounted,
    dispose: grid.dispose,
  };
}

/** @param {Context} context @param {Filter} filter @param {string} sort */
function filterForm(context, filter, sort) {
  const { table, numbers, route } = context;
  /** @param {Record<string, any>} changes */
  const go = (changes) => location.assign(formatRoute(["images"], { ...route.query, ...changes }));
  const any = { value: "", text: "any" };
  const lengths = countLengths(numbers.accepted).map((_, length) => ({ value: String(length), text: String(length) }));
  const outcome = [any, ...RESULTS.slice(0, 6).map(({ id, text }) => ({ value: id, text }))];
  return h(
    "form",
    { class: "filters", "aria-label": "Filter", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    choice("filter-kind", "labels are", [any, ...KINDS.map(({ id, short }) => ({ value: id, text: short }))], filter.kind ?? "", (kind) => go({ kind })),
    choice("filter-labels", "ReaL labels", [any, ...lengths], filter.labels ?? "", (labels) => go({ labels })),
    table.models.length > 0 && [
      choice("filter-model", "answers of", [{ value: "", text: "no model" }, ...table.models.map(({ name }) => ({ value: name, text: name }))], filter.model ?? "", (model) =>
        go(model ? { model } : { model, outcome: "", predicted: "" }),
      ),
      filter.model && choice("filter-outcome", "the answer is", outcome, filter.outcome ?? "", (value) => go({ outcome: value })),
    ],
    choice("filter-sort", "order", ORDERS.filter(({ id }) => id !== "missed" || table.models.length).map(({ id, text }) => ({ value: id, text })), sort, (value) => go({ sort: value === "key" ? "" : value })),
  );
}

/** @param {Context} context @param {Filter} filter */
function chips(context, filter) {
  const { route } = context;
  const texts = Object.entries(filter)
    .filter(([name]) => !["a", "b", "against"].includes(name))
    .map(([name, value]) => {
      const without = { ...route.query, [name]: "" };
      if (name === "model") Object.assign(without, { outcome: "", predicted: "" });
      if (name === "flip") Object.assign(without, { a: "", b: "", against: "" });
      return link(
        formatRoute(["images"], without),
        { class: "chip", "aria-label": `Remove the condition: ${chipText(context, name, value, filter)}` },
        chipText(context, name, value, filter),
        h("span", { "aria-hidden": "true" }, " ×"),
      );
    });
  if (!texts.length) return null;
  return h("p", { class: "chips" }, texts, link(context.to(["images"]), { class: "chip plain" }, "all images"));
}

/** @param {Context} context @param {string} name @param {string} value @param {Filter} filter @returns {string} */
function chipText({ table }, name, value, filter) {
  const className = (/** @type {string} */ labels) => labels.split(" ").map((label) => table.classes[Number(label)]?.name ?? label).join(" and ");
  const named = (/** @type {{id: string, text: string}[]} */ list) =>
    value.split(" ").map((id) => list.find((entry) => entry.id === id)?.text ?? id).join(" or ");
  switch (name) {
    case "q": return `name has “${value}”`;
    case "kind": return named(KINDS);
    case "labels": return counted(Number(value), "ReaL label");
    case "class": return `original or ReaL label ${className(value)}`;
    case "original": return `original label ${className(value)}`;
    case "real": return `ReaL label ${className(value)}`;
    case "model": return `answers of ${value}`;
    case "outcome": return named(RESULTS);
    case "predicted": return `taken for ${className(value)}`;
    case "wrong": return `a model takes it for ${className(value)}, wrongly`;
    case "flip": return `${named(FLIPS).replace("A", () => filter.a ?? "A").replace(" B ", () => ` ${filter.b} `)} (${filter.a} and ${filter.b}, ${filter.against === "original" ? "original labels" : "ReaL"})`;
    case "missed": return `${value.replace("-", " to ")} models wrong`;
    default: return `${name} ${value}`;
  }
}
