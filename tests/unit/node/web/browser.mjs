// The pulse snippet without a browser: what it fetches is written to stdout a line each, answers come by stdin,
// and so do the messages of its page.
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

const given = JSON.parse(readFileSync(process.argv[2], "utf8"));
globalThis.crypto ??= webcrypto; // what browsers have and older releases of Node lack
for (const kind of [Blob, Response]) kind.prototype.bytes ??= async function () { return new Uint8Array(await this.arrayBuffer()); };
Uint8Array.fromHex ??= text => Uint8Array.from(Buffer.from(text, "hex"));
Uint8Array.prototype.toHex ??= function () { return Buffer.from(this).toString("hex"); };
Uint8Array.fromBase64 ??= (text, { alphabet }) => Uint8Array.from(Buffer.from(text, alphabet));
Uint8Array.prototype.toBase64 ??= function ({ alphabet }) { return Buffer.from(this).toString(alphabet); };

const table = new Map(), on = {}, waiting = new Map();
let number = 0, now = given.now, full = "", gone = false;
const write = value => process.stdout.write(`${JSON.stringify(value)}\n`);
const database = () => {
  const opening = { result: { close() {}, transaction() {
    const act = { objectStore: () => ({ get: key => ({ result: structuredClone(table.get(key)) }), put: (value, key) => {
      if (full === "throws") throw new DOMException("a key is not kept", "DataCloneError");
      act.failed = full;
      if (!full) table.set(key, structuredClone(value));
      return { result: key };
    } }) };
    setImmediate(() => act.failed ? act.onabort() : act.oncomplete());
    return act;
  } } };
  setImmediate(() => { try { opening.onsuccess(); } catch { /* a browser says it to the console alone */ } });
  return opening;
};
async function fetch(url, { method = "GET", body = "", headers = {} } = {}) {
  if (gone && !url.startsWith("/v1/")) throw new TypeError("no network");
  if (url.includes("/ipfs/")) return new Response(Buffer.from(given.block, "hex"));
  if (url.endsWith("/film.json")) return new Response(JSON.stringify(given.film));
  write({ number: ++number, method, url, body: Buffer.from(body).toString("hex"), headers });
  const answer = await new Promise(done => waiting.set(number, done));
  if (!answer.status) throw new TypeError("no network");
  return new Response(Buffer.from(answer.body, "hex"), answer);
}
const globals = {
  fetch, addEventListener: (name, act) => { (on[name] ??= []).push(act); }, indexedDB: { open: database },
  skipWaiting() {}, clients: {}, location: { origin: "https://site.example", search: "?account" },
  importScripts: name => runInThisContext(given.scripts[name]),
  Date: class extends Date { static now() { return now; } },
};
Object.assign(globalThis, globals);
runInThisContext(given.scripts["sw.js"]); // as scripts of one worker: each sees what the others declare

for await (const line of createInterface({ input: process.stdin })) {
  const said = JSON.parse(line);
  if (said.number) waiting.get(said.number)(said);
  if (said.now) now = said.now;
  full = said.full ?? full;
  gone = said.gone ?? gone;
  for (const [key, value] of Object.entries(said.keep ?? {})) table.set(key, value);
  if (said.message) {
    const source = { postMessage: told => write({ told: `${told.error}` }) };
    for (const act of on.message) act({ data: said.message, source, waitUntil: work => work.then(() => write({ done: true }), error => write({ done: `${error}` })) });
  }
  if (said.key) {
    let answer;
    for (const act of on.fetch) act({ request: { url: `https://site.example${said.key}` }, respondWith: found => { answer = found; } });
    answer.then(async found => write({ key: Buffer.from(await found.arrayBuffer()).toString("hex") }));
  }
}
