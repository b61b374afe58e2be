// Filters, search and addresses.

import assert from "node:assert/strict";
import { test } from "node:test";

import { matchingRows } from "../../../wds_real/explore/page/web/data/filters.js";
import { Numbers } from "../../../wds_real/explore/page/web/data/numbers.js";
import { formatRoute, parseRoute, thresholdOf, thresholdText } from "../../../wds_real/explore/page/web/data/route.js";
import { search } from "../../../wds_real/explore/page/web/data/search.js";
import { smallTable } from "./small.mjs";

const table = smallTable();
const numbers = new Numbers(table, 800);
const found = (filter, order) => [...matchingRows(numbers, filter, order)];

test("without conditions all images match, in the order of their names", () => {
  assert.deepEqual(found({}), [0, 1, 2, 3, 4, 5]);
});

test("each condition keeps its images, and all of them must hold", () => {
  assert.deepEqual(found({ q: "IMG_" }), [0, 1, 2, 3, 4]);
  assert.deepEqual(found({ q: "img_00000002.JPEG" }), [1]);
  assert.deepEqual(found({ kind: "agrees" }), [0, 2, 5]);
  assert.deepEqual(found({ kind: "differs none" }), [1, 4]);
  assert.deepEqual(found({ labels: "2" }), [3]);
  assert.deepEqual(found({ labels: "0" }), [4]);
  assert.deepEqual(found({ class: "0" }), [0, 1, 3]);
  assert.deepEqual(found({ original: "0", real: "1" }), [1]);
  assert.deepEqual(found({ real: "0 2" }), [3]);
  assert.deepEqual(found({ kind: "agrees", class: "2" }), [2]);
});

test("conditions on answers", () => {
  assert.deepEqual(found({ model: "one", outcome: "forgiven" }), [3]);
  assert.deepEqual(found({ model: "one", outcome: "newly-wrong wrong" }), [1, 5]);
  assert.deepEqual(found({ model: "one", predicted: "2" }), [2, 3, 4]);
  assert.deepEqual(found({ model: "one" }), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(found({ a: "one", b: "two", flip: "only-a" }), [0, 3]);
  assert.deepEqual(found({ a: "one", b: "two", flip: "only-b", against: "original" }), [3]);
  assert.deepEqual(found({ missed: "1" }), [0, 1, 3, 5]);
  assert.deepEqual(found({ missed: "0" }), [2]);
  assert.deepEqual(found({ missed: "0-1" }), [0, 1, 2, 3, 5]);
  assert.deepEqual(found({ wrong: "0" }), [1, 4, 5]);
});

test("what does not exist matches no image", () => {
  for (const filter of [{ model: "none" }, { kind: "constructor" }, { class: "x" }, { a: "one", b: "none", flip: "both" }, { model: "one", outcome: "?" }]) {
    assert.deepEqual(found(filter), []);
  }
});

test("orders are stable, and all images stay", () => {
  assert.deepEqual(found({}, "labels"), [3, 0, 1, 2, 5, 4]);
  assert.deepEqual(found({}, "missed"), [0, 1, 3, 5, 2, 4]);
  assert.deepEqual(found({}, "doubt"), [4, 3, 0, 1, 2, 5]);
});

test("a class is found by name, part of a name, number and wnid", () => {
  const ids = (text) => search(table, text).map(({ kind, id }) => `${kind} ${id}`);
  assert.deepEqual(ids("tench"), ["class 0"]);
  assert.deepEqual(ids("Tinca"), ["class 0"]);
  assert.deepEqual(ids("white shark"), ["class 2"]);
  assert.deepEqual(ids("n01443537"), ["class 1"]);
  assert.deepEqual(ids("2"), ["class 2", "image img_00000002"]);
  assert.deepEqual(ids("gold"), ["class 1"]);
  assert.deepEqual(ids("  "), []);
});

test("images and models are found too, and not more than asked for", () => {
  assert.deepEqual(search(table, "img_00000004.jpg").map(({ id }) => id), ["img_00000004"]);
  assert.deepEqual(search(table, "two").map(({ kind, id }) => [kind, id]), [["model", "two"]]);
  assert.equal(search(table, "img_", 3).length, 3);
});

test("addresses keep names with any characters", () => {
  const path = ["image", "a/b?c#d%&é\u202e<img>"];
  const query = { q: "x y&z=1", kind: "", model: "50 %" };
  assert.deepEqual(parseRoute(formatRoute(path, query)), { path, query: { q: "x y&z=1", model: "50 %" } });
  assert.deepEqual(parseRoute(""), { path: [], query: {} });
  assert.deepEqual(parseRoute("#/class/%E0%A4%A"), { path: ["class", "%E0%A4%A"], query: {} });
  assert.deepEqual(Object.keys(parseRoute("#/?__proto__=1&t=0.5").query), ["t"]);
});

test("thresholds of addresses are thousandths, or the labels as given", () => {
  assert.deepEqual(["0.5", "0", "0.999", "given", "1", "-1", "x"].map((t) => thresholdOf({ t }, table)), [500, 0, 999, null, 800, 800, 800]);
  assert.equal(thresholdOf({}, table), 800);
  assert.deepEqual([800, 500, null].map((threshold) => thresholdText(threshold, table)), [undefined, "0.5", "given"]);
  assert.equal(thresholdOf({ t: "given" }, { ...table, hasGiven: false }), 800);
});
