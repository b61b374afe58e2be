// Print the numbers of a page: node numbers.mjs PAGE.html THRESHOLD ... ; a threshold is in thousandths, or "given".

import { readFileSync } from "node:fs";

import { worstClasses, takenFor } from "../../../wds_real/explore/page/web/data/classes.js";
import { countKinds, countLengths } from "../../../wds_real/explore/page/web/data/labels.js";
import { Numbers } from "../../../wds_real/explore/page/web/data/numbers.js";
import { countResults, originalLabelsAsModel } from "../../../wds_real/explore/page/web/data/outcomes.js";
import { interval, percent, points, share } from "../../../wds_real/explore/page/web/data/statistics.js";
import { readTable } from "../../../wds_real/explore/page/web/data/table.js";

const [page, ...thresholds] = process.argv.slice(2);
const data = /id="data">([^<]*)</.exec(readFileSync(page, "utf8"))[1];
const table = await readTable(data);
const found = {};
let numbers;
for (const text of thresholds) {
  numbers = new Numbers(table, text === "given" ? null : Number(text), numbers);
  found[text] = {
    kinds: countKinds(numbers.accepted),
    lengths: countLengths(numbers.accepted),
    originalLabels: originalLabelsAsModel(numbers.accepted),
    sizes: Object.values(numbers.classSizes()).map((sizes) => Array.from(sizes)),
    models: Object.fromEntries(table.models.map((model) => [model.name, ofModel(numbers, model)])),
    pairs: comparisons(numbers),
    missed: Array.from(numbers.missed().wrong),
  };
}
process.stdout.write(JSON.stringify(found));

function ofModel(known, model) {
  const outcome = known.outcome(model.index);
  const { accuracy } = outcome;
  const counts = known.classCounts(model.index);
  return {
    accuracy,
    shown: Object.fromEntries(
      Object.entries(accuracy).map(([name, value]) => [name, [percent(share(value)), interval(value)]]),
    ),
    excluded: points(100 * (share(accuracy.original_top1_labelled) - share(accuracy.original_top1))),
    relabelled: points(100 * (share(accuracy.real_top1) - share(accuracy.original_top1_labelled))),
    forgiven: outcome.forgiven,
    newlyWrong: outcome.newlyWrong,
    slices: outcome.slices,
    results: countResults(outcome),
    classCorrect: Array.from(counts.correct),
    classTotal: Array.from(counts.total),
    worst: worstClasses(counts, 20).map((entry) => ({
      ...entry,
      confused: takenFor(table, known.accepted, model, outcome, entry.label).slice(0, 3),
    })),
  };
}

function comparisons(known) {
  const { models } = table; // each with the next one, by ReaL and by the original labels in turn
  return models.slice(1).map((second, place) => {
    const against = place % 2 ? "original" : "real";
    const { perClass, ...rest } = known.comparison(models[place].index, second.index, against);
    const classes = Array.from(perClass.total, (total, label) => [label, total, perClass.a[label], perClass.b[label]]);
    return {
      first: models[place].name,
      second: second.name,
      against,
      ...rest,
      perClass: classes.filter(([, total]) => total),
    };
  });
}
