// All models: a table that can be sorted, original against ReaL accuracy, and the images that most models miss.

import { matchingRows } from "../data/filters.js";
import { originalLabelsAsModel } from "../data/outcomes.js";
import { count, interval, points, share } from "../data/statistics.js";
import { imageGrid } from "../ui/card.js";
import { h } from "../ui/dom.js";
import { bars, counted, dataTable, fraction, modelLink, percentText, section } from "../ui/parts.js";
import { accuracyPlot } from "../ui/plot.js";

/**
 * @typedef {import("../ui/parts.js").Context} Context
 * @typedef {import("../ui/parts.js").Column} Column
 */

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function modelsView(context) {
  const { table, numbers } = context;
  if (!table.models.length) {
    return { title: "Models", node: h("div", {}, h("h1", { tabindex: "-1" }, "Models"), h("p", {}, "This page has no predictions.")) };
  }
  const filter = { missed: `1-${table.models.length}` };
  const grid = imageGrid(context, matchingRows(numbers, filter, "missed"), { filter, sort: "missed", label: "Images that most models miss" });
  return {
    title: "Models",
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, "Models"),
      section("Table", dataTable(context, `${counted(table.models.length, "model")}, top-1 and top-5 in percent`, modelColumns(context), modelRows(context), { sort: "real-down" })),
      h("div", { class: "columns" }, plotSection(context), missedSection(context)),
      h("section", {}, h("h2", {}, "Images that most models miss"), grid.node),
    ),
    mounted: grid.mounted,
    dispose: grid.dispose,
  };
}

/** @param {Context} context @returns {any[]} */
export function modelRows({ table, numbers }) {
  return table.models.map((model) => ({ model, ...numbers.outcome(model.index) }));
}

/** @param {Context} context @param {{brief?: boolean}} [options] @returns {Column[]} */
export function modelColumns(context, { brief = false } = {}) {
  /** @param {string} id @param {string} text @param {string} name @param {string} title @returns {Column} */
  const accuracy = (id, text, name, title) => ({
    id,
    text,
    title,
    number: true,
    cell: ({ accuracy: all }) => (all[name] ? h("span", { title: `${fraction(all[name])}, 95 %: ${interval(all[name])}` }, percentText(all[name])) : "–"),
    sort: ({ accuracy: all }) => (all[name] ? share(all[name]) : -1),
  });
  const effect = (/** @type {any} */ { accuracy: all }) => 100 * (share(all.real_top1) - share(all.original_top1));
  /** @type {(Column | false)[]} */
  const columns = [
    { id: "name", text: "model", cell: ({ model }) => modelLink(context, model), sort: ({ model }) => model.name.toLowerCase() },
    accuracy("original", "original top-1", "original_top1", "against the original labels, all images"),
    !brief && accuracy("original5", "original top-5", "original_top5", "right if among the five highest"),
    accuracy("labelled", "… labelled", "original_top1_labelled", "original top-1 on the images that have a ReaL label"),
    accuracy("real", "ReaL top-1", "real_top1", "right if the answer is one of the ReaL labels, on the images that have one"),
    !brief && {
      id: "interval",
      text: "95 % interval",
      number: true,
      cell: ({ accuracy: all }) => interval(all.real_top1),
    },
    !brief && accuracy("real5", "ReaL top-5", "real_top5", "right if any of the five highest is a ReaL label"),
    { id: "effect", text: "ReaL − original", number: true, title: "in percentage points", cell: (row) => points(effect(row)), sort: effect },
    {
      id: "forgiven",
      text: "forgiven",
      number: true,
      title: "wrong by the original label, right by ReaL",
      cell: ({ forgiven }) => count(forgiven),
      sort: ({ forgiven }) => forgiven,
    },
    {
      id: "newly",
      text: "newly wrong",
      number: true,
      title: "right by the original label, wrong by ReaL",
      cell: ({ newlyWrong }) => count(newlyWrong),
      sort: ({ newlyWrong }) => newlyWrong,
    },
    !brief && {
      id: "images",
      text: "images",
      number: true,
      cell: ({ accuracy: all }) => count(all.original_top1.total),
      sort: ({ accuracy: all }) => all.original_top1.total,
    },
  ];
  return /** @type {Column[]} */ (columns.filter(Boolean));
}

/** @param {Context} context @returns {HTMLElement} */
export function plotSection(context) {
  const { table, numbers } = context;
  const points = table.models.map((model) => {
    const { accuracy } = numbers.outcome(model.index);
    return { name: model.name, href: context.to(["model", model.name]), original: accuracy.original_top1, real: accuracy.real_top1 };
  });
  return section("Original against ReaL", accuracyPlot(points, originalLabelsAsModel(numbers.accepted)));
}

/** @param {Context} context @returns {HTMLElement} */
export function missedSection(context) {
  const { table, numbers } = context;
  const { wrong, answered } = numbers.missed();
  const counts = new Array(table.models.length + 1).fill(0);
  let total = 0;
  for (let row = 0; row < table.numImages; row += 1) {
    if (!answered[row]) continue;
    counts[wrong[row]] += 1;
    total += 1;
  }
  const step = Math.ceil(counts.length / 21); // of many models, several counts share a bar
  const entries = [];
  for (let low = 0; low < counts.length; low += low ? step : 1) {
    const high = low ? Math.min(counts.length - 1, low + step - 1) : 0;
    const range = low === high ? `${low}` : `${low} to ${high}`;
    const images = counts.slice(low, high + 1).reduce((a, b) => a + b, 0);
    const text = low === 0 ? "no model wrong" : low === high && high === table.models.length ? `all ${count(high)} wrong` : `${range} wrong`;
    entries.push({ text, images, href: context.to(["images"], { missed: low === high ? low : `${low}-${high}`, sort: "missed" }) });
  }
  return section("Images by the number of models that are wrong by ReaL", bars(entries, total));
}
