// The page's address, which holds all state: the view, its subject, the filter and the threshold.

/**
 * @typedef {object} Route
 * @property {string[]} path  Such as ["image", "ILSVRC2012_val_00000293"]; empty for the overview.
 * @property {Record<string, string>} query
 */

/**
 * @param {string} hash  Such as "#/images?kind=differs".
 * @returns {Route}
 */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: Object.fromEntries(
      [...new URLSearchParams(query)].filter(([name]) => name !== "__proto__"), // never a parameter of the page
    ),
  };
}

/** @param {string} text @returns {string} The text itself where it is not well encoded. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/**
 * Return the address of a route; values that are empty are left out.
 * @param {(string | number)[]} path
 * @param {Record<string, string | number | null | undefined>} [query]
 * @returns {string}
 */
export function formatRoute(path, query = {}) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return `#/${path.map((part) => encodeURIComponent(part)).join("/")}${text ? `?${text}` : ""}`;
}

/**
 * Return the threshold of an address in thousandths, or null for the given labels.
 * @param {Record<string, string>} query
 * @param {import("./table.js").Table} table
 * @returns {number | null}
 */
export function thresholdOf(query, table) {
  if (query.t === undefined || !table.hasThresholds) return table.threshold;
  if (query.t === "given" && table.hasGiven) return null;
  const permille = Math.round(Number(query.t) * 1000);
  return Number.isFinite(permille) && permille >= 0 && permille < 1000 ? permille : table.threshold;
}

/**
 * Return the value of the address for a threshold; undefined for the one that the page starts with.
 * @param {number | null} threshold
 * @param {import("./table.js").Table} table
 * @returns {string | undefined}
 */
export function thresholdText(threshold, table) {
  if (threshold === table.threshold) return undefined;
  return threshold === null ? "given" : String(threshold / 1000);
}
