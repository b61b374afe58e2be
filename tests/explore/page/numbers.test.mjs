// Labels, outcomes, comparisons and statistics, against counts made by hand.

import assert from "node:assert/strict";
import { test } from "node:test";

import { classCounts, confusedPairs, takenFor, takenFrom, worstClasses } from "../../../wds_real/explore/page/web/data/classes.js";
import { FLIPS, flipOf, movedClasses } from "../../../wds_real/explore/page/web/data/comparison.js";
import { KINDS, acceptedLabels, accepts, countKinds, countLengths, labelsOf } from "../../../wds_real/explore/page/web/data/labels.js";
import { Numbers } from "../../../wds_real/explore/page/web/data/numbers.js";
import { RESULTS, countResults, originalLabelsAsModel, resultOf } from "../../../wds_real/explore/page/web/data/outcomes.js";
import { count, differenceInterval, fixed, interval, mcnemar, pValue, percent, points, share, wilson } from "../../../wds_real/explore/page/web/data/statistics.js";
import { smallTable } from "./small.mjs";

const table = smallTable();
const rows = [0, 1, 2, 3, 4, 5];

test("labels at a threshold are those with a score above it; unrated images keep the original, others the given ones", () => {
  const at = (threshold) => rows.map((row) => labelsOf(acceptedLabels(table, threshold), row));
  assert.deepEqual(at(800), [[0], [1], [2], [0, 2], [], [1]]);
  assert.deepEqual(at(500), [[0, 1], [1], [2], [0, 2], [], [1]]);
  assert.deepEqual(at(501), [[0], [1], [2], [0, 2], [], [1]]);
  assert.deepEqual(at(0), [[0, 1], [1], [2], [0, 2], [2], [1]]);
  assert.deepEqual(at(999), [[], [], [2], [], [], [1]]);
  assert.deepEqual(at(null), [[0], [1], [2], [0, 2], [], [1]]);
});

test("each image is of one kind", () => {
  const accepted = acceptedLabels(table, 800);
  assert.deepEqual(rows.map((row) => KINDS[accepted.kind[row]].id), ["agrees", "differs", "agrees", "several-without", "none", "agrees"]);
  assert.deepEqual(countKinds(accepted), [3, 1, 0, 1, 1]);
  assert.deepEqual(countKinds(acceptedLabels(table, 500)), [2, 1, 1, 1, 1]);
  assert.deepEqual(countLengths(accepted), [1, 4, 1]);
  assert.equal(accepted.labelled, 5);
  assert.equal(accepts(accepted, 3, 2), true);
  assert.equal(accepts(accepted, 3, 1), false);
  assert.deepEqual(originalLabelsAsModel(accepted), { correct: 3, total: 5, failed: 0 });
});

test("answers are counted as in the printed result", () => {
  const { accuracy, forgiven, newlyWrong, slices } = new Numbers(table, 800).outcome(0);
  assert.deepEqual(accuracy.original_top1, { correct: 4, total: 6, failed: 0 });
  assert.deepEqual(accuracy.original_top5, { correct: 6, total: 6, failed: 0 });
  assert.deepEqual(accuracy.original_top1_labelled, { correct: 3, total: 5, failed: 0 });
  assert.deepEqual(accuracy.real_top1, { correct: 3, total: 5, failed: 0 });
  assert.deepEqual(accuracy.real_top5, { correct: 5, total: 5, failed: 0 });
  assert.deepEqual([forgiven, newlyWrong], [1, 1]);
  assert.deepEqual(slices, {
    one_label: { correct: 2, total: 4 }, several_labels: { correct: 1, total: 1 }, original_label_rejected: { correct: 1, total: 2 },
  });
});

test("a model of single classes has no top-5; unreadable images count as wrong, images without a prediction not at all", () => {
  const outcome = new Numbers(table, 800).outcome(1);
  assert.deepEqual(Object.keys(outcome.accuracy), ["original_top1", "original_top1_labelled", "real_top1"]);
  assert.deepEqual(outcome.accuracy.original_top1, { correct: 1, total: 5, failed: 1 });
  assert.deepEqual(outcome.accuracy.real_top1, { correct: 1, total: 4, failed: 1 });
  const results = [...outcome.bits].map((bits) => RESULTS[resultOf(bits)].id);
  assert.deepEqual(results, ["wrong", "forgiven", "unread", "newly-wrong", "unlabelled-wrong", "missing"]);
  assert.deepEqual(countResults(outcome), [0, 1, 1, 1, 0, 1, 1, 1]);
});

test("another threshold changes the numbers, and reuses what does not change", () => {
  const first = new Numbers(table, 800);
  const second = new Numbers(table, 500, first);
  assert.equal(second.outcome(1).accuracy.real_top1.correct, 2);
  assert.equal(first.outcome(1).accuracy.real_top1.correct, 1);
  assert.equal(first.outcome(0), first.outcome(0));
});

test("classes: an image with several labels counts for each, wrong answers by what they are taken for", () => {
  const numbers = new Numbers(table, 800);
  const counts = classCounts(table, numbers.accepted, numbers.outcome(0));
  assert.deepEqual([...counts.total], [2, 2, 2]);
  assert.deepEqual([...counts.correct], [2, 0, 2]);
  assert.deepEqual(worstClasses(counts, 5), [{ label: 1, correct: 0, total: 2 }]);
  assert.deepEqual(takenFor(table, numbers.accepted, table.models[0], numbers.outcome(0), 1), [{ label: 0, images: 2 }]);
  assert.deepEqual(takenFrom(table, numbers.accepted, table.models[0], numbers.outcome(0), 0), [{ label: 1, images: 2 }]);
  const models = table.models.map((model) => ({ model, outcome: numbers.outcome(model.index) }));
  assert.deepEqual(confusedPairs(table, numbers.accepted, models, 2), [{ a: 0, b: 1, images: 2 }, { a: 1, b: 0, images: 2 }]);
  assert.deepEqual([...numbers.classSizes().original], [2, 2, 2]);
});

test("two models are compared on the images that both answered", () => {
  const numbers = new Numbers(table, 800);
  const found = numbers.comparison(0, 1, "real");
  assert.deepEqual([found.both, found.onlyA, found.onlyB, found.neither, found.total], [0, 2, 1, 0, 3]);
  const original = numbers.comparison(0, 1, "original");
  assert.deepEqual([original.both, original.onlyA, original.onlyB, original.neither], [0, 3, 1, 0]);
  assert.deepEqual(movedClasses(found.perClass, 1), [{ label: 0, total: 2, a: 2, b: 0 }]);
  assert.equal(FLIPS[flipOf(numbers.outcome(0).bits[0], numbers.outcome(1).bits[0], "real")].id, "only-a");
  assert.equal(flipOf(numbers.outcome(0).bits[5], numbers.outcome(1).bits[5], "real"), -1);
  assert.deepEqual([...numbers.missed().wrong], [1, 1, 0, 1, 0, 1]);
  assert.deepEqual([...numbers.missed().answered], [2, 2, 1, 2, 0, 1]);
});

test("intervals and p-values are those of the package's doctests", () => {
  assert.deepEqual(wilson({ correct: 38860, total: 46837 }).map((bound) => percent(bound, 2)), ["82.63", "83.31"]);
  assert.equal(mcnemar(0, 5).toPrecision(10), "0.06250000000");
  assert.equal(mcnemar(7, 7), 1);
  assert.equal(mcnemar(0, 0), 1);
  assert.equal(mcnemar(2, 20000), 0);
  assert.ok(Math.abs(mcnemar(3, 10) - 0.09228515625) < 1e-12);
  const [low, high] = differenceInterval(10, 30, 100);
  assert.ok(low > 7 && high < 33 && low < 20 && high > 20);
});

test("numbers are shown as Python shows them", () => {
  assert.deepEqual([0.0625, 0.1875, -0.0625, 12.0625, 12.1875, 1.0005].map((value) => fixed(value, 3)), ["0.062", "0.188", "-0.062", "12.062", "12.188", "1.000"]);
  assert.deepEqual([0.125, 0.375, 2.5].map((value, place) => fixed(value, place === 2 ? 0 : 2)), ["0.12", "0.38", "2"]);
  assert.deepEqual([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
  assert.deepEqual([points(2.5), points(-2.5), points(0), points(NaN)], ["+2.500", "-2.500", "+0.000", "–"]);
  assert.equal(interval({ correct: 0, total: 0 }), "–");
  assert.equal(percent(share({ correct: 0, total: 0 })), "–");
  assert.deepEqual([0, 1e-9, 0.0625, 1].map(pValue), ["< 1e-300", "1.000e-9", "0.06250", "1.000"]);
});
