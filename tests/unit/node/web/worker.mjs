// The Service Worker in a world of a test's own: its servers, its clock, its table, and a title of blocks.
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import assert from "node:assert/strict";

const [scripts, given] = process.env.FARCAST_WORKER.split("\n").map(text => JSON.parse(readFileSync(text, "utf8")));
globalThis.crypto ??= webcrypto; // what browsers have and older releases of Node lack
for (const kind of [Blob, Response]) kind.prototype.bytes ??= async function () { return new Uint8Array(await this.arrayBuffer()); };
Uint8Array.fromHex ??= text => Uint8Array.from(Buffer.from(text, "hex"));
Uint8Array.prototype.toHex ??= function () { return Buffer.from(this).toString("hex"); };

const sleep = ms => new Promise(done => setTimeout(done, ms));
const forever = () => new Promise(() => {});
const blocks = new Map(Object.entries(given.blocks).map(([cid, hex]) => [cid, Uint8Array.from(Buffer.from(hex, "hex"))]));
const CDN = "https://cdn.example", RELAY = "";
const good = async function* (data) { yield data; };
const late = ms => async function* (data) { await sleep(ms); yield data; };
const mute = async function* () { await forever(); };
const halfway = async function* (data) { yield data.slice(0, data.length >> 1); await forever(); };
const cut = async function* (data) { yield data.slice(0, data.length >> 1); throw new TypeError("cut"); };
const short = async function* (data) { yield data.slice(0, data.length - 1); };
const flipped = async function* (data) { const bad = data.slice(); bad[bad.length >> 1] ^= 1; yield bad; };
const slow = async function* (data) { for (let at = 0; at < data.length; at += 1000) { yield data.slice(at, at + 1000); await sleep(100); } };
const steady = async function* (data) { for (let at = 0; at < data.length; at += 80_000) { yield data.slice(at, at + 80_000); await sleep(60); } };
const line = () => { // one that all who send share, so many bytes at a time
  const waiting = [], way = async function* (data) { for (let at = 0; at < data.length;) yield data.slice(at, at += await new Promise(done => waiting.push(done))); };
  way.pass = async bytes => { const all = waiting.splice(0); for (const one of all) one(bytes / all.length | 0); await sleep(5); };
  return way;
};
const byHand = () => {
  const acts = new Set(), ticks = act => { acts.add(act); return act; };
  ticks.clear = act => acts.delete(act);
  ticks.pass = async () => { for (const act of [...acts]) act(); await sleep(5); };
  return ticks;
};
const pass = async (count, ticks, ...lines) => { // so many ticks, in each of which lines bring so many bytes
  while (count--) {
    await sleep(5);
    for (const [way, bytes] of lines) await way.pass(bytes);
    await ticks.pass();
  }
};
const refuses = () => { throw new TypeError("refused"); };
const missing = () => 404;

class World {
  constructor(servers, changes = {}, ticks = setInterval) {
    this.ticks = ticks;
    this.servers = servers;
    this.asked = [];
    this.told = [];
    this.table = new Map();
    this.shift = 0;
    this.film = { manifest: given.manifest, publishers: given.publishers,
      sources: [{ tier: 1, relay: "", url: CDN }, { tier: 2, relay: "ab".repeat(16), url: RELAY }], ...changes };
    this.start();
  }

  // As after the browser ended an idle worker: nothing is left but what is written down.
  start() {
    const on = {}, world = this;
    const globals = {
      fetch: (url, options) => this.fetch(url, options),
      setInterval: this.ticks, clearInterval: this.ticks.clear ?? clearInterval,
      addEventListener: (name, act) => { on[name] = act; },
      indexedDB: { open: () => this.database() },
      skipWaiting: () => {}, clients: {}, location: { origin: "https://site.example", search: "" },
      Date: class extends Date { static now() { return Date.now() + world.shift; } },
    };
    new Function(...Object.keys(globals), scripts.join("\n"))(...Object.values(globals));
    this.on = on;
  }

  database() {
    const { table } = this, opening = { result: { close() {}, transaction() {
      const act = { objectStore: () => ({ get: key => ({ result: table.get(key) }),
        put: (value, key) => { table.set(key, structuredClone(value)); return { result: key }; } }) };
      setImmediate(() => act.oncomplete());
      return act;
    } } };
    setImmediate(() => opening.onsuccess());
    return opening;
  }

  async fetch(url, { signal } = {}) {
    if (url.endsWith("/film.json")) {
      if (!this.film) throw new TypeError("gone");
      return new Response(JSON.stringify(this.film));
    }
    const [base, cid] = url.split("/ipfs/"), data = blocks.get(cid.split("?")[0]);
    if (!signal) this.told.push(`${base} ${cid}`);
    else this.asked.push(base === CDN ? "cdn" : "relay");
    const answer = this.servers[base](data);
    if (typeof answer === "number") return new Response("", { status: answer });
    const body = new ReadableStream({ async pull(stream) {
      try {
        const { done, value } = await answer.next();
        if (done) stream.close(); else stream.enqueue(value);
      } catch (error) { stream.error(error); }
    } });
    if (!signal) return new Response(body);
    const gone = new Promise((_, fail) => signal.addEventListener("abort", () => fail(new Error("aborted"))));
    gone.catch(() => {});
    const reader = body.getReader();
    return { ok: true, body: { getReader: () => ({ read: () => Promise.race([reader.read(), gone]) }) } };
  }

  // What the player would get for a file of the title.
  async get(path, title = given.title) {
    let answer;
    this.on.fetch({ request: { url: `https://site.example/watch/${title}/${path}` }, respondWith: found => { answer = found; } });
    const found = await answer;
    return { status: found.status, data: Buffer.from(await found.arrayBuffer()) };
  }
}

const timed = async work => { const start = performance.now(); return [await work(), performance.now() - start]; };
const sound = ({ status, data }, path) => { assert.equal(status, 200); assert.ok(data.equals(Buffer.from(given.files[path], "hex"))); };
const [small, large] = ["v0/index.m3u8", "v0/seg-00000.m4s"];

test("every file of the folder is what its publisher made, from many blocks too", async () => {
  const world = new World({ [CDN]: good, [RELAY]: refuses });
  for (const path of Object.keys(given.files)) sound(await world.get(path), path);
  assert.ok(!world.asked.includes("relay"));
});

for (const [name, way] of Object.entries({ refuses, missing, cut, short, flipped })) {
  test(`a server that ${name}: the next one at once, and it is left alone for 10 s`, async () => {
    const world = new World({ [CDN]: way, [RELAY]: good }, {}, () => 0); // no timer helps it
    sound(await world.get(small), small);
    world.asked.length = 0;
    sound(await world.get(large), large);
    assert.deepEqual([...new Set(world.asked)], ["relay"]);
    world.shift = 10_001;
    world.asked.length = 0;
    await world.get("v0/init.mp4");
    assert.equal(world.asked[0], "cdn");
  });
}

for (const [name, way] of Object.entries({ mute, halfway, slow })) {
  test(`a server that is ${name}: the next one after 250 ms, and it is left alone`, async () => {
    const world = new World({ [CDN]: good, [RELAY]: good });
    sound(await world.get(small), small);
    world.servers[CDN] = way;
    const [found, ms] = await timed(() => world.get(large));
    sound(found, large);
    assert.ok(ms > 200 && ms < 3000, `${ms} ms`);
    world.asked.length = 0;
    sound(await world.get("v0/seg-00001.m4s"), "v0/seg-00001.m4s");
    assert.deepEqual([...new Set(world.asked)], ["relay"]);
  });
}

test("a server that was doubled but answered first is in good standing", async () => {
  const world = new World({ [CDN]: good, [RELAY]: mute });
  await world.get(small);
  world.servers[CDN] = late(400);
  sound(await world.get(large), large);
  await sleep(600); // no timer of an answered block may speak later
  assert.ok(world.asked.includes("relay"), "it was doubled");
  assert.deepEqual(world.table.get("shunned") ?? {}, {});
  world.asked.length = 0;
  world.servers[CDN] = good;
  sound(await world.get("v0/seg-00001.m4s"), "v0/seg-00001.m4s");
  assert.deepEqual([...new Set(world.asked)], ["cdn"]);
});

test("a server that makes way is not doubled, however long it takes", async () => {
  const world = new World({ [CDN]: good, [RELAY]: good });
  await world.get(small);
  world.servers[CDN] = steady;
  sound(await world.get(large), large);
  assert.ok(!world.asked.includes("relay"));
});

const [B, C] = ["https://b.example", "https://c.example"];
const several = { sources: [CDN, RELAY, B, C].map(url => ({ tier: 1, relay: "", url })) };
const anybody = { [CDN]: good, [RELAY]: good, [B]: good, [C]: good };

test("of servers that hang the third is asked at the third tick, the fourth at the sixth", async () => {
  const ticks = byHand(), world = new World({ ...anybody }, several, ticks), asked = [];
  sound(await world.get(small), small);
  Object.assign(world.servers, { [CDN]: mute, [RELAY]: mute, [B]: mute });
  world.asked.length = 0;
  const found = world.get("v0/init.mp4");
  await sleep(5);
  for (let tick = 0; tick < 6; tick++) {
    await ticks.pass();
    asked.push(world.asked.length);
  }
  assert.deepEqual(asked, [2, 2, 3, 3, 3, 4]);
  sound(await found, "v0/init.mp4");
});

test("one that trickles beside one that hangs does not keep the third away", async () => {
  const ticks = byHand(), world = new World({ ...anybody }, several, ticks), trickle = line();
  sound(await world.get(small), small);
  Object.assign(world.servers, { [CDN]: trickle, [RELAY]: mute });
  world.asked.length = 0;
  const found = world.get("v0/seg-00001.m4s");
  await pass(3, ticks, [trickle, 10_000]);
  sound(await found, "v0/seg-00001.m4s");
  assert.equal(world.asked.length, 3);
});

test("a slow line is shared by two", async () => {
  const ticks = byHand(), slowly = line(), world = new World({ ...anybody }, several, ticks);
  sound(await world.get(small), small);
  for (const place in anybody) world.servers[place] = slowly;
  world.asked.length = 0;
  const found = world.get("v0/seg-00001.m4s");
  await pass(10, ticks, [slowly, 20_000]);
  assert.equal(world.asked.length, 2);
  await slowly.pass(1_000_000);
  sound(await found, "v0/seg-00001.m4s");
});

test("one that is slow beside a better one is left alone", async () => {
  const ticks = byHand(), slowly = line(), better = line(), world = new World({ ...anybody }, several, ticks);
  sound(await world.get(small), small);
  Object.assign(world.servers, { [CDN]: slowly, [RELAY]: better });
  const found = world.get("v0/seg-00001.m4s");
  await pass(4, ticks, [slowly, 20_000], [better, 100_000]);
  sound(await found, "v0/seg-00001.m4s");
  await sleep(5);
  assert.deepEqual(Object.keys(world.table.get("shunned")), [CDN]);
});

test("whom it shuns and what a site has said outlive the worker and the site", async () => {
  const world = new World({ [CDN]: refuses, [RELAY]: good });
  await world.get(small);
  world.film = null;
  world.start();
  world.asked.length = 0;
  sound(await world.get(large), large);
  assert.deepEqual([...new Set(world.asked)], ["relay"]);
});

test("with every server gone there is no answer; with one back there is", async () => {
  const world = new World({ [CDN]: refuses, [RELAY]: flipped });
  assert.equal((await world.get(small)).status, 502);
  world.servers[RELAY] = good;
  sound(await world.get(small), small);
});

test("a title may be called as anything of ours is", async () => {
  const world = new World({ [CDN]: good, [RELAY]: good });
  await world.get(small);
  assert.deepEqual([...world.table.keys()], ["/film"]);
});

test("what no publisher of the site signed is not played, nor another title under this name", async () => {
  for (const [change, title] of [[{ publishers: ["00".repeat(32)] }], [{ manifest: given.forged }], [{}, "other"]]) {
    const world = new World({ [CDN]: good, [RELAY]: good }, change);
    assert.equal((await world.get(small, title)).status, 502);
    assert.equal(world.table.get(`/${title ?? given.title}`), undefined);
  }
});

test("each relay is told the title's root, so that it knows what will be asked", async () => {
  const world = new World({ [CDN]: good, [RELAY]: refuses });
  sound(await world.get(small), small);
  assert.deepEqual(world.told, [`${RELAY} ${given.root}?format=raw`]);
  assert.equal(world.table.get("shunned"), undefined);
});

test("a token in a query goes with every block", async () => {
  const world = new World({ [CDN]: good, [RELAY]: refuses }), { fetch } = world;
  world.film.sources[0].url = `${CDN}?verify=1`;
  world.fetch = (url, options) => {
    if (url.startsWith(CDN)) assert.ok(url.endsWith("?format=raw&verify=1"), url);
    return fetch.call(world, url, options);
  };
  sound(await world.get(small), small);
});

test("a path that leads nowhere is 404, and other addresses are not its business", async () => {
  const world = new World({ [CDN]: good, [RELAY]: good });
  assert.equal((await world.get("v9/index.m3u8")).status, 404);
  for (const url of ["https://site.example/web/film/film.json", "https://cdn.example/watch/film/v0/init.mp4"]) {
    world.on.fetch({ request: { url }, respondWith: () => assert.fail(url) });
  }
});
