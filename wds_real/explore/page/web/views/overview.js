// The first view: the labels of the data set and the accuracy of the models; every count links to its images.

import { KINDS, countKinds, countLengths } from "../data/labels.js";
import { count } from "../data/statistics.js";
import { h, link } from "../ui/dom.js";
import { bars, classLink, counted, dataTable, section } from "../ui/parts.js";
import { missedSection, modelColumns, modelRows, plotSection } from "./models.js";

/** @typedef {import("../ui/parts.js").Context} Context */

const PAIRS = 12;

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function overviewView(context) {
  const { table, numbers } = context;
  const { accepted } = numbers;
  return {
    title: "Overview",
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, table.title),
      h(
        "p",
        { class: "lead" },
        `${counted(table.numImages, "image")}. `,
        `${count(accepted.labelled)} have a ReaL label ${thresholdWords(context)}. `,
        table.models.length ? `Answers of ${counted(table.models.length, "model")}.` : "",
      ),
      table.numImages < 50000 && h("p", { class: "note" }, `${count(table.numImages)} of the 50,000 validation images; not an ImageNet accuracy.`),
      h("div", { class: "columns" }, kindsSection(context), lengthsSection(context)),
      table.models.length
        ? [
            section("Models", dataTable(context, "Models by ReaL top-1", modelColumns(context, { brief: true }), modelRows(context), { sort: "real-down", limit: 15 })),
            h("div", { class: "columns" }, plotSection(context), missedSection(context)),
            pairsSection(context),
          ]
        : section(
            "Models",
            h("p", {}, "This page has no predictions. Make it again with them: wds-real explore --predictions A.csv B.csv -o DIR."),
          ),
      table.digest && h("p", { class: "digest" }, "data set ", h("code", {}, table.digest)),
    ),
  };
}

/** @param {Context} context @returns {string} */
export function thresholdWords({ numbers }) {
  if (numbers.threshold === null) return "in the labels of this data set";
  return `at rater threshold ${numbers.threshold / 1000}${numbers.threshold === 800 ? " (the released labels)" : ""}`;
}

/** @param {Context} context */
function kindsSection(context) {
  const counts = countKinds(context.numbers.accepted);
  return section(
    "Original against ReaL label",
    bars(
      KINDS.map(({ id, text }, place) => ({
        text,
        images: counts[place],
        href: context.to(["images"], { kind: id }),
        style: `kind-${id}`,
      })),
      context.table.numImages,
    ),
  );
}

/** @param {Context} context */
function lengthsSection(context) {
  const counts = countLengths(context.numbers.accepted);
  return section(
    "ReaL labels of an image",
    bars(
      counts.map((images, length) => ({
        text: length === 0 ? "no label" : counted(length, "label"),
        images,
        href: context.to(["images"], { labels: length }),
      })),
      context.table.numImages,
    ),
  );
}

/** @param {Context} context */
function pairsSection(context) {
  const { table, numbers } = context;
  const all = table.models.map(({ index }) => index);
  return section("What is taken for what", pairsTable(context, numbers.confusedPairs(all, PAIRS), "Most frequent confusions of all models together", all.length));
}

/**
 * @param {Context} context
 * @param {{a: number, b: number, images: number}[]} pairs
 * @param {string} caption
 * @param {number} models
 * @param {string} [model]  Whose answers the pair page shows.
 * @returns {HTMLElement}
 */
export function pairsTable(context, pairs, caption, models, model) {
  return dataTable(
    context,
    caption,
    [
      { id: "a", text: "ReaL label", cell: ({ a }) => classLink(context, a) },
      { id: "b", text: "taken for", cell: ({ b }) => classLink(context, b) },
      {
        id: "images",
        text: models > 1 ? "answers" : "images",
        number: true,
        cell: ({ a, b, images }) =>
          link(context.to(["pair", a, b], { model }), { "aria-label": `${count(images)}: show the pair` }, count(images)),
      },
    ],
    pairs,
    { parameter: "pairs" },
  );
}
