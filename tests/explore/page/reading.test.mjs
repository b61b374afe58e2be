// Images out of shards: from files, from servers good and bad, and what is said when it fails.

import assert from "node:assert/strict";
import { test } from "node:test";

import { FileShards } from "../../../wds_real/explore/page/web/images/files.js";
import { HttpShards } from "../../../wds_real/explore/page/web/images/http.js";
import { Images, checksumText } from "../../../wds_real/explore/page/web/images/loader.js";
import { xxh3 } from "../../../wds_real/explore/page/web/images/xxh3.js";

const shard = { name: "a b.tar", num_bytes: 1000 };
const content = Uint8Array.from({ length: 1000 }, (_, place) => place % 251);
const pattern = (length) => Uint8Array.from({ length }, (_, place) => (place * 7 + 13) & 255);

/** Return a stand-in for fetch, and the requests that it got. */
function server(respond) {
  const requests = [];
  const fetch = async (url, options = {}) => {
    requests.push([url, options.headers?.Range ?? null, options.mode ?? "cors"]);
    return respond(url, options);
  };
  return { fetch, requests };
}

function ranged(_url, { headers = {} }) {
  const [, start, last] = /bytes=(\d+)-(\d+)/.exec(headers.Range);
  return new Response(content.slice(Number(start), Number(last) + 1), { status: 206 });
}

test("checksums are those of xxHash, whose values Python's xxhash gave", () => {
  const expected = { 241: "a59556a86c6a6ea6", 1024: "f9c1054610f5a6a3", 1025: "67372fe80e1bef4f", 5000: "ec87cfeee2fc5df7", 100000: "806b2ff4d823e1cc" };
  for (const [length, checksum] of Object.entries(expected)) assert.equal(xxh3(pattern(Number(length))), checksum);
  assert.throws(() => xxh3(pattern(240)), RangeError);
  assert.equal(xxh3(new Uint8Array(pattern(2000).buffer, 500, 1024)), xxh3(pattern(2000).slice(500, 1524)));
});

test("an image is one request for its bytes, and names are encoded", async () => {
  const { fetch, requests } = server(ranged);
  const shards = new HttpShards("https://host/data", { fetch });
  assert.deepEqual(await shards.read({ ...shard, name: "x/a b#?.tar" }, 10, 5), content.slice(10, 15));
  assert.deepEqual(requests, [["https://host/data/x/a%20b%23%3F.tar", "bytes=10-14", "cors"]]);
});

test("a server that ignores ranges is said to, and a small shard is read once", async () => {
  const { fetch, requests } = server(() => new Response(content));
  const notices = [];
  const shards = new HttpShards("https://host", { fetch, onNotice: (text) => notices.push(text) });
  const parts = await Promise.all([shards.read(shard, 10, 5), shards.read(shard, 990, 10), shards.read(shard, 0, 1)]);
  assert.deepEqual(parts, [content.slice(10, 15), content.slice(990), content.slice(0, 1)]);
  assert.equal(requests.length, 1);
  assert.equal(notices.length, 1);
  assert.match(notices[0], /ignores requests for a part/);
});

test("of a large shard no more is read than up to the image", async () => {
  let sent = 0;
  const body = () => new ReadableStream({
    pull(controller) {
      sent += 1;
      controller.enqueue(content);
    },
  });
  const { fetch } = server(() => new Response(body()));
  const shards = new HttpShards("https://host", { fetch });
  const large = { name: "l.tar", num_bytes: 2 ** 30 };
  assert.deepEqual(await shards.read(large, 2500, 1000), new Uint8Array([...content.slice(500), ...content.slice(0, 500)]));
  assert.ok(sent < 10, `${sent} pieces were read`);
  await assert.rejects(shards.read(large, 2 ** 30 - 10, 10), /server without ranges|whole shards/);
});

for (const [status, message, whole] of [[404, /is not at https:\/\/host/, false], [403, /denies access/, true], [416, /shorter than the index/, false], [500, /with 500/, false]]) {
  test(`status ${status} is explained`, async () => {
    const shards = new HttpShards("https://host", { fetch: server(() => new Response("", { status })).fetch });
    await assert.rejects(shards.read(shard, 0, 10), (error) => message.test(error.message) && error.whole === whole);
  });
}

test("a server that answers without CORS is told from one that cannot be reached", async () => {
  const closed = server(() => { throw new TypeError("Failed to fetch"); });
  await assert.rejects(new HttpShards("https://host", { fetch: closed.fetch }).read(shard, 0, 10), /cannot be reached/);
  const silent = server((_, { mode }) => {
    if (mode === "no-cors") return Response.error();
    throw new TypeError("Failed to fetch");
  });
  const shards = new HttpShards("https://host", { fetch: silent.fetch, origin: "https://me" });
  await assert.rejects(shards.read(shard, 0, 10), /Access-Control-Allow-Origin: https:\/\/me;.*AllowedHeaders \["Range"\]/);
});

test("files are taken by name and length, and read by slices", async () => {
  const shards = new FileShards([shard, { name: "sub/c.tar", num_bytes: 3 }]);
  const file = (name, size) => new File([content.slice(0, size)], name);
  assert.deepEqual(shards.add([file("notes.txt", 5)]).taken, 0);
  assert.match(shards.add([file("a b.tar", 999)]).problems[0], /999 bytes, the index says 1000/);
  assert.deepEqual(shards.add([file("a b.tar", 1000), file("c.tar", 3)]), { taken: 2, problems: [] });
  assert.deepEqual(await shards.read(shard, 100, 7), content.slice(100, 107));
  await assert.rejects(new FileShards([shard]).read(shard, 0, 1), /not among the chosen files/);
});

/** Return images of one JPEG, from a source that gives `data`. */
function images(data, { checksum = xxh3(jpeg), onFailure = () => {} } = {}) {
  const low = Number(BigInt(`0x${checksum}`) & 0xffffffffn);
  const high = Number(BigInt(`0x${checksum}`) >> 32n);
  const table = {
    keys: ["k"],
    places: { shards: [shard], shard: [0], offset: [100], numBytes: [jpeg.length], checksum: Uint32Array.from([low, high]) },
  };
  const found = new Images(table, onFailure);
  found.use({ text: "", read: async () => (typeof data === "function" ? data() : data) });
  return found;
}
const jpeg = Uint8Array.from([0xff, 0xd8, 0xff, 0xe0, ...pattern(500)]);

test("an image that is as the index says becomes a blob of its kind", async () => {
  const blob = await images(jpeg).blob(0);
  assert.equal(blob.type, "image/jpeg");
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), jpeg);
  assert.equal(checksumText({ checksum: Uint32Array.from([0, 0]) }, 0), null);
});

test("short, changed and foreign bytes are damage, with the place", async () => {
  const changed = jpeg.slice();
  changed[300] ^= 1;
  await assert.rejects(images(jpeg.slice(0, 50)).blob(0), /a b\.tar: k \[bytes 100-604\): 50 bytes, expected 504/);
  await assert.rejects(images(changed).blob(0), /checksum is [0-9a-f]{16}, the index says [0-9a-f]{16}/);
  const script = new TextEncoder().encode(`<svg onload="alert(1)">${" ".repeat(504)}`).slice(0, 504);
  await assert.rejects(images(script, { checksum: "0000000000000000" }).blob(0), /these bytes are not an image/);
});

test("few images are read at once, the newest first, and dropped ones not at all", async () => {
  const order = [];
  const open = [];
  const table = { keys: [], places: { shards: [shard], shard: new Array(20).fill(0), offset: Array.from({ length: 20 }, (_, row) => row), numBytes: new Array(20).fill(jpeg.length), checksum: new Uint32Array(40) } };
  const loader = new Images(table, () => {});
  loader.use({ text: "", read: (_, start) => new Promise((resolve) => { order.push(start); open.push(() => resolve(jpeg)); }) });
  const urls = Array.from({ length: 20 }, (_, row) => loader.url(row));
  urls.forEach((url) => url.catch(() => {}));
  await new Promise(setImmediate);
  assert.deepEqual(order, [0, 1, 2, 3, 4, 5]);
  loader.drop(19);
  await assert.rejects(urls[19], (reason) => reason === null);
  open[0]();
  await urls[0];
  await new Promise(setImmediate);
  assert.equal(order[6], 18);
  assert.equal(await loader.url(0), await urls[0]);
});

test("a failure of the whole source is told once, and asked again after retry", async () => {
  let told = 0;
  let works = false;
  const shards = new HttpShards("https://host", { fetch: server((url, options) => {
    if (works) return new Response(jpeg, { status: 206 });
    throw new TypeError("Failed to fetch");
  }).fetch });
  const loader = images(() => shards.read(shard, 0, jpeg.length), { onFailure: () => { told += 1; } });
  await assert.rejects(loader.url(0), /cannot be reached/);
  await assert.rejects(loader.url(0), /cannot be reached/);
  assert.equal(told, 1);
  works = true;
  loader.retry();
  assert.match(await loader.url(0), /^blob:/);
});
