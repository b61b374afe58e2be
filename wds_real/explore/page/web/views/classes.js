// The classes: a table of all, one class, and a pair of classes.

import { takenFor, takenFrom } from "../data/classes.js";
import { matchingRows } from "../data/filters.js";
import { accepts } from "../data/labels.js";
import { formatRoute } from "../data/route.js";
import { count, percent, share } from "../data/statistics.js";
import { imageGrid } from "../ui/card.js";
import { h, link } from "../ui/dom.js";
import { bars, choice, classLink, counted, dataTable, fraction, modelLink, section } from "../ui/parts.js";

/** @typedef {import("../ui/parts.js").Context} Context */

const SHOWN = 100;
const TAKEN = 12;

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function classesView(context) {
  const { table, numbers, route } = context;
  const sizes = numbers.classSizes();
  const model = table.models.find(({ name }) => name === route.query.model);
  const counts = model && numbers.classCounts(model.index);
  const rows = table.classes.map((info) => ({
    ...info,
    original: sizes.original[info.index],
    real: sizes.real[info.index],
    counts: counts && { correct: counts.correct[info.index], total: counts.total[info.index] },
  }));
  return {
    title: "Classes",
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, "Classes"),
      table.models.length > 0 && h("div", { class: "filters" }, modelChoice(context, ["classes"], "accuracy of", "no model")),
      dataTable(
        context,
        "Classes: images with this original label, and with this ReaL label",
        [
          { id: "name", text: "class", cell: ({ index }) => classLink(context, index), sort: ({ name }) => name.toLowerCase() },
          { id: "index", text: "number", number: true, cell: ({ index }) => index, sort: ({ index }) => index },
          { id: "wnid", text: "wnid", cell: ({ wnid }) => h("code", {}, wnid), sort: ({ wnid }) => wnid },
          { id: "original", text: "original", number: true, cell: ({ original }) => count(original), sort: ({ original }) => original },
          { id: "real", text: "ReaL", number: true, cell: ({ real }) => count(real), sort: ({ real }) => real },
          { id: "change", text: "change", number: true, cell: ({ original, real }) => signed(real - original), sort: ({ original, real }) => real - original },
          ...(counts
            ? [{
                id: "accuracy",
                text: "ReaL top-1",
                number: true,
                cell: (/** @type {any} */ row) => h("span", { title: fraction(row.counts) }, percent(share(row.counts), 1)),
                sort: (/** @type {any} */ row) => (row.counts.total ? share(row.counts) : 2),
              }]
            : []),
        ],
        rows,
        { sort: "index-up", limit: SHOWN },
      ),
    ),
  };
}

/** @param {number} change @returns {string} */
function signed(change) {
  return change > 0 ? `+${count(change)}` : change < 0 ? `−${count(-change)}` : "0";
}

/** @param {Context} context @param {(string | number)[]} path @param {string} text @param {string} none */
function modelChoice({ table, route }, path, text, none) {
  const options = [{ value: "", text: none }, ...table.models.map(({ name }) => ({ value: name, text: name }))];
  return choice("choose-model", text, options, route.query.model ?? "", (model) => location.assign(formatRoute(path, { ...route.query, model })));
}

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function classView(context) {
  const { table, numbers, route } = context;
  const label = Number(route.path[1]);
  const info = table.classes[label];
  if (!info) return notFound("Class", `There is no class ${route.path[1]}. Classes have the numbers 0 to ${table.classes.length - 1}.`);
  const filter = { class: String(label) };
  const grid = imageGrid(context, matchingRows(numbers, filter), { filter, label: `Images with the label ${info.name}` });
  return {
    title: info.name,
    node: h(
      "div",
      {},
      h(
        "nav",
        { class: "steps", "aria-label": "Classes" },
        label > 0 ? link(context.to(["class", label - 1]), { id: "previous", class: "button" }, "← previous") : h("span", { class: "button off" }, "← previous"),
        label + 1 < table.classes.length ? link(context.to(["class", label + 1]), { id: "next", class: "button" }, "next →") : h("span", { class: "button off" }, "next →"),
        link(context.to(["classes"]), {}, "all classes"),
      ),
      h("h1", { tabindex: "-1" }, info.name),
      h("p", { class: "lead" }, `Class ${label}, `, h("code", {}, info.wnid), `: ${info.lemmas}`),
      h("p", { class: "note" }, info.definition),
      h("div", { class: "columns" }, membersSection(context, label), alsoSection(context, label)),
      table.models.length > 0 && confusionSection(context, label),
      h("section", {}, h("h2", {}, "Images with this original or ReaL label"), grid.node),
    ),
    mounted: grid.mounted,
    dispose: grid.dispose,
  };
}

/** @param {Context} context @param {number} label */
function membersSection(context, label) {
  const { table, numbers } = context;
  let [both, original, real] = [0, 0, 0];
  for (let row = 0; row < table.numImages; row += 1) {
    const own = table.original[row] === label;
    const accepted = accepts(numbers.accepted, row, label);
    if (own && accepted) both += 1;
    else if (own) original += 1;
    else if (accepted) real += 1;
  }
  return section(
    "Images of this class",
    bars(
      [
        { text: "with this original label", images: both + original, href: context.to(["images"], { original: label }) },
        { text: "with this ReaL label", images: both + real, href: context.to(["images"], { real: label }) },
      ],
      table.numImages,
    ),
    h(
      "p",
      { class: "note" },
      `Both labels agree on ${counted(both, "image")}. ReaL takes the label from ${count(original)} and gives it to ${count(real)} others.`,
    ),
  );
}

/** @param {Context} context @param {number} label The other labels of its images. */
function alsoSection(context, label) {
  const { table, numbers } = context;
  const { start, label: labels } = numbers.accepted;
  const counts = new Map();
  for (let row = 0; row < table.numImages; row += 1) {
    if (table.original[row] !== label && !accepts(numbers.accepted, row, label)) continue;
    for (let at = start[row]; at < start[row + 1]; at += 1) {
      if (labels[at] !== label) counts.set(labels[at], (counts.get(labels[at]) ?? 0) + 1);
    }
  }
  const rows = [...counts].map(([other, images]) => ({ other, images })).sort((a, b) => b.images - a.images || a.other - b.other);
  if (!rows.length) return section("Other ReaL labels of these images", h("p", {}, "None."));
  return section(
    "Other ReaL labels of these images",
    bars(
      rows.slice(0, TAKEN).map(({ other, images }) => ({ text: table.classes[other].name, images, href: context.to(["pair", label, other]) })),
      0,
    ),
  );
}

/** @param {Context} context @param {number} label */
function confusionSection(context, label) {
  const { table, numbers, route } = context;
  const chosen = table.models.filter(({ name }) => !route.query.model || name === route.query.model);
  /** @param {typeof takenFor} count */
  const summed = (count) => {
    const sums = new Map();
    for (const model of chosen) {
      for (const { label: other, images } of count(table, numbers.accepted, model, numbers.outcome(model.index), label)) {
        sums.set(other, (sums.get(other) ?? 0) + images);
      }
    }
    return [...sums].map(([other, images]) => ({ other, images })).sort((a, b) => b.images - a.images || a.other - b.other);
  };
  /** @param {{other: number, images: number}[]} list @param {(other: number) => number[]} pair */
  const list = (list, pair) =>
    list.length
      ? bars(list.slice(0, TAKEN).map(({ other, images }) => ({ text: table.classes[other].name, images, href: context.to(["pair", ...pair(other)], { model: route.query.model }) })), 0)
      : h("p", {}, "Nothing.");
  const rows = chosen.map((model) => {
    const counts = numbers.classCounts(model.index);
    return { model, counts: { correct: counts.correct[label], total: counts.total[label] } };
  });
  return section(
    "What models take it for",
    h("div", { class: "filters" }, modelChoice(context, ["class", label], "answers of", "all models")),
    h(
      "div",
      { class: "columns" },
      h("div", {}, h("h3", {}, "These images are wrongly taken for"), list(summed(takenFor), (other) => [label, other])),
      h("div", {}, h("h3", {}, "Wrongly taken for this class are images of"), list(summed(takenFrom), (other) => [other, label])),
      dataTable(
        context,
        "ReaL top-1 on the images with this ReaL label",
        [
          { id: "model", text: "model", cell: ({ model }) => modelLink(context, model), sort: ({ model }) => model.name.toLowerCase() },
          { id: "right", text: "right", number: true, cell: ({ counts }) => fraction(counts) },
          { id: "share", text: "%", number: true, cell: ({ counts }) => percent(share(counts), 1), sort: ({ counts }) => (counts.total ? share(counts) : -1) },
        ],
        rows,
        { parameter: "by", sort: "share-down" },
      ),
    ),
  );
}

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function pairView(context) {
  const { table, numbers, route } = context;
  const [a, b] = [Number(route.path[1]), Number(route.path[2])];
  const [one, other] = [table.classes[a], table.classes[b]];
  if (!one || !other || a === b) return notFound("Pair", "A pair is two different classes, by number, such as #/pair/65/58.");
  const model = table.models.find(({ name }) => name === route.query.model);
  const show = route.query.show ?? (table.models.length ? "taken" : "both");
  /** @type {Record<string, string>} */
  const filter = show === "both" ? { real: `${a} ${b}` }
    : show === "original" ? { original: String(a), real: String(b) }
      : model ? { model: model.name, real: String(a), predicted: String(b), outcome: "wrong newly-wrong" } : { real: String(a), wrong: String(b) };
  const rows = matchingRows(numbers, filter);
  const grid = imageGrid(context, rows, { filter, label: "Images of the pair", model: model?.index });
  const shows = [
    ...(table.models.length ? [{ value: "taken", text: `ReaL ${one.name}, taken for ${other.name}` }] : []),
    { value: "both", text: "both are ReaL labels" },
    { value: "original", text: `original ${one.name}, ReaL ${other.name}` },
  ];
  return {
    title: `${one.name} and ${other.name}`,
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, one.name, h("span", { class: "quiet" }, " taken for "), other.name),
      h(
        "p",
        { class: "lead" },
        classLink(context, a), ` (${one.lemmas}) and `, classLink(context, b), ` (${other.lemmas}). `,
        link(context.to(["pair", b, a], { model: route.query.model, show: route.query.show }), {}, "The other way round"),
      ),
      h("div", { class: "columns" }, labelsOfPair(context, a, b), table.models.length > 0 && modelsOfPair(context, a, b)),
      h("section", {},
        h("h2", {}, "Images"),
        h("div", { class: "filters" },
          choice("pair-show", "show", shows, show, (value) => location.assign(formatRoute(route.path, { ...route.query, show: value }))),
          show === "taken" && modelChoice(context, route.path, "answers of", "any model")),
        h("p", { class: "found", role: "status" }, counted(rows.length, "image")),
        grid.node),
    ),
    mounted: grid.mounted,
    dispose: grid.dispose,
  };
}

/** @param {Context} context @param {number} a @param {number} b */
function labelsOfPair(context, a, b) {
  const { table, numbers } = context;
  const [one, other] = [table.classes[a].name, table.classes[b].name];
  const entries = [
    { text: "both are ReaL labels", filter: { real: `${a} ${b}` } },
    { text: `original ${one}, ReaL ${other}`, filter: { original: a, real: b } },
    { text: `original ${other}, ReaL ${one}`, filter: { original: b, real: a } },
  ].map(({ text, filter }) => ({
    text,
    images: matchingRows(numbers, /** @type {any} */ (Object.fromEntries(Object.entries(filter).map(([name, value]) => [name, String(value)])))).length,
    href: context.to(["images"], filter),
  }));
  return section("Labels", bars(entries, 0));
}

/** @param {Context} context @param {number} a @param {number} b */
function modelsOfPair(context, a, b) {
  const { table, numbers } = context;
  /** @param {import("../data/table.js").Model} model @param {number} label @param {number} answer */
  const images = (model, label, answer) =>
    takenFor(table, numbers.accepted, model, numbers.outcome(model.index), label).find((entry) => entry.label === answer)?.images ?? 0;
  const rows = table.models.map((model) => ({ model, there: images(model, a, b), back: images(model, b, a) }));
  /** @param {string} name @param {number} label @param {number} answer @param {number} found */
  const cell = (name, label, answer, found) =>
    found ? link(context.to(["images"], { model: name, real: label, predicted: answer, outcome: "wrong newly-wrong" }), {}, count(found)) : "0";
  const [one, other] = [table.classes[a].name, table.classes[b].name];
  return section(
    "Models",
    dataTable(
      context,
      "Images with one ReaL label that are wrongly taken for the other",
      [
        { id: "model", text: "model", cell: ({ model }) => modelLink(context, model), sort: ({ model }) => model.name.toLowerCase() },
        { id: "there", text: `${one} → ${other}`, number: true, cell: ({ model, there }) => cell(model.name, a, b, there), sort: ({ there }) => there },
        { id: "back", text: `${other} → ${one}`, number: true, cell: ({ model, back }) => cell(model.name, b, a, back), sort: ({ back }) => back },
      ],
      rows,
      { parameter: "by" },
    ),
  );
}

/** @param {string} what @param {string} text @returns {import("../ui/parts.js").View} */
export function notFound(what, text) {
  const title = `${what} not found`;
  return { title, node: h("div", {}, h("h1", { tabindex: "-1" }, title), h("p", {}, text)) };
}
