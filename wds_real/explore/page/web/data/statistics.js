// Shares, intervals and tests: the same formulas as `wds_real.scoring.counts` and `wds_real.scoring.comparison`.

/** @typedef {import("./outcomes.js").Accuracy} Accuracy */

const Z_95 = 1.959963984540054;

/** @param {{correct: number, total: number}} accuracy @returns {number} In 0..1; NaN where there is no image. */
export function share({ correct, total }) {
  return total ? correct / total : NaN;
}

/**
 * Return Wilson's 95 % interval in 0..1.
 * @param {{correct: number, total: number}} accuracy
 * @returns {[number, number]}
 */
export function wilson({ correct, total }) {
  if (!total) return [NaN, NaN];
  const p = correct / total;
  const z2 = Z_95 * Z_95;
  const centre = (p + z2 / (2 * total)) / (1 + z2 / total);
  const half = (Z_95 / (1 + z2 / total)) * Math.sqrt((p * (1 - p)) / total + z2 / (4 * total * total));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/**
 * Return the 95 % interval of the difference of two models in percentage points (Agresti and Min 2005).
 * @param {number} onlyA
 * @param {number} onlyB
 * @param {number} total
 * @returns {[number, number]}
 */
export function differenceInterval(onlyA, onlyB, total) {
  const n = total + 2;
  const b = onlyB + 0.5;
  const c = onlyA + 0.5;
  const centre = (b - c) / n;
  const half = (Z_95 * Math.sqrt(b + c - (b - c) ** 2 / n)) / n;
  return [100 * Math.max(-1, centre - half), 100 * Math.min(1, centre + half)];
}

/**
 * Return the two-sided p-value of McNemar's exact test, to about ten digits; 0 below the smallest number.
 * @param {number} b
 * @param {number} c
 * @returns {number}
 */
export function mcnemar(b, c) {
  const n = b + c;
  const most = Math.min(b, c);
  let logTerm = -n * Math.LN2; // of the binomial probability of `most` changes in one direction
  for (let k = 1; k <= most; k += 1) logTerm += Math.log((n - k + 1) / k);
  let sum = 1;
  let term = 1;
  for (let k = most; k > 0 && term > 1e-18; k -= 1) {
    term *= k / (n - k + 1);
    sum += term;
  }
  return Math.min(1, 2 * sum * Math.exp(logTerm));
}

/** @param {number} value @returns {string} With thousands separated. */
export function count(value) {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/**
 * Return a number with fixed decimals as Python prints it: a value exactly between two rounds to the even digit.
 * @param {number} value
 * @param {number} decimals
 * @returns {string}
 */
export function fixed(value, decimals) {
  const text = value.toFixed(decimals);
  const halves = value * 2 ** (decimals + 1); // only multiples of this power of 1/2 lie exactly between
  if (!Number.isInteger(halves) || halves % 2 === 0) return text;
  const odd = Number(text[text.length - 1]) % 2 === 1;
  if (!odd) return text;
  const scale = 10 ** decimals;
  const other = (Math.sign(value) * (Math.round(Math.abs(value) * scale) - 1)) / scale;
  return other.toFixed(decimals);
}

/** @param {number} value In 0..1. @param {number} [decimals] @returns {string} */
export function percent(value, decimals = 3) {
  return Number.isNaN(value) ? "–" : fixed(100 * value, decimals);
}

/** @param {number} value In percentage points. @param {number} [decimals] @returns {string} With its sign. */
export function points(value, decimals = 3) {
  if (Number.isNaN(value)) return "–";
  return (value < 0 || Object.is(value, -0) ? "" : "+") + fixed(value, decimals);
}

/** @param {{correct: number, total: number}} accuracy @returns {string} */
export function interval(accuracy) {
  const [low, high] = wilson(accuracy);
  return accuracy.total ? `${percent(low, 2)} – ${percent(high, 2)}` : "–";
}

/** @param {number} p @returns {string} */
export function pValue(p) {
  if (p === 0) return "< 1e-300";
  return p < 0.001 ? p.toExponential(3) : p.toPrecision(4);
}
