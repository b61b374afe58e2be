// All numbers at one threshold, each computed when it is first asked for.

import { classCounts, classSizes, confusedPairs } from "./classes.js";
import { compare, missedBy } from "./comparison.js";
import { acceptedLabels } from "./labels.js";
import { originalBits, outcomeOf } from "./outcomes.js";

/**
 * @typedef {import("./table.js").Table} Table
 * @typedef {import("./outcomes.js").Outcome} Outcome
 * @typedef {import("./comparison.js").Against} Against
 */

/** The numbers of a page at one threshold. */
export class Numbers {
  /** @type {Map<string, any>} */
  #known = new Map();
  /** @type {{bits: Uint8Array, hasTop5: boolean}[]} */
  #original;

  /**
   * @param {Table} table
   * @param {number | null} threshold  In thousandths; null for the given labels.
   * @param {Numbers} [before]  Of another threshold: what no threshold changes is taken from it.
   */
  constructor(table, threshold, before) {
    this.table = table;
    this.threshold = threshold;
    this.accepted = acceptedLabels(table, threshold);
    this.#original = before ? before.#original : table.models.map((model) => originalBits(table, model));
  }

  /** @param {number} model @returns {Outcome} */
  outcome(model) {
    return this.#once(`outcome ${model}`, () =>
      outcomeOf(this.table, this.accepted, this.table.models[model], this.#original[model]),
    );
  }

  /** @returns {Outcome[]} Of all models. */
  outcomes() {
    return this.table.models.map((model) => this.outcome(model.index));
  }

  /** @param {number} model @returns {{correct: Uint32Array, total: Uint32Array}} */
  classCounts(model) {
    return this.#once(`classes ${model}`, () => classCounts(this.table, this.accepted, this.outcome(model)));
  }

  /** @returns {{original: Uint32Array, real: Uint32Array}} */
  classSizes() {
    return this.#once("sizes", () => classSizes(this.table, this.accepted));
  }

  /** @returns {{wrong: Uint16Array, answered: Uint16Array}} */
  missed() {
    return this.#once("missed", () => missedBy(this.table, this.outcomes()));
  }

  /** @param {number[]} models @param {number} limit @returns {{a: number, b: number, images: number}[]} */
  confusedPairs(models, limit) {
    return this.#once(`pairs ${models.join()} ${limit}`, () =>
      confusedPairs(
        this.table,
        this.accepted,
        models.map((index) => ({ model: this.table.models[index], outcome: this.outcome(index) })),
        limit,
      ),
    );
  }

  /** @param {number} a @param {number} b @param {Against} against @returns {ReturnType<typeof compare>} */
  comparison(a, b, against) {
    return this.#once(`compare ${a} ${b} ${against}`, () =>
      compare(this.table, this.accepted, this.outcome(a), this.outcome(b), against),
    );
  }

  /**
   * @template T
   * @param {string} name
   * @param {() => T} compute
   * @returns {T}
   */
  #once(name, compute) {
    if (!this.#known.has(name)) this.#known.set(name, compute());
    return this.#known.get(name);
  }
}
