// The ReaL labels at a rater threshold, and how they relate to the original label.

/**
 * @typedef {import("./table.js").Table} Table
 *
 * @typedef {object} Accepted
 * @property {Uint32Array} start  (N + 1,), where the labels of each image start in `label`.
 * @property {Uint16Array} label
 * @property {Uint8Array} kind  (N,), place in KINDS.
 * @property {number} labelled  Images with a label.
 */

/** How an image's ReaL labels relate to its original label. */
export const KINDS = [
  { id: "agrees", short: "agrees", text: "the ReaL label is the original label" },
  { id: "differs", short: "differs", text: "one ReaL label, and it is another one" },
  { id: "several", short: "several", text: "several ReaL labels, the original label among them" },
  { id: "several-without", short: "several, other", text: "several ReaL labels without the original label" },
  { id: "none", short: "none", text: "no ReaL label" },
];
export const KIND_NONE = 4;

/**
 * Return the ReaL labels of all images.
 *
 * The arithmetic is that of `wds_real.labels.at_threshold`: a rated image has the labels with a score above the
 * threshold, any other validation image has the original label. Images of other sets keep the given labels.
 * @param {Table} table
 * @param {number | null} threshold  In thousandths; null for the labels that the page was made with.
 * @returns {Accepted}
 */
export function acceptedLabels(table, threshold) {
  const { numImages, original, given, rated } = table;
  if (threshold === null) return withKinds(original, given.start, given.label);
  const start = new Uint32Array(numImages + 1);
  const label = new Uint16Array(rated.label.length + given.label.length + numImages);
  let place = 0;
  for (let row = 0; row < numImages; row += 1) {
    const first = rated.start[row];
    const stop = rated.start[row + 1];
    if (!rated.byThreshold[row]) {
      for (let at = given.start[row]; at < given.start[row + 1]; at += 1) label[place++] = given.label[at];
    } else if (first === stop) {
      label[place++] = original[row];
    } else {
      for (let at = first; at < stop; at += 1) if (rated.permille[at] >= threshold) label[place++] = rated.label[at];
    }
    start[row + 1] = place;
  }
  return withKinds(original, start, label.subarray(0, place));
}

/**
 * @param {Uint16Array} original
 * @param {Uint32Array} start
 * @param {Uint16Array} label
 * @returns {Accepted}
 */
function withKinds(original, start, label) {
  const kind = new Uint8Array(original.length);
  let labelled = 0;
  for (let row = 0; row < original.length; row += 1) {
    const first = start[row];
    const stop = start[row + 1];
    let contains = false;
    for (let at = first; at < stop; at += 1) if (label[at] === original[row]) contains = true;
    const several = stop - first > 1;
    kind[row] = first === stop ? KIND_NONE : (several ? 2 : 0) + (contains ? 0 : 1);
    if (first !== stop) labelled += 1;
  }
  return { start, label, kind, labelled };
}

/**
 * Return the ReaL labels of one image.
 * @param {Accepted} accepted
 * @param {number} row
 * @returns {number[]}
 */
export function labelsOf(accepted, row) {
  return Array.from(accepted.label.subarray(accepted.start[row], accepted.start[row + 1]));
}

/**
 * @param {Accepted} accepted
 * @param {number} row
 * @param {number} label
 * @returns {boolean}
 */
export function accepts(accepted, row, label) {
  for (let at = accepted.start[row]; at < accepted.start[row + 1]; at += 1) {
    if (accepted.label[at] === label) return true;
  }
  return false;
}

/**
 * Return how many images are of each kind.
 * @param {Accepted} accepted
 * @returns {number[]}
 */
export function countKinds(accepted) {
  const counts = KINDS.map(() => 0);
  for (const kind of accepted.kind) counts[kind] += 1;
  return counts;
}

/**
 * Return how many images have 0, 1, 2, ... ReaL labels.
 * @param {Accepted} accepted
 * @returns {number[]}
 */
export function countLengths(accepted) {
  /** @type {number[]} */
  const counts = [];
  for (let row = 0; row + 1 < accepted.start.length; row += 1) {
    const length = accepted.start[row + 1] - accepted.start[row];
    while (counts.length <= length) counts.push(0);
    counts[length] += 1;
  }
  return counts;
}
