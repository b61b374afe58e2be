// The outcomes of a model's answers: the same integer counts as `wds_real.scoring.table.PredictionTable.result`.

import { NO_CLASS, TOP } from "./table.js";

/**
 * @typedef {import("./table.js").Table} Table
 * @typedef {import("./table.js").Model} Model
 * @typedef {import("./labels.js").Accepted} Accepted
 *
 * @typedef {{correct: number, total: number, failed: number}} Accuracy
 *
 * @typedef {object} Outcome
 * @property {Uint8Array} bits  (N,), of the constants below; 0 for images without a prediction.
 * @property {Record<string, Accuracy>} accuracy  Without top-5 counts where an answer has fewer than five classes.
 * @property {number} forgiven
 * @property {number} newlyWrong
 * @property {Record<string, {correct: number, total: number}>} slices
 */

export const ORIGINAL1 = 1;
export const ORIGINAL5 = 2;
export const REAL1 = 4;
export const REAL5 = 8;
export const READ = 16;
export const EXPECTED = 32;
export const LABELLED = 64;
const BITS = 128; // number of combinations of the bits above
const KINDS_OF_LABELS = 5;
const CHUNK = 2048; // rows

/** What an answer can be, by the labels of its image; see `resultOf`. */
export const RESULTS = [
  { id: "right", text: "right", title: "right by both labels" },
  { id: "forgiven", text: "forgiven", title: "wrong by the original label, right by ReaL" },
  { id: "newly-wrong", text: "newly wrong", title: "right by the original label, wrong by ReaL" },
  { id: "wrong", text: "wrong", title: "wrong by both labels" },
  { id: "unlabelled-right", text: "no ReaL label, original right", title: "no ReaL label; right by the original label" },
  { id: "unlabelled-wrong", text: "no ReaL label, original wrong", title: "no ReaL label; wrong by the original label" },
  { id: "unread", text: "unreadable", title: "the image could not be read" },
  { id: "missing", text: "no prediction", title: "no prediction of this image" },
];

/**
 * Return the place in RESULTS of an answer.
 * @param {number} bits
 * @returns {number}
 */
export function resultOf(bits) {
  if (!(bits & EXPECTED)) return 7;
  if (!(bits & READ)) return 6;
  const original = bits & ORIGINAL1;
  if (!(bits & LABELLED)) return original ? 4 : 5;
  if (bits & REAL1) return original ? 0 : 1;
  return original ? 2 : 3;
}

/**
 * Compare the answers of a model with the original labels: the bits that no threshold changes.
 * @param {Table} table
 * @param {Model} model
 * @returns {{bits: Uint8Array, hasTop5: boolean}}
 */
export function originalBits(table, model) {
  const bits = new Uint8Array(table.numImages);
  let hasTop5 = true;
  inChunks(table.numImages, (first, stop) => {
    if (!markOriginal(bits, model, table.original, first, stop)) hasTop5 = false;
  });
  return { bits, hasTop5 };
}

/**
 * Call a function for parts of the rows. A browser compiles a loop that is called many times better than a long one.
 * @param {number} length
 * @param {(first: number, stop: number) => void} call
 */
export function inChunks(length, call) {
  for (let first = 0; first < length; first += CHUNK) call(first, Math.min(length, first + CHUNK));
}

/**
 * @param {Uint8Array} bits
 * @param {Model} model
 * @param {Uint16Array} original
 * @param {number} first
 * @param {number} stop
 * @returns {boolean} Whether each answer has five classes.
 */
function markOriginal(bits, model, original, first, stop) {
  let hasTop5 = true;
  for (let row = first; row < stop; row += 1) {
    if (!model.answered[row]) continue;
    let value = EXPECTED;
    if (model.top[0][row] !== NO_CLASS) {
      value |= READ;
      for (let place = 0; place < TOP; place += 1) {
        const answer = model.top[place][row];
        if (answer === NO_CLASS) hasTop5 = false;
        else if (answer === original[row]) value |= place ? ORIGINAL5 : ORIGINAL1 | ORIGINAL5;
      }
    }
    bits[row] = value;
  }
  return hasTop5;
}

/**
 * Compare the answers of a model with both labels, and count.
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {Model} model
 * @param {{bits: Uint8Array, hasTop5: boolean}} known  Of `originalBits`.
 * @returns {Outcome}
 */
export function outcomeOf(table, accepted, model, known) {
  const bits = known.bits.slice();
  inChunks(table.numImages, (first, stop) => markReal(bits, accepted, model.top, first, stop));
  return { bits, ...counted(accepted, bits, known.hasTop5) };
}

/**
 * @param {Uint8Array} bits
 * @param {Accepted} accepted
 * @param {Uint16Array[]} top
 * @param {number} first
 * @param {number} stop
 */
function markReal(bits, { start, label }, [top1, top2, top3, top4, top5], first, stop) {
  for (let row = first; row < stop; row += 1) {
    let value = bits[row];
    if (!value) continue;
    const end = start[row + 1];
    for (let at = start[row]; at < end; at += 1) {
      value |= LABELLED;
      if (!(value & READ)) continue;
      const real = label[at];
      if (top1[row] === real) value |= REAL1 | REAL5;
      else if (top2[row] === real || top3[row] === real || top4[row] === real || top5[row] === real) value |= REAL5;
    }
    bits[row] = value;
  }
}

/** @param {Accepted} accepted @param {Uint8Array} bits @param {boolean} hasTop5 */
function counted(accepted, bits, hasTop5) {
  const tally = new Uint32Array(KINDS_OF_LABELS * BITS); // images by the kind of their labels and their bits
  inChunks(bits.length, (first, stop) => {
    for (let row = first; row < stop; row += 1) tally[accepted.kind[row] * BITS + bits[row]] += 1;
  });
  /** @param {(bits: number, kind: number) => boolean | number} chosen */
  const sum = (chosen) => {
    let total = 0;
    for (let at = 0; at < tally.length; at += 1) if (chosen(at % BITS, Math.floor(at / BITS))) total += tally[at];
    return total;
  };
  /** @param {number[]} kinds */
  const slice = (...kinds) => ({
    correct: sum((value, kind) => value & LABELLED && value & REAL1 && kinds.includes(kind)),
    total: sum((value, kind) => value & LABELLED && kinds.includes(kind)),
  });
  /** @param {number} bit @param {number} scope @returns {Accuracy} */
  const accuracy = (bit, scope) => ({
    correct: sum((value) => value & scope && value & bit),
    total: sum((value) => value & scope),
    failed: sum((value) => value & scope && !(value & READ)),
  });
  return {
    accuracy: {
      original_top1: accuracy(ORIGINAL1, EXPECTED),
      ...(hasTop5 ? { original_top5: accuracy(ORIGINAL5, EXPECTED) } : {}),
      original_top1_labelled: accuracy(ORIGINAL1, LABELLED),
      real_top1: accuracy(REAL1, LABELLED),
      ...(hasTop5 ? { real_top5: accuracy(REAL5, LABELLED) } : {}),
    },
    forgiven: sum((value) => value & LABELLED && value & REAL1 && !(value & ORIGINAL1)),
    newlyWrong: sum((value) => value & LABELLED && value & ORIGINAL1 && !(value & REAL1)),
    slices: {
      one_label: slice(0, 1), // places in KINDS
      several_labels: slice(2, 3),
      original_label_rejected: slice(1, 3),
    },
  };
}

/**
 * Return how many images have each of RESULTS.
 * @param {Outcome} outcome
 * @returns {number[]}
 */
export function countResults(outcome) {
  const counts = RESULTS.map(() => 0);
  for (const bits of outcome.bits) counts[resultOf(bits)] += 1;
  return counts;
}

/**
 * Score the original labels as predictions: the ReaL top-1 of a model that always gives the original label.
 * @param {Accepted} accepted
 * @returns {Accuracy}
 */
export function originalLabelsAsModel(accepted) {
  let correct = 0;
  for (const kind of accepted.kind) if (kind === 0 || kind === 2) correct += 1;
  return { correct, total: accepted.labelled, failed: 0 };
}
