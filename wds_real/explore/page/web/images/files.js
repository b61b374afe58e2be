// Shards that the user chose from this machine; an image is a slice of a file, and nothing else is read.

import { ImageError } from "./errors.js";

/** @typedef {{name: string, num_bytes: number}} Shard */

/** Shards among the user's files. */
export class FileShards {
  /** @type {Map<string, File>} */
  #files = new Map();

  /** @param {Shard[]} shards */
  constructor(shards) {
    this.shards = shards;
  }

  /** @returns {string} */
  get text() {
    return `${this.#files.size} of ${this.shards.length} shards from this machine`;
  }

  /**
   * Take the files that are shards, by name and length.
   * @param {Iterable<File>} files
   * @returns {{taken: number, problems: string[]}}
   */
  add(files) {
    /** @type {string[]} */
    const problems = [];
    let taken = 0;
    for (const file of files) {
      const shard = this.shards.find(({ name }) => isCalled(file, name));
      if (!shard) continue;
      if (file.size !== shard.num_bytes) {
        problems.push(
          `${file.name}: ${file.size} bytes, the index says ${shard.num_bytes}. The file is damaged or of another data set.`,
        );
        continue;
      }
      this.#files.set(shard.name, file);
      taken += 1;
    }
    if (!taken && !problems.length) {
      problems.push(`None of the files is a shard of this data set. Choose ${this.shards[0].name} and the others.`);
    }
    return { taken, problems };
  }

  /**
   * @param {Shard} shard
   * @param {number} start
   * @param {number} length
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async read(shard, start, length) {
    const file = this.#files.get(shard.name);
    if (!file) throw new ImageError("shard not chosen", `${shard.name} is not among the chosen files. Choose it too.`);
    try {
      return new Uint8Array(await file.slice(start, start + length).arrayBuffer());
    } catch (error) {
      throw new ImageError(
        "file not readable",
        `${shard.name}: the browser cannot read the file (${String(error)}). It was moved or changed: choose it again.`,
      );
    }
  }
}

/** @param {File} file @param {string} name  May have folders in it. */
function isCalled(file, name) {
  const path = file.webkitRelativePath || file.name;
  return path === name || path.endsWith(`/${name}`) || file.name === name.split("/").pop();
}
