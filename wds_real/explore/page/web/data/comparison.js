// Two models on the images that both answered: the same counts as `wds_real.scoring.comparison.compare`.

import { LABELLED, ORIGINAL1, READ, REAL1 } from "./outcomes.js";
import { differenceInterval, mcnemar } from "./statistics.js";

/**
 * @typedef {import("./table.js").Table} Table
 * @typedef {import("./labels.js").Accepted} Accepted
 * @typedef {import("./outcomes.js").Outcome} Outcome
 * @typedef {"real" | "original"} Against
 */

/** What two answers to one image can be; see `flipOf`. */
export const FLIPS = [
  { id: "both", text: "both right" },
  { id: "only-a", text: "only A right" },
  { id: "only-b", text: "only B right" },
  { id: "neither", text: "both wrong" },
];

/**
 * Return the place in FLIPS, or -1 where the image is not compared.
 * @param {number} a  Bits of the outcome of A.
 * @param {number} b
 * @param {Against} against
 * @returns {number}
 */
export function flipOf(a, b, against) {
  if (!(a & READ) || !(b & READ)) return -1;
  if (against === "real" && !(a & LABELLED)) return -1;
  const bit = against === "real" ? REAL1 : ORIGINAL1;
  return a & bit ? (b & bit ? 0 : 1) : b & bit ? 2 : 3;
}

/**
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {Outcome} a
 * @param {Outcome} b
 * @param {Against} against
 */
export function compare(table, accepted, a, b, against) {
  const counts = [0, 0, 0, 0];
  const size = table.classes.length;
  const perClass = { total: new Uint32Array(size), a: new Uint32Array(size), b: new Uint32Array(size) };
  for (let row = 0; row < table.numImages; row += 1) {
    const flip = flipOf(a.bits[row], b.bits[row], against);
    if (flip < 0) continue;
    counts[flip] += 1;
    const own = against === "original";
    const first = own ? 0 : accepted.start[row];
    const stop = own ? 1 : accepted.start[row + 1];
    for (let at = first; at < stop; at += 1) {
      const label = own ? table.original[row] : accepted.label[at];
      perClass.total[label] += 1;
      if (flip < 2) perClass.a[label] += 1;
      if (flip === 0 || flip === 2) perClass.b[label] += 1;
    }
  }
  const [both, onlyA, onlyB, neither] = counts;
  const total = both + onlyA + onlyB + neither;
  return {
    both,
    onlyA,
    onlyB,
    neither,
    total,
    a: { correct: both + onlyA, total, failed: 0 },
    b: { correct: both + onlyB, total, failed: 0 },
    difference: total ? (100 * (onlyB - onlyA)) / total : NaN,
    interval: differenceInterval(onlyA, onlyB, total),
    pValue: mcnemar(onlyA, onlyB),
    perClass,
  };
}

/**
 * Return the classes whose number of right images differs most.
 * @param {ReturnType<typeof compare>["perClass"]} perClass
 * @param {number} limit
 * @returns {{label: number, total: number, a: number, b: number}[]}
 */
export function movedClasses(perClass, limit) {
  return Array.from(perClass.total, (total, label) => ({ label, total, a: perClass.a[label], b: perClass.b[label] }))
    .filter((entry) => entry.a !== entry.b)
    .sort((x, y) => Math.abs(y.b - y.a) - Math.abs(x.b - x.a) || x.label - y.label)
    .slice(0, limit);
}

/**
 * Return how many of the models that answered an image are wrong by ReaL, and how many answered, for all images.
 * @param {Table} table
 * @param {Outcome[]} outcomes
 * @returns {{wrong: Uint16Array, answered: Uint16Array}}
 */
export function missedBy(table, outcomes) {
  const wrong = new Uint16Array(table.numImages);
  const answered = new Uint16Array(table.numImages);
  for (const { bits } of outcomes) {
    for (let row = 0; row < bits.length; row += 1) {
      const value = bits[row];
      if (!(value & LABELLED) || !(value & READ)) continue;
      answered[row] += 1;
      if (!(value & REAL1)) wrong[row] += 1;
    }
  }
  return { wrong, answered };
}
