// One image: both labels, what the raters said, what each model answered.

import { matchingRows } from "../data/filters.js";
import { accepts } from "../data/labels.js";
import { resultOf } from "../data/outcomes.js";
import { count, fixed, percent } from "../data/statistics.js";
import { NO_CLASS } from "../data/table.js";
import { sizeText } from "../images/errors.js";
import { checksumText } from "../images/loader.js";
import { picture, realText, shortKey } from "../ui/card.js";
import { h, link } from "../ui/dom.js";
import { classLink, dataTable, kindBadge, modelLink, resultBadge, section } from "../ui/parts.js";
import { filterOf } from "./images.js";

/** @typedef {import("../ui/parts.js").Context} Context */

/** @param {Context} context @returns {import("../ui/parts.js").View} */
export function imageView(context) {
  const { table, route } = context;
  const key = route.path[1] ?? "";
  const row = table.keys.indexOf(key);
  if (row < 0) {
    return {
      title: "Image not found",
      node: h("div", {}, h("h1", { tabindex: "-1" }, "Image not found"), h("p", {}, `There is no image ${key} in this data set. Search for its number, such as 293.`)),
    };
  }
  const { kind } = context.numbers.accepted;
  const description = `${key}, original label ${table.classes[table.original[row]].name}, ReaL ${realText(context, row) || "none"}`;
  return {
    title: key,
    node: h(
      "div",
      {},
      neighbours(context, row),
      h("h1", { tabindex: "-1", class: "key" }, key),
      h(
        "div",
        { class: table.places ? "image-page" : "" },
        table.places && h("div", { class: "large" }, picture(context, row, description, { large: true }), place(context, row)),
        h(
          "div",
          {},
          section(
            "Labels",
            h(
              "dl",
              { class: "facts" },
              h("dt", {}, "original"),
              h("dd", {}, classLink(context, table.original[row])),
              h("dt", {}, "ReaL"),
              h("dd", {}, realLinks(context, row), " ", kindBadge(kind[row])),
            ),
          ),
          evidenceSection(context, row),
        ),
      ),
      table.models.length > 0 && answersSection(context, row),
    ),
  };
}

/** @param {Context} context @param {number} row */
function realLinks(context, row) {
  const { start, label } = context.numbers.accepted;
  const labels = [...label.subarray(start[row], start[row + 1])];
  if (!labels.length) return "none";
  return labels.map((one, at) => [at ? ", " : "", classLink(context, one)]);
}

/**
 * Return links to the previous and the next image of the list.
 * @param {Context} context
 * @param {number} row
 */
function neighbours(context, row) {
  const { table, route, numbers } = context;
  const filter = filterOf(route.query);
  const sort = route.query.sort ?? "key";
  const rows = matchingRows(numbers, filter, sort);
  const at = rows.indexOf(row);
  const query = { ...filter, sort: route.query.sort };
  /** @param {number} to @param {string} text @param {string} id @param {string} rel */
  const step = (to, text, id, rel) =>
    at >= 0 && rows[to] !== undefined
      ? link(context.to(["image", table.keys[rows[to]]], query), { id, rel, class: "button" }, text)
      : h("span", { class: "button off", "aria-disabled": "true" }, text);
  return h(
    "nav",
    { class: "steps", "aria-label": "Images of the list" },
    step(at - 1, "← previous", "previous", "prev"),
    step(at + 1, "next →", "next", "next"),
    link(context.to(["images"], query), {}, at >= 0 ? `${count(at + 1)} of ${count(rows.length)}: back to the list` : "to the list"),
  );
}

/** @param {Context} context @param {number} row */
function place({ table }, row) {
  const { places } = table;
  if (!places) return null;
  const start = places.offset[row];
  const bytes = places.numBytes[row];
  return h(
    "p",
    { class: "place" },
    places.width[row] ? `${places.width[row]} × ${places.height[row]} pixels, ` : "",
    `${sizeText(bytes)}: `,
    h("code", {}, `${places.shards[places.shard[row]].name} [bytes ${start}-${start + bytes})`),
    checksumText(places, row) === null ? "" : [", checksum ", h("code", {}, checksumText(places, row))],
  );
}

/** @param {Context} context @param {number} row */
function evidenceSection(context, row) {
  const { table, numbers } = context;
  const { rated } = table;
  const [first, stop] = [rated.start[row], rated.start[row + 1]];
  if (first === stop) {
    return section("Raters", h("p", {}, rated.byThreshold[row] ? "This image was not rated: its ReaL label is the original label at every threshold." : "There are no rater scores of this image."));
  }
  const rows = [];
  for (let at = first; at < stop; at += 1) {
    const label = rated.label[at];
    const votes = table.models.filter(({ top }) => top[0][row] === label).length;
    rows.push({ label, permille: rated.permille[at], votes, accepted: accepts(numbers.accepted, row, label), mark: accepts(numbers.accepted, row, label) ? "accepted" : "" });
  }
  rows.sort((a, b) => b.permille - a.permille || a.label - b.label);
  const threshold = numbers.threshold ?? 800;
  return section(
    "Raters",
    dataTable(
      context,
      "Labels that the raters saw, with their agreement",
      [
        { id: "label", text: "label", cell: ({ label }) => [classLink(context, label), label === table.original[row] && h("span", { class: "badge plain" }, "original")] },
        {
          id: "score",
          text: "score",
          number: true,
          title: "rater score, at least this value",
          cell: ({ permille }) => h(
            "span",
            { class: "score" },
            h("span", { class: "score-track", "aria-hidden": "true" },
              h("span", { class: "score-fill", style: { width: `${Math.max(0, permille) / 10}%` } }),
              h("span", { class: "score-mark", style: { left: `${threshold / 10}%` } })),
            fixed(Math.max(0, permille) / 1000, 3),
          ),
        },
        { id: "accepted", text: "ReaL label", cell: ({ accepted }) => (accepted ? "✓ yes" : "no") },
        ...(table.models.length ? [{ id: "votes", text: "models", number: true, title: "whose first answer it is", cell: (/** @type {any} */ { votes }) => (votes ? count(votes) : "–") }] : []),
      ],
      rows,
      { parameter: "evidence" },
    ),
  );
}

/** @param {Context} context @param {number} row */
function answersSection(context, row) {
  const { table, numbers } = context;
  /** @param {import("../data/table.js").Model} model @param {number} at */
  const answer = (model, at) => {
    const label = model.top[at][row];
    if (label === NO_CLASS) return "–";
    const probability = model.probability?.[at][row] ?? NO_CLASS;
    const right = accepts(numbers.accepted, row, label);
    return h(
      "span",
      { class: right ? "answer right" : "answer" },
      right && h("span", { title: "a ReaL label" }, "✓ "),
      classLink(context, label),
      probability !== NO_CLASS && h("span", { class: "probability" }, ` ${percent(probability / 10000, 1)} %`),
    );
  };
  const rows = table.models.map((model) => ({ model, result: resultOf(numbers.outcome(model.index).bits[row]) }));
  return section(
    "Answers",
    dataTable(
      context,
      `Answers of the models to image ${shortKey(table.keys[row])}; ✓ marks ReaL labels`,
      [
        { id: "model", text: "model", cell: ({ model }) => modelLink(context, model), sort: ({ model }) => model.name.toLowerCase() },
        { id: "result", text: "result", cell: ({ result }) => resultBadge(result), sort: ({ result }) => result },
        ...[0, 1, 2, 3, 4].map((at) => ({ id: `top${at}`, text: at ? `${at + 1}.` : "answer", cell: (/** @type {any} */ { model }) => answer(model, at) })),
      ],
      rows,
      { parameter: "answers" },
    ),
  );
}
