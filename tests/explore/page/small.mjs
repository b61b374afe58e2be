// A table of six images with three classes, small enough to count by hand.

import { NO_CLASS, startsOf } from "../../../wds_real/explore/page/web/data/table.js";

/** Return columns of five answers each, one row an image. */
function columns(rows) {
  return [0, 1, 2, 3, 4].map((place) => Uint16Array.from(rows, (row) => row[place] ?? NO_CLASS));
}

export function smallTable() {
  const rated = [[[0, 900], [1, 500]], [[1, 950]], [], [[0, 850], [2, 820], [1, -1]], [[2, 300]], []];
  const given = [[0], [1], [2], [0, 2], [], [1]];
  const all = (list) => list.flat();
  return {
    title: "small", digest: "", numImages: 6,
    keys: ["img_00000001", "img_00000002", "img_00000003", "img_00000004", "img_00000005", "other"],
    classes: [
      { index: 0, wnid: "n01440764", name: "tench", lemmas: "tench, Tinca tinca", definition: "a fish" },
      { index: 1, wnid: "n01443537", name: "goldfish", lemmas: "goldfish, Carassius auratus", definition: "a small fish" },
      { index: 2, wnid: "n01484850", name: "great white shark", lemmas: "great white shark, white shark", definition: "a shark" },
    ],
    original: Uint16Array.from([0, 0, 2, 1, 2, 1]),
    given: { start: startsOf(given.map((labels) => labels.length)), label: Uint16Array.from(all(given)) },
    rated: {
      byThreshold: Uint8Array.from([1, 1, 1, 1, 1, 0]),
      start: startsOf(rated.map((labels) => labels.length)),
      label: Uint16Array.from(all(rated).map(([label]) => label)),
      permille: Int16Array.from(all(rated).map(([, permille]) => permille)),
    },
    hasGiven: true, hasThresholds: true, threshold: 800,
    models: [
      { index: 0, name: "one", source: "one.csv", notes: [], answered: Uint8Array.from([1, 1, 1, 1, 1, 1]), probability: null,
        top: columns([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 0, 1, 3, 4], [2, 0, 1, 3, 4], [2, 0, 1, 3, 4], [0, 1, 2, 3, 4]]) },
      { index: 1, name: "two", source: "", notes: [], answered: Uint8Array.from([1, 1, 1, 1, 1, 0]), probability: null,
        top: columns([[1], [1], [], [1], [0], []]) },
    ],
    places: null,
  };
}
