// Shards on a web server or in a bucket: an image is one request for a range of bytes.

import { ImageError, sizeText } from "./errors.js";

/** @typedef {{name: string, num_bytes: number}} Shard */

// A server without ranges sends whole shards.
const KEPT_SHARD = 64 * 2 ** 20; // larger ones are not kept
const KEPT_SHARDS = 4;
const MOST_READ = 512 * 2 ** 20; // the most that is read of one for an image

/** Shards below a URL. */
export class HttpShards {
  /** @type {Map<string, Promise<Blob>>} */
  #whole = new Map();
  /** @type {Promise<unknown> | null} The first request, which tells whether the server knows ranges. */
  #first = null;

  /**
   * @param {string} base  URL of the folder, absolute or relative to the page.
   * @param {{fetch?: typeof fetch, origin?: string, onNotice?: (text: string) => void}} [options]
   */
  constructor(base, { fetch: fetcher, origin = "null", onNotice = () => {} } = {}) {
    this.base = base;
    this.origin = origin;
    this.onNotice = onNotice;
    this.fetch = fetcher ?? globalThis.fetch.bind(globalThis);
    this.ignoresRanges = false;
  }

  /** @returns {string} */
  get text() {
    return `shards at ${this.base}`;
  }

  /**
   * @param {Shard} shard
   * @param {number} start
   * @param {number} length
   * @param {AbortSignal} [signal]
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async read(shard, start, length, signal) {
    if (this.#first) await this.#first;
    const found = this.ignoresRanges ? this.#readWhole(shard, start, length) : this.#readRange(shard, start, length, signal);
    this.#first ??= found.catch(() => {});
    return found;
  }

  /** @param {string} name @returns {string} */
  url(name) {
    return `${this.base}/${name.split("/").map(encodeURIComponent).join("/")}`;
  }

  /** @param {Shard} shard @param {number} start @param {number} length @param {AbortSignal} [signal] */
  async #readRange(shard, start, length, signal) {
    const response = await this.#request(shard, { headers: { Range: `bytes=${start}-${start + length - 1}` }, signal });
    if (response.status === 206) return new Uint8Array(await body(shard, response));
    if (response.status !== 200) {
      await response.body?.cancel();
      throw refusal(shard, response.status, this.base);
    }
    this.ignoresRanges = true;
    this.onNotice(
      `${this.base} ignores requests for a part of a file and sends whole shards (${sizeText(shard.num_bytes)}). ` +
        "Images come slowly: use a server that knows Range, the files themselves, or wds-real explore ROOT --serve.",
    );
    if (shard.num_bytes > KEPT_SHARD) return readPart(shard, response, start, length);
    const whole = body(shard, response).then((bytes) => new Blob([bytes]));
    this.#keep(shard, whole);
    return slice(await whole, start, length);
  }

  /** @param {Shard} shard @param {number} start @param {number} length */
  async #readWhole(shard, start, length) {
    if (shard.num_bytes > KEPT_SHARD) return readPart(shard, await this.#good(shard), start, length);
    let whole = this.#whole.get(shard.name);
    if (!whole) {
      whole = this.#good(shard).then((response) => body(shard, response)).then((bytes) => new Blob([bytes]));
      this.#keep(shard, whole);
    }
    return slice(await whole, start, length);
  }

  /** @param {Shard} shard @param {Promise<Blob>} whole */
  #keep(shard, whole) {
    this.#whole.set(shard.name, whole);
    whole.catch(() => this.#whole.delete(shard.name));
    for (const name of this.#whole.keys()) if (this.#whole.size > KEPT_SHARDS) this.#whole.delete(name);
  }

  /** @param {Shard} shard @returns {Promise<Response>} */
  async #good(shard) {
    const response = await this.#request(shard, {});
    if (response.status !== 200) throw refusal(shard, response.status, this.base);
    return response;
  }

  /** @param {Shard} shard @param {RequestInit} options @returns {Promise<Response>} */
  async #request(shard, options) {
    try {
      return await this.fetch(this.url(shard.name), { credentials: "omit", ...options });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw await this.#unreachable(shard);
    }
  }

  /** @param {Shard} shard @returns {Promise<ImageError>} */
  async #unreachable(shard) {
    try {
      await this.fetch(this.url(shard.name), { method: "HEAD", mode: "no-cors", credentials: "omit" });
    } catch {
      return new ImageError(
        "not reachable",
        `${this.base} cannot be reached. Check the address and the network, or choose the shard files of this machine.`,
        { whole: true },
      );
    }
    const allowed = this.origin === "null" ? "*" : this.origin;
    return new ImageError(
      "not allowed (CORS)",
      `${this.base} answers, but does not let this page read it (CORS). Set there: Access-Control-Allow-Origin: ${allowed}; ` +
        `on a bucket, a CORS rule with AllowedOrigins ["${allowed}"], AllowedMethods ["GET", "HEAD"], AllowedHeaders ` +
        '["Range"]. Or choose the shard files of this machine, or use wds-real explore ROOT --serve.',
      { whole: true },
    );
  }
}

/** @param {Shard} shard @param {number} status @param {string} base @returns {ImageError} */
function refusal(shard, status, base) {
  if (status === 404) {
    return new ImageError("shard missing", `${shard.name} is not at ${base} (404). Copy it there, or check the address.`);
  }
  if (status === 401 || status === 403) {
    return new ImageError(
      "access denied",
      `${base} denies access to ${shard.name} (${status}). Make it readable, or use wds-real explore ROOT --serve, which ` +
        "reads with your credentials.",
      { whole: true },
    );
  }
  if (status === 416) {
    return new ImageError("shard too short", `${shard.name} is shorter than the index says (416). Copy it again.`);
  }
  return new ImageError("server error", `${base} responded to a request for ${shard.name} with ${status}. Try again.`);
}

/** @param {Shard} shard @param {Response} response @returns {Promise<ArrayBuffer>} */
async function body(shard, response) {
  try {
    return await response.arrayBuffer();
  } catch (error) {
    throw new ImageError("connection lost", `${shard.name}: the response ended early (${String(error)}). Try again.`);
  }
}

/** @param {Blob} blob @param {number} start @param {number} length */
async function slice(blob, start, length) {
  return new Uint8Array(await blob.slice(start, start + length).arrayBuffer());
}

/**
 * Return a part of a response, and cancel what follows it.
 * @param {Shard} shard
 * @param {Response} response
 * @param {number} start
 * @param {number} length
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function readPart(shard, response, start, length) {
  const stop = start + length;
  if (stop > MOST_READ) {
    await response.body?.cancel();
    throw new ImageError(
      "server without ranges",
      `${shard.name}: the server sends whole shards, and this image would take ${sizeText(stop)}. Use a server that ` +
        "knows Range, or the files themselves.",
    );
  }
  const out = new Uint8Array(length);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  let at = 0;
  while (at < stop) {
    const { done, value } = await reader.read();
    if (done) break;
    const first = Math.max(start, at);
    const last = Math.min(stop, at + value.length);
    if (first < last) out.set(value.subarray(first - at, last - at), first - start);
    at += value.length;
  }
  await reader.cancel();
  return out.subarray(0, Math.max(0, Math.min(length, at - start)));
}
