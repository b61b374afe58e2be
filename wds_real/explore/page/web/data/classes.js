// Counts by class: the same as `wds_real.scoring.breakdown`, and what a class is taken for.

import { LABELLED, READ, REAL1, inChunks } from "./outcomes.js";

/**
 * @typedef {import("./table.js").Table} Table
 * @typedef {import("./table.js").Model} Model
 * @typedef {import("./labels.js").Accepted} Accepted
 * @typedef {import("./outcomes.js").Outcome} Outcome
 * @typedef {{label: number, correct: number, total: number}} ClassCount
 */

/**
 * Count ReaL top-1 by class; an image with several labels counts for each of them.
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {Outcome} outcome
 * @returns {{correct: Uint32Array, total: Uint32Array}}
 */
export function classCounts(table, accepted, outcome) {
  const correct = new Uint32Array(table.classes.length);
  const total = new Uint32Array(table.classes.length);
  for (let row = 0; row < table.numImages; row += 1) {
    const bits = outcome.bits[row];
    if (!(bits & LABELLED)) continue;
    for (let at = accepted.start[row]; at < accepted.start[row + 1]; at += 1) {
      total[accepted.label[at]] += 1;
      if (bits & REAL1) correct[accepted.label[at]] += 1;
    }
  }
  return { correct, total };
}

/**
 * Return the classes with the lowest share of right images, worst first.
 * @param {{correct: Uint32Array, total: Uint32Array}} counts
 * @param {number} limit
 * @returns {ClassCount[]}
 */
export function worstClasses({ correct, total }, limit) {
  return Array.from(total, (sum, label) => ({ label, correct: correct[label], total: sum }))
    .filter((entry) => entry.correct < entry.total)
    .sort((a, b) => a.correct / a.total - b.correct / b.total || b.total - a.total || a.label - b.label)
    .slice(0, limit);
}

/**
 * Return how many images the data set has of each class.
 * @param {Table} table
 * @param {Accepted} accepted
 * @returns {{original: Uint32Array, real: Uint32Array}}
 */
export function classSizes(table, accepted) {
  const original = new Uint32Array(table.classes.length);
  const real = new Uint32Array(table.classes.length);
  for (const label of table.original) original[label] += 1;
  for (const label of accepted.label) real[label] += 1;
  return { original, real };
}

/**
 * Return the classes that images of a class are wrongly taken for, most frequent first.
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {Model} model
 * @param {Outcome} outcome
 * @param {number} label
 * @returns {{label: number, images: number}[]}
 */
export function takenFor(table, accepted, model, outcome, label) {
  const counts = new Map();
  for (let row = 0; row < table.numImages; row += 1) {
    const bits = outcome.bits[row];
    if (!(bits & LABELLED) || !(bits & READ) || bits & REAL1) continue;
    for (let at = accepted.start[row]; at < accepted.start[row + 1]; at += 1) {
      if (accepted.label[at] !== label) continue;
      const answer = model.top[0][row];
      counts.set(answer, (counts.get(answer) ?? 0) + 1);
    }
  }
  return ranked(counts);
}

/**
 * Return the classes whose images are wrongly taken for a class, most frequent first.
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {Model} model
 * @param {Outcome} outcome
 * @param {number} label
 * @returns {{label: number, images: number}[]}
 */
export function takenFrom(table, accepted, model, outcome, label) {
  const counts = new Map();
  for (let row = 0; row < table.numImages; row += 1) {
    const bits = outcome.bits[row];
    if (model.top[0][row] !== label || !(bits & LABELLED) || bits & REAL1) continue;
    for (let at = accepted.start[row]; at < accepted.start[row + 1]; at += 1) {
      const other = accepted.label[at];
      counts.set(other, (counts.get(other) ?? 0) + 1);
    }
  }
  return ranked(counts);
}

/**
 * Return the pairs of classes that models confuse most: images with ReaL label a, wrongly taken for b.
 * @param {Table} table
 * @param {Accepted} accepted
 * @param {{model: Model, outcome: Outcome}[]} models
 * @param {number} limit
 * @returns {{a: number, b: number, images: number}[]}
 */
export function confusedPairs(table, accepted, models, limit) {
  const size = table.classes.length;
  const counts = new Uint32Array(size * size);
  for (const { model, outcome } of models) {
    inChunks(table.numImages, (first, stop) => countPairs(counts, size, accepted, model.top[0], outcome.bits, first, stop));
  }
  return mostFrequent(counts, limit).map(({ place, images }) => ({
    a: Math.floor(place / size),
    b: place % size,
    images,
  }));
}

/**
 * @param {Uint32Array} counts
 * @param {number} size
 * @param {Accepted} accepted
 * @param {Uint16Array} top1
 * @param {Uint8Array} bits
 * @param {number} first
 * @param {number} stop
 */
function countPairs(counts, size, { start, label }, top1, bits, first, stop) {
  for (let row = first; row < stop; row += 1) {
    const value = bits[row];
    if (!(value & LABELLED) || !(value & READ) || value & REAL1) continue;
    for (let at = start[row]; at < start[row + 1]; at += 1) counts[label[at] * size + top1[row]] += 1;
  }
}

/** @param {Uint32Array} counts @param {number} limit */
function mostFrequent(counts, limit) {
  let most = 0;
  for (let place = 0; place < counts.length; place += 1) if (counts[place] > most) most = counts[place];
  const places = new Uint32Array(most + 1); // how many places have each count
  for (let place = 0; place < counts.length; place += 1) places[counts[place]] += 1;
  let least = most;
  for (let found = places[most]; found < limit && least > 1; found += places[least]) least -= 1;
  const found = [];
  for (let place = 0; place < counts.length; place += 1) {
    if (counts[place] >= Math.max(1, least)) found.push({ place, images: counts[place] });
  }
  return found.sort((a, b) => b.images - a.images || a.place - b.place).slice(0, limit);
}

/** @param {Map<number, number>} counts */
function ranked(counts) {
  return [...counts]
    .map(([label, images]) => ({ label, images }))
    .sort((a, b) => b.images - a.images || a.label - b.label);
}
