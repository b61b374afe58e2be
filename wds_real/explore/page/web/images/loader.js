// Loads images as URLs for <img>: few at a time, the latest request first; the last ones used are kept.

import { ImageError } from "./errors.js";
import { SHORTEST, xxh3 } from "./xxh3.js";

/**
 * @typedef {import("../data/table.js").Table} Table
 * @typedef {import("../data/table.js").Places} Places
 * @typedef {{text: string, read: (shard: any, start: number, length: number, signal?: AbortSignal) => Promise<Uint8Array<ArrayBuffer>>}} Source
 */

const AT_ONCE = 6;
const KEPT = 300;
const HEX = 16;

/** The images of a data set, from wherever its shards are. */
export class Images {
  /** @type {Map<number, Promise<string>>} By row, least recently used first. */
  #known = new Map();
  /** @type {{row: number, start: () => void, drop: () => void}[]} */
  #waiting = [];
  #running = 0;

  /**
   * @param {Table} table
   * @param {(error: ImageError) => void} onFailure  Called when no image of the source can be read.
   */
  constructor(table, onFailure) {
    this.table = table;
    this.onFailure = onFailure;
    /** @type {Source | null} */
    this.source = null;
    /** @type {ImageError | null} */
    this.failure = null;
    this.version = 0;
  }

  /** @param {Source | null} source  Where images are read from now on. */
  use(source) {
    this.source = source;
    this.retry();
  }

  /** Forget all images and failures, so that they are read again. */
  retry() {
    for (const known of this.#known.values()) known.then((url) => URL.revokeObjectURL(url), () => {});
    this.#known.clear();
    this.failure = null;
    this.version += 1;
  }

  /**
   * Return the address of an image.
   * @param {number} row
   * @returns {Promise<string>}  Rejected with ImageError, or with null if `drop` came before the image's turn.
   */
  url(row) {
    const known = this.#known.get(row);
    if (known) {
      this.#known.delete(row);
      this.#known.set(row, known);
      return known;
    }
    const found = this.#turn(row).then(() => this.#read(row));
    this.#known.set(row, found);
    found.catch((error) => {
      if (error === null && this.#known.get(row) === found) this.#known.delete(row);
    });
    this.#forgetOldest();
    return found;
  }

  /**
   * Reject the promise of an image whose turn has not come.
   * @param {number} row
   */
  drop(row) {
    const place = this.#waiting.findIndex((entry) => entry.row === row);
    if (place >= 0) this.#waiting.splice(place, 1)[0].drop();
  }

  /** @param {number} row @returns {Promise<void>} */
  #turn(row) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ row, start: resolve, drop: () => reject(null) });
      this.#next();
    });
  }

  #next() {
    while (this.#running < AT_ONCE && this.#waiting.length) {
      this.#running += 1;
      /** @type {any} */ (this.#waiting.pop()).start();
    }
  }

  /** @param {number} row @returns {Promise<string>} */
  async #read(row) {
    const { version } = this;
    try {
      if (this.failure) throw this.failure;
      const blob = await this.blob(row);
      return URL.createObjectURL(blob);
    } catch (error) {
      if (error instanceof ImageError && error.whole && version === this.version && !this.failure) {
        this.failure = error;
        this.onFailure(error);
      }
      throw error;
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }

  /**
   * Read one image and compare it with the index.
   * @param {number} row
   * @returns {Promise<Blob>}
   */
  async blob(row) {
    const { table, source } = this;
    if (!table.places || !source) throw new ImageError("no shards", "No shards are open.");
    const shard = table.places.shards[table.places.shard[row]];
    const start = table.places.offset[row];
    const length = table.places.numBytes[row];
    const data = await source.read(shard, start, length);
    const where = `${shard.name}: ${table.keys[row]} [bytes ${start}-${start + length})`;
    if (data.length !== length) {
      throw damaged(where, `${data.length} bytes, expected ${length}. The shard is shorter than the index says.`);
    }
    const expected = checksumText(table.places, row);
    if (expected !== null && length >= SHORTEST) {
      const found = xxh3(data);
      if (found !== expected) throw damaged(where, `checksum is ${found}, the index says ${expected}.`);
    }
    const type = typeOf(data);
    if (type === null) throw damaged(where, "these bytes are not an image.");
    return new Blob([data], { type });
  }

  #forgetOldest() {
    for (const [row, known] of this.#known) {
      if (this.#known.size <= KEPT) return;
      this.#known.delete(row);
      this.drop(row);
      known.then((url) => URL.revokeObjectURL(url), () => {});
    }
  }
}

/** @param {string} where @param {string} what @returns {ImageError} */
function damaged(where, what) {
  return new ImageError("damaged", `${where}: ${what} Run wds-real verify, then copy the shard again.`);
}

/**
 * Return the checksum of an image in the index; null if it has none.
 * @param {Places} places
 * @param {number} row
 * @returns {string | null}
 */
export function checksumText(places, row) {
  const [low, high] = [places.checksum[2 * row], places.checksum[2 * row + 1]];
  if (!low && !high) return null;
  return high.toString(HEX).padStart(8, "0") + low.toString(HEX).padStart(8, "0");
}

/** @param {Uint8Array} data @returns {string | null} The media type, by the first bytes; null for others, such as SVG, which can hold code. */
function typeOf(data) {
  const start = String.fromCharCode(...data.subarray(0, 12));
  if (start.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (start.startsWith("\x89PNG")) return "image/png";
  if (start.startsWith("GIF8")) return "image/gif";
  return start.startsWith("RIFF") && start.slice(8) === "WEBP" ? "image/webp" : null;
}
