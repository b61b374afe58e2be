// The data of the page: decoded once, then only read. `wds_real/explore/page/encoding.py` writes it.

/**
 * @typedef {object} ClassInfo
 * @property {number} index
 * @property {string} wnid
 * @property {string} name  The first lemma.
 * @property {string} lemmas
 * @property {string} definition
 *
 * @typedef {object} Model
 * @property {number} index
 * @property {string} name
 * @property {string} source
 * @property {string[]} notes
 * @property {Uint8Array} answered  (N,), 1 for images that its predictions are of.
 * @property {Uint16Array[]} top  Five columns (N,), best first; NO_CLASS for none.
 * @property {Uint16Array[] | null} probability  Five columns (N,) in ten-thousandths, NO_CLASS for unknown.
 *
 * @typedef {object} Places
 * @property {{name: string, num_bytes: number}[]} shards
 * @property {Uint32Array} shard
 * @property {Float64Array} offset
 * @property {Float64Array} numBytes
 * @property {Uint32Array} width
 * @property {Uint32Array} height
 * @property {Uint32Array} checksum  (2 N,), low half first; two zeros for none.
 *
 * @typedef {object} Table
 * @property {string} title
 * @property {string} digest
 * @property {number} numImages
 * @property {string[]} keys
 * @property {ClassInfo[]} classes
 * @property {Uint16Array} original
 * @property {{start: Uint32Array, label: Uint16Array}} given  The labels that the page was made with.
 * @property {{byThreshold: Uint8Array, start: Uint32Array, label: Uint16Array, permille: Int16Array}} rated
 * @property {boolean} hasGiven  Whether the given labels differ from those at the released threshold.
 * @property {boolean} hasThresholds  Whether any image's labels follow from a threshold.
 * @property {number | null} threshold  In thousandths; null for the given labels.
 * @property {Model[]} models
 * @property {Places | null} places
 */

export const NO_CLASS = 0xffff;
export const TOP = 5;

const ARRAYS = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  float64: Float64Array,
};
const ALIGNMENT = 8;

/**
 * Decode the text of the page's data block.
 * @param {string} base64
 * @returns {Promise<Table>}
 */
export async function readTable(base64) {
  const packed = bytesOf(base64);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return tableOf(await new Response(stream).arrayBuffer());
}

/** @param {string} base64 @returns {Uint8Array<ArrayBuffer>} */
function bytesOf(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
  return bytes;
}

/**
 * @param {ArrayBuffer} buffer
 * @returns {Table}
 */
export function tableOf(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, ALIGNMENT, length)));
  const start = ALIGNMENT + Math.ceil(length / ALIGNMENT) * ALIGNMENT;
  /** @type {Map<string, any>} */
  const columns = new Map();
  for (const { name, type, offset, length: size } of header.columns) {
    columns.set(name, new ARRAYS[/** @type {keyof typeof ARRAYS} */ (type)](buffer, start + offset, size));
  }
  const byThreshold = columns.get("by_threshold");
  return {
    title: header.title,
    digest: header.digest,
    numImages: header.num_images,
    keys: header.keys,
    classes: header.classes.map(classOf),
    original: columns.get("original"),
    given: { start: startsOf(columns.get("real_count")), label: columns.get("real_label") },
    rated: {
      byThreshold,
      start: startsOf(columns.get("rated_count")),
      label: columns.get("rated_label"),
      permille: columns.get("rated_permille"),
    },
    hasGiven: header.given,
    hasThresholds: byThreshold.includes(1),
    threshold: header.threshold,
    models: header.models.map((/** @type {any} */ model, /** @type {number} */ index) => ({
      index,
      name: model.name,
      source: model.source,
      notes: model.notes,
      answered: columns.get(`answered_${index}`),
      top: fiveColumns(columns, `class_${index}`),
      probability: model.probabilities ? fiveColumns(columns, `probability_${index}`) : null,
    })),
    places: header.shards === null ? null : placesOf(header.shards, columns),
  };
}

/** @param {[string, string, string]} entry @param {number} index @returns {ClassInfo} */
function classOf([wnid, lemmas, definition], index) {
  return { index, wnid, lemmas, definition, name: lemmas.split(",", 1)[0] };
}

/** @param {Map<string, any>} columns @param {string} prefix @returns {Uint16Array[]} */
function fiveColumns(columns, prefix) {
  return Array.from({ length: TOP }, (_, place) => columns.get(`${prefix}_${place}`));
}

/** @param {any[]} shards @param {Map<string, any>} columns @returns {Places} */
function placesOf(shards, columns) {
  return {
    shards,
    shard: columns.get("shard"),
    offset: columns.get("offset"),
    numBytes: columns.get("num_bytes"),
    width: columns.get("width"),
    height: columns.get("height"),
    checksum: columns.get("checksum"),
  };
}

/**
 * Return where the entries of each image start in a list of all entries, and the end of the last ones.
 * @param {ArrayLike<number>} counts
 * @returns {Uint32Array}
 */
export function startsOf(counts) {
  const starts = new Uint32Array(counts.length + 1);
  for (let row = 0; row < counts.length; row += 1) starts[row + 1] = starts[row] + counts[row];
  return starts;
}
