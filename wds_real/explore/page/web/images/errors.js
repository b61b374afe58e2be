// Why an image cannot be shown: what happened, where, and what to do.

/** An image or its shard cannot be read. */
export class ImageError extends Error {
  /**
   * @param {string} short  A few words for the place of the image.
   * @param {string} message
   * @param {{whole?: boolean}} [options]  `whole`: no image of this source can be read, so no more are asked for.
   */
  constructor(short, message, { whole = false } = {}) {
    super(message);
    this.name = "ImageError";
    this.short = short;
    this.whole = whole;
  }
}

/** @param {number} bytes @returns {string} */
export function sizeText(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
