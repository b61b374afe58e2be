// What a search text can mean: a class by name, wnid or number, an image by key, a model by name.

/**
 * @typedef {import("./table.js").Table} Table
 * @typedef {{kind: "class" | "image" | "model", id: string, text: string, detail: string}} Hit
 */

/**
 * Return the best matches, at most `limit` of each kind.
 * @param {Table} table
 * @param {string} text
 * @param {number} [limit]
 * @returns {Hit[]}
 */
export function search(table, text, limit = 8) {
  const words = text.trim().toLowerCase();
  if (!words) return [];
  return [...classHits(table, words, limit), ...modelHits(table, words, limit), ...imageHits(table, words, limit)];
}

/** @param {Table} table @param {string} text @param {number} limit @returns {Hit[]} */
function classHits(table, text, limit) {
  const hits = [];
  for (const info of table.classes) {
    const rank = classRank(info, text);
    if (rank >= 0) hits.push({ rank, info });
  }
  return hits
    .sort((a, b) => a.rank - b.rank || a.info.index - b.info.index)
    .slice(0, limit)
    .map(({ info }) => ({
      kind: "class",
      id: String(info.index),
      text: info.name,
      detail: `class ${info.index}, ${info.wnid}, ${info.lemmas}`,
    }));
}

/** @param {import("./table.js").ClassInfo} info @param {string} text @returns {number} -1 for no match. */
function classRank(info, text) {
  const lemmas = info.lemmas.toLowerCase();
  if (text === String(info.index) || text === info.wnid || lemmas.split(", ").includes(text)) return 0;
  if (lemmas.startsWith(text) || (text.length > 2 && info.wnid.startsWith(text))) return 1;
  if (lemmas.split(/[\s,-]+/).some((word) => word.startsWith(text))) return 2;
  return text.length > 2 && lemmas.includes(text) ? 3 : -1;
}

/** @param {Table} table @param {string} text @param {number} limit @returns {Hit[]} */
function modelHits(table, text, limit) {
  return table.models
    .filter(({ name }) => name.toLowerCase().includes(text))
    .slice(0, limit)
    .map(({ name, source }) => ({ kind: "model", id: name, text: name, detail: source ? `model, ${source}` : "model" }));
}

/** @param {Table} table @param {string} text @param {number} limit @returns {Hit[]} */
function imageHits(table, text, limit) {
  const wanted = text.replace(/\.jpe?g$/, "");
  const number = /^\d{1,8}$/.test(wanted) ? wanted.padStart(8, "0") : null;
  /** @type {string[]} */
  const found = [];
  if (number !== null) found.push(...table.keys.filter((key) => key.endsWith(`_${number}`)).slice(0, limit));
  if (number === null && wanted.length > 2) {
    for (const key of table.keys) {
      if (found.length === limit) break;
      if (key.toLowerCase().includes(wanted)) found.push(key);
    }
  }
  return found.map((key) => ({ kind: "image", id: key, text: key, detail: "image" }));
}
