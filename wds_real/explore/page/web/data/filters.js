// Which images are shown, and in which order: the conditions in the page's address, all of which must hold.

import { FLIPS, flipOf } from "./comparison.js";
import { KINDS, accepts } from "./labels.js";
import { RESULTS, resultOf } from "./outcomes.js";

/**
 * @typedef {import("./numbers.js").Numbers} Numbers
 * @typedef {Record<string, string>} Filter  Names of FILTERS and their values; an unknown value matches no image.
 */

/** The names of the conditions, in the order in which they are shown. */
export const FILTERS = [
  "q", "kind", "labels", "class", "original", "real", "model", "outcome", "predicted", "wrong", "a", "b", "flip",
  "against", "missed",
];
export const ORDERS = [
  { id: "key", text: "by name" },
  { id: "missed", text: "most missed by the models" },
  { id: "labels", text: "most ReaL labels" },
  { id: "doubt", text: "raters least sure" },
];

/**
 * Return the rows that match, in order.
 * @param {Numbers} numbers
 * @param {Filter} filter
 * @param {string} [order]
 * @returns {Uint32Array}
 */
export function matchingRows(numbers, filter, order = "key") {
  const tests = conditions(numbers, filter);
  const { numImages } = numbers.table;
  const rows = new Uint32Array(numImages);
  let found = 0;
  for (let row = 0; row < numImages; row += 1) {
    let matches = true;
    for (let place = 0; place < tests.length && matches; place += 1) matches = tests[place](row);
    if (matches) rows[found++] = row;
  }
  return sorted(numbers, rows.subarray(0, found), order);
}

/** @param {Numbers} numbers @param {Filter} filter @returns {((row: number) => boolean)[]} */
function conditions(numbers, filter) {
  const { table, accepted } = numbers;
  /** @type {((row: number) => boolean)[]} */
  const tests = [];
  if (filter.q) {
    const text = filter.q.trim().toLowerCase().replace(/\.jpe?g$/, "");
    tests.push((row) => table.keys[row].toLowerCase().includes(text));
  }
  if (filter.kind) {
    const kinds = filter.kind.split(" ").map((id) => KINDS.findIndex((kind) => kind.id === id));
    tests.push((row) => kinds.includes(accepted.kind[row]));
  }
  if (filter.labels) {
    const length = Number(filter.labels);
    tests.push((row) => accepted.start[row + 1] - accepted.start[row] === length);
  }
  if (filter.class) {
    const label = Number(filter.class);
    tests.push((row) => table.original[row] === label || accepts(accepted, row, label));
  }
  if (filter.original) {
    const label = Number(filter.original);
    tests.push((row) => table.original[row] === label);
  }
  if (filter.real) {
    const labels = filter.real.split(" ").map(Number);
    tests.push((row) => labels.every((label) => accepts(accepted, row, label)));
  }
  return tests.concat(modelConditions(numbers, filter), manyConditions(numbers, filter));
}

/** @param {Numbers} numbers @param {Filter} filter @returns {((row: number) => boolean)[]} */
function modelConditions(numbers, filter) {
  if (!filter.model) return [];
  const model = numbers.table.models.find(({ name }) => name === filter.model);
  if (!model) return [() => false];
  const { bits } = numbers.outcome(model.index);
  /** @type {((row: number) => boolean)[]} */
  const tests = [];
  if (filter.outcome) {
    const results = filter.outcome.split(" ").map((id) => RESULTS.findIndex((result) => result.id === id));
    tests.push((row) => results.includes(resultOf(bits[row])));
  }
  if (filter.predicted) {
    const label = Number(filter.predicted);
    tests.push((row) => model.top[0][row] === label);
  }
  return tests;
}

/** @param {Numbers} numbers @param {Filter} filter @returns {((row: number) => boolean)[]} */
function manyConditions(numbers, filter) {
  const { table, accepted } = numbers;
  /** @type {((row: number) => boolean)[]} */
  const tests = [];
  if (filter.flip) {
    const [a, b] = [filter.a, filter.b].map((name) => table.models.find((model) => model.name === name));
    if (!a || !b) return [() => false];
    const flips = filter.flip.split(" ").map((id) => FLIPS.findIndex((flip) => flip.id === id));
    const against = filter.against === "original" ? "original" : "real";
    const [one, other] = [numbers.outcome(a.index).bits, numbers.outcome(b.index).bits];
    tests.push((row) => flips.includes(flipOf(one[row], other[row], against)));
  }
  if (filter.missed) {
    const [low, high = low] = filter.missed.split("-").map(Number);
    const { wrong, answered } = numbers.missed();
    tests.push((row) => answered[row] > 0 && wrong[row] >= low && wrong[row] <= high);
  }
  if (filter.wrong) {
    const label = Number(filter.wrong); // some model takes it for this class, and ReaL does not accept that
    tests.push((row) => table.models.some(({ top }) => top[0][row] === label) && !accepts(accepted, row, label));
  }
  return tests;
}

/** @param {Numbers} numbers @param {Uint32Array} rows @param {string} order @returns {Uint32Array} */
function sorted(numbers, rows, order) {
  const { table, accepted } = numbers;
  /** @type {(row: number) => number} */
  let value;
  if (order === "missed") {
    const { wrong } = numbers.missed();
    value = (row) => wrong[row];
  } else if (order === "labels") {
    value = (row) => accepted.start[row + 1] - accepted.start[row];
  } else if (order === "doubt") {
    const best = new Int16Array(table.numImages);
    for (const row of rows) best[row] = highestScore(table, row);
    value = (row) => -best[row];
  } else {
    return rows;
  }
  const places = new Int32Array(table.numImages);
  for (const row of rows) places[row] = value(row);
  return rows.slice().sort((one, other) => places[other] - places[one] || one - other);
}

/** @param {import("./table.js").Table} table @param {number} row @returns {number} 1000 for images that were not rated. */
function highestScore({ rated }, row) {
  if (rated.start[row] === rated.start[row + 1]) return 1000;
  let best = -1;
  for (let at = rated.start[row]; at < rated.start[row + 1]; at += 1) best = Math.max(best, rated.permille[at]);
  return best;
}
