// Two models on the same images: their accuracies, the images that one gets right, and the classes that moved.

import { FLIPS, movedClasses } from "../data/comparison.js";
import { formatRoute } from "../data/route.js";
import { count, interval, pValue, points } from "../data/statistics.js";
import { h, link } from "../ui/dom.js";
import { bars, choice, classLink, counted, dataTable, fraction, modelLink, percentText, section } from "../ui/parts.js";
import { notFound } from "./classes.js";

/** @typedef {import("../ui/parts.js").Context} Context */

const MOVED = 20;

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function compareView(context) {
  const { table, numbers, route } = context;
  if (table.models.length < 2) return notFound("Comparison", "A comparison needs the predictions of two models.");
  const [first, second] = bestTwo(context);
  const a = table.models.find(({ name }) => name === route.query.a) ?? (route.query.b === first.name ? second : first);
  const b = table.models.find(({ name }) => name === route.query.b) ?? (a === second ? first : second);
  const against = route.query.against === "original" ? "original" : "real";
  const found = numbers.comparison(a.index, b.index, against);
  const title = `${a.name} and ${b.name}`;
  const words = against === "real" ? "ReaL" : "original";
  return {
    title: `Compare ${title}`,
    node: h(
      "div",
      {},
      h("h1", { tabindex: "-1" }, "Compare"),
      form(context, a.name, b.name, against),
      found.total
        ? [
            h("p", { class: "lead" }, `${words} top-1 on the ${counted(found.total, "image")} that both answered.`),
            h("div", { class: "columns" }, numbersSection(context, a, b, found), flipsSection(context, a.name, b.name, against, found)),
            movedSection(context, a.name, b.name, against, found),
          ]
        : h("p", {}, "The two models have no image with a label in common."),
    ),
  };
}

/** @param {Context} context */
function bestTwo({ table, numbers }) {
  return [...table.models].sort(
    (x, y) => numbers.outcome(y.index).accuracy.real_top1.correct - numbers.outcome(x.index).accuracy.real_top1.correct || x.index - y.index,
  );
}

/** @param {Context} context @param {string} a @param {string} b @param {string} against */
function form({ table, route }, a, b, against) {
  const models = table.models.map(({ name }) => ({ value: name, text: name }));
  /** @param {Record<string, string>} changes */
  const go = (changes) => location.assign(formatRoute(["compare"], { ...route.query, a, b, against: against === "real" ? "" : against, ...changes }));
  return h(
    "form",
    { class: "filters", "aria-label": "Models to compare", onsubmit: (/** @type {Event} */ event) => event.preventDefault() },
    choice("compare-a", "A", models, a, (value) => go({ a: value })),
    choice("compare-b", "B", models, b, (value) => go({ b: value })),
    choice("compare-against", "by", [{ value: "real", text: "ReaL labels" }, { value: "original", text: "original labels" }], against, (value) =>
      go({ against: value === "real" ? "" : value }),
    ),
    h("button", { type: "button", onclick: () => go({ a: b, b: a }) }, "swap A and B"),
  );
}

/** @param {Context} context @param {any} a @param {any} b @param {any} found */
function numbersSection(context, a, b, found) {
  const [low, high] = found.interval;
  return section(
    "Accuracy",
    dataTable(
      context,
      "Accuracy in percent",
      [
        { id: "side", text: "model", cell: ({ side, model }) => [`${side} `, modelLink(context, model)] },
        { id: "correct", text: "correct / n", number: true, cell: ({ value }) => fraction(value) },
        { id: "share", text: "accuracy", number: true, cell: ({ value }) => percentText(value) },
        { id: "interval", text: "95 % interval", number: true, cell: ({ value }) => interval(value) },
      ],
      [{ side: "A", model: a, value: found.a }, { side: "B", model: b, value: found.b }],
      { parameter: "sides" },
    ),
    h(
      "dl",
      { class: "facts" },
      h("dt", {}, "B − A"),
      h("dd", {}, `${points(found.difference)} points (95 %: ${points(low)} to ${points(high)})`),
      h("dt", {}, "McNemar exact p"),
      h("dd", {}, pValue(found.pValue)),
    ),
  );
}

/** @param {Context} context @param {string} a @param {string} b @param {string} against @param {any} found */
function flipsSection(context, a, b, against, found) {
  const names = [`both right`, `only ${a} right`, `only ${b} right`, `both wrong`];
  const counts = [found.both, found.onlyA, found.onlyB, found.neither];
  return section(
    "Flips",
    bars(
      FLIPS.map(({ id }, place) => ({
        text: names[place],
        images: counts[place],
        href: context.to(["images"], { a, b, flip: id, against: against === "real" ? "" : against }),
        style: `flip-${id}`,
      })),
      found.total,
    ),
  );
}

/** @param {Context} context @param {string} a @param {string} b @param {string} against @param {any} found */
function movedSection(context, a, b, against, found) {
  /** @param {any} row @param {string} flip */
  const images = (row, flip) =>
    context.to(["images"], { a, b, flip, against: against === "real" ? "" : against, [against === "real" ? "real" : "original"]: row.label });
  return section(
    "Classes that moved most",
    dataTable(
      context,
      "Right images of the class",
      [
        { id: "class", text: "class", cell: ({ label }) => classLink(context, label) },
        { id: "a", text: "A", number: true, cell: (row) => count(row.a), sort: (row) => row.a },
        { id: "b", text: "B", number: true, cell: (row) => count(row.b), sort: (row) => row.b },
        { id: "of", text: "of", number: true, cell: (row) => count(row.total), sort: (row) => row.total },
        {
          id: "change",
          text: "B − A",
          number: true,
          cell: (row) =>
            link(images(row, row.b > row.a ? "only-b" : "only-a"), { title: "the images that changed" }, row.b > row.a ? `+${row.b - row.a}` : `−${row.a - row.b}`),
          sort: (row) => row.b - row.a,
        },
      ],
      movedClasses(found.perClass, MOVED),
      { parameter: "moved" },
    ),
  );
}
