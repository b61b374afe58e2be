// XXH3 with 64 bits, seed 0, for inputs of more than 240 bytes, as in xxHash's specification: the checksum of the index.
// Numbers of 64 bits are two of 32, because BigInt would take a hundred times as long.

const SECRET = Uint8Array.from(
  (
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e" +
    "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d" +
    "8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc" +
    "8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
  ).match(/../g) ?? [],
  (byte) => parseInt(byte, 16),
);
const SECRET_VIEW = new DataView(SECRET.buffer);
const PRIME32_1 = 0x9e3779b1;
const PRIME64_1 = 0x9e3779b185ebca87n;
const AVALANCHE = 0x165667919e3779f9n;
const INITIAL = [
  0xc2b2ae3dn, PRIME64_1, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n, 0x85ebca77c2b2ae63n, 0x85ebca77n,
  0x27d4eb2f165667c5n, 0x9e3779b1n,
];
const MASK = (1n << 64n) - 1n;
const STRIPE = 64;
const STRIPES_OF_BLOCK = (SECRET.length - STRIPE) / 8;
export const SHORTEST = 241;

/**
 * Return the checksum as 16 hexadecimal digits.
 * @param {Uint8Array} data  At least SHORTEST bytes.
 * @returns {string}
 */
export function xxh3(data) {
  if (data.length < SHORTEST) throw new RangeError(`${data.length} bytes, expected at least ${SHORTEST}`);
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const low = new Uint32Array(INITIAL.map((value) => Number(value & 0xffffffffn)));
  const high = new Uint32Array(INITIAL.map((value) => Number(value >> 32n)));
  const stripes = Math.floor((data.length - 1) / STRIPE);
  for (let stripe = 0; stripe < stripes; stripe += 1) {
    const place = stripe % STRIPES_OF_BLOCK;
    accumulate(low, high, view, stripe * STRIPE, place * 8);
    if (place === STRIPES_OF_BLOCK - 1) scramble(low, high);
  }
  accumulate(low, high, view, data.length - STRIPE, SECRET.length - STRIPE - 7);
  return merged(low, high, data.length).toString(16).padStart(16, "0");
}

/**
 * @param {Uint32Array} low
 * @param {Uint32Array} high
 * @param {DataView} view
 * @param {number} at
 * @param {number} secret
 */
function accumulate(low, high, view, at, secret) {
  for (let lane = 0; lane < 8; lane += 1) {
    const dataLow = view.getUint32(at + 8 * lane, true);
    const dataHigh = view.getUint32(at + 8 * lane + 4, true);
    add(low, high, lane ^ 1, dataLow, dataHigh);
    const a = (dataLow ^ SECRET_VIEW.getUint32(secret + 8 * lane, true)) >>> 0;
    const b = (dataHigh ^ SECRET_VIEW.getUint32(secret + 8 * lane + 4, true)) >>> 0;
    add(low, high, lane, Math.imul(a, b) >>> 0, highOfProduct(a, b));
  }
}

/** @param {Uint32Array} low @param {Uint32Array} high */
function scramble(low, high) {
  const secret = SECRET.length - STRIPE;
  for (let lane = 0; lane < 8; lane += 1) {
    const shifted = high[lane] >>> 15; // a shift by 47 leaves bits of the high half only
    const a = (low[lane] ^ shifted ^ SECRET_VIEW.getUint32(secret + 8 * lane, true)) >>> 0;
    const b = (high[lane] ^ SECRET_VIEW.getUint32(secret + 8 * lane + 4, true)) >>> 0;
    low[lane] = Math.imul(a, PRIME32_1) >>> 0;
    high[lane] = (highOfProduct(a, PRIME32_1) + Math.imul(b, PRIME32_1)) >>> 0;
  }
}

/** @param {Uint32Array} low @param {Uint32Array} high @param {number} lane @param {number} a @param {number} b */
function add(low, high, lane, a, b) {
  const sum = low[lane] + a;
  low[lane] = sum;
  high[lane] = high[lane] + b + (sum > 0xffffffff ? 1 : 0);
}

/** @param {number} a @param {number} b @returns {number} The high 32 bits of the product of two numbers of 32 bits. */
function highOfProduct(a, b) {
  const a0 = a & 0xffff;
  const a1 = a >>> 16;
  const b0 = b & 0xffff;
  const b1 = b >>> 16;
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const other = a0 * b1 + (middle % 0x10000);
  return (a1 * b1 + Math.floor(middle / 0x10000) + Math.floor(other / 0x10000)) >>> 0;
}

/** @param {Uint32Array} low @param {Uint32Array} high @param {number} length @returns {bigint} */
function merged(low, high, length) {
  let hash = (BigInt(length) * PRIME64_1) & MASK;
  for (let pair = 0; pair < 4; pair += 1) {
    const [a, b] = [0, 1].map((one) => {
      const lane = 2 * pair + one;
      const value = (BigInt(high[lane]) << 32n) | BigInt(low[lane]);
      return value ^ SECRET_VIEW.getBigUint64(11 + 8 * lane, true);
    });
    const product = a * b;
    hash = (hash + ((product & MASK) ^ (product >> 64n))) & MASK;
  }
  hash ^= hash >> 37n;
  hash = (hash * AVALANCHE) & MASK;
  return hash ^ (hash >> 32n);
}
