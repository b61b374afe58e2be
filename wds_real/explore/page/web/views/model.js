// One model: its accuracies, the bridge from original to ReaL, and where it is wrong.

import { takenFor, worstClasses } from "../data/classes.js";
import { RESULTS, countResults } from "../data/outcomes.js";
import { count, fixed, interval, percent, points, share } from "../data/statistics.js";
import { h, link } from "../ui/dom.js";
import { bars, classLink, counted, dataTable, fraction, percentText, section } from "../ui/parts.js";
import { notFound } from "./classes.js";
import { pairsTable, thresholdWords } from "./overview.js";

/**
 * @typedef {import("../ui/parts.js").Context} Context
 * @typedef {import("../data/table.js").Model} Model
 */

const WORST = 20;
const CONFUSED = 3;
const ROWS = [
  ["original_top1", "original top-1"],
  ["original_top5", "original top-5"],
  ["original_top1_labelled", "original top-1, labelled"],
  ["real_top1", "ReaL top-1"],
  ["real_top5", "ReaL top-5"],
];
const SLICES = [
  ["one_label", "one ReaL label"],
  ["several_labels", "several ReaL labels"],
  ["original_label_rejected", "original label rejected"],
];

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function modelView(context) {
  const { table, route } = context;
  const model = table.models.find(({ name }) => name === route.path[1]);
  if (!model) return notFound("Model", `This page has no model ${route.path[1]}.`);
  return {
    title: model.name,
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, model.name),
      h(
        "p",
        { class: "lead" },
        model.source ? ["Answers read from ", h("code", {}, model.source), ", scored "] : "Scored ",
        `${thresholdWords(context)}. `,
        table.models.length > 1 && link(context.to(["compare"], { a: model.name }), {}, "Compare with another model"),
      ),
      model.notes.map((note) => h("p", { class: "note" }, `note: ${note}`)),
      accuracySection(context, model),
      h("div", { class: "columns" }, bridgeSection(context, model), resultsSection(context, model)),
      h("div", { class: "columns" }, slicesSection(context, model), pairsOf(context, model)),
      worstSection(context, model),
    ),
  };
}

/** @param {Context} context @param {Model} model */
function accuracySection(context, model) {
  const { accuracy } = context.numbers.outcome(model.index);
  const failed = accuracy.original_top1.failed;
  return section(
    "Accuracy",
    dataTable(
      context,
      "Accuracy in percent",
      [
        { id: "name", text: "", cell: ({ text }) => text },
        { id: "correct", text: "correct / n", number: true, cell: ({ value }) => fraction(value) },
        { id: "accuracy", text: "accuracy", number: true, cell: ({ value }) => percentText(value) },
        { id: "interval", text: "95 % interval", number: true, cell: ({ value }) => interval(value) },
      ],
      ROWS.filter(([name]) => accuracy[name]).map(([name, text]) => ({ text, value: accuracy[name], mark: name === "real_top1" ? "main" : "" })),
      { parameter: "accuracy" },
    ),
    failed > 0 && h("p", { class: "note" }, `${counted(failed, "image")} could not be read and count as wrong.`),
  );
}

/** @param {Context} context @param {Model} model */
function bridgeSection(context, model) {
  const { accuracy, forgiven, newlyWrong } = context.numbers.outcome(model.index);
  const steps = [accuracy.original_top1, accuracy.original_top1_labelled, accuracy.real_top1].map(share);
  const low = Math.max(0, Math.min(...steps) - 0.02);
  const high = Math.min(1, Math.max(...steps) + 0.01);
  /** @param {number} value */
  const width = (value) => `${(100 * (value - low)) / (high - low)}%`;
  /** @param {string} text @param {number} value @param {string} change @param {string} style */
  const step = (text, value, change, style) =>
    h(
      "li",
      {},
      h("span", { class: "bridge-text" }, text),
      h("span", { class: "bridge-track", "aria-hidden": "true" }, h("span", { class: `bridge-fill ${style}`, style: { width: width(value) } })),
      h("span", { class: "bridge-value" }, `${percent(value)} %`),
      h("span", { class: "bridge-change" }, change),
    );
  return section(
    "From original to ReaL",
    h(
      "ol",
      { class: "bridge" },
      step("original top-1, all images", steps[0], "", "original"),
      step("unlabelled images excluded", steps[1], points(100 * (steps[1] - steps[0])), "labelled"),
      step("relabelled: ReaL top-1", steps[2], points(100 * (steps[2] - steps[1])), "real"),
    ),
    h(
      "p",
      { class: "note" },
      link(context.to(["images"], { model: model.name, outcome: "forgiven" }), {}, `${count(forgiven)} forgiven`),
      ", ",
      link(context.to(["images"], { model: model.name, outcome: "newly-wrong" }), {}, `${count(newlyWrong)} newly wrong`),
      `. The bars start at ${fixed(100 * low, 1)} %.`,
    ),
  );
}

/** @param {Context} context @param {Model} model */
function resultsSection(context, model) {
  const outcome = context.numbers.outcome(model.index);
  const counts = countResults(outcome);
  const entries = RESULTS.map(({ id, title }, place) => ({
    text: title,
    images: counts[place],
    href: context.to(["images"], { model: model.name, outcome: id }),
    style: `result-${id}`,
  })).filter(({ images }, place) => images || place < 4);
  return section("Answers", bars(entries, context.table.numImages));
}

/** @param {Context} context @param {Model} model */
function slicesSection(context, model) {
  const { slices } = context.numbers.outcome(model.index);
  const rows = SLICES.map(([name, text]) => ({ text, value: slices[name] }));
  return section(
    "Groups of images",
    dataTable(
      context,
      "ReaL top-1 by the labels of the image",
      [
        { id: "slice", text: "images with", cell: ({ text }) => text },
        { id: "correct", text: "correct / n", number: true, cell: ({ value }) => fraction(value) },
        { id: "share", text: "accuracy", number: true, cell: ({ value }) => percentText(value) },
      ],
      rows,
      { parameter: "slices" },
    ),
  );
}

/** @param {Context} context @param {Model} model */
function pairsOf(context, model) {
  const pairs = context.numbers.confusedPairs([model.index], 10);
  return section("What is taken for what", pairsTable(context, pairs, "Most frequent confusions", 1, model.name));
}

/** @param {Context} context @param {Model} model */
function worstSection(context, model) {
  const { table, numbers } = context;
  const outcome = numbers.outcome(model.index);
  const rows = worstClasses(numbers.classCounts(model.index), WORST);
  return section(
    "Worst classes",
    dataTable(
      context,
      "Classes with the lowest ReaL top-1, and what their images are taken for",
      [
        { id: "class", text: "class", cell: ({ label }) => classLink(context, label) },
        { id: "correct", text: "correct / n", number: true, cell: (row) => fraction(row) },
        { id: "share", text: "%", number: true, cell: (row) => percent(share(row), 1) },
        {
          id: "taken",
          text: "taken for",
          cell: ({ label }) =>
            takenFor(table, numbers.accepted, model, outcome, label)
              .slice(0, CONFUSED)
              .map(({ label: other, images }, place) => [
                place ? ", " : "",
                link(context.to(["pair", label, other], { model: model.name }), {}, `${table.classes[other].name} (${count(images)})`),
              ]),
        },
      ],
      rows,
      { parameter: "worst" },
    ),
  );
}
