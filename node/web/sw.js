"use strict";
// The web player's Service Worker: every file of a title is made of blocks that were checked here, down
// from the publisher's signature, whichever server sent them; a server that is late is doubled.

const TICK_MS = 250, LEAST_BYTES = 32768, BLOCK_BYTES = 2097152, PENALTY_MS = 1e4, TICKS = 240;
const films = new Map(), nodes = new Map(), shunned = kv("shunned").then(found => found ?? {});
const ascii = word => new TextEncoder().encode(word);
const join = (...parts) => Uint8Array.from(parts.flatMap(part => [...part]));
const marked = (kind, body) => join(ascii(`farcast/${kind}/v1\0`), body); // what is signed and hashed
const word = data => new TextDecoder().decode(data);
const sha256 = async data => new Uint8Array(await crypto.subtle.digest("SHA-256", data));

importScripts("pulse.js");
if (location.search) importScripts("account.js"); // a browser that is enrolled asks for "sw.js?account"
skipWaiting();
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => {
  const { origin, pathname } = new URL(event.request.url), [, where, title, ...path] = pathname.split("/");
  if (origin === location.origin && where === "watch") {
    event.respondWith(file(title, path).catch(error => new Response(error, { status: 502 })));
  }
});

async function file(title, path) {
  const film = await once(films, title, () => learn(title), path[0] === "master.m3u8");
  let cid = film.root;
  for (const name of path) {
    cid = links(await node(film, cid)).find(link => word(link[2]) === name)?.[1];
    if (!cid) return new Response("", { status: 404 });
  }
  return new Response(new Blob(await leaves(film, cid)));
}

// What `make` brings, made once for a name, or `anew`; a failure is not kept.
function once(made, name, make, anew) {
  if (anew || !made.has(name)) {
    if (made.size > 63) made.clear();
    made.set(name, make().catch(error => { made.delete(name); throw error; }));
  }
  return made.get(name);
}

// A title as its publisher signed it. The site says which manifest and whose keys; should it be gone
// while the title plays, what it said last still holds.
async function learn(title) {
  const key = "/" + title, had = await kv(key), told = await fetch(`/web/${title}/film.json`, { signal: AbortSignal.timeout(had ? 1e3 : 1e4) })
    .then(answer => answer.status < 500 ? answer.json() : had).catch(() => had);
  const film = { ...told, served: {} };
  const [body, signature] = unpack(await block(film, Uint8Array.fromHex("01551220" + told.manifest)));
  const [, name, , publisher, , , , , root, , renditions] = unpack(body);
  const signed = name === title && told.publishers.includes(publisher.toHex()) && await crypto.subtle.verify(
    "Ed25519", await crypto.subtle.importKey("raw", publisher, "Ed25519", false, ["verify"]), signature, marked("manifest", body));
  if (!signed) throw "no publisher signed this";
  await kv(key, { ...told, root, renditions });
  // a relay that was asked for a title's root knows from then on all that lies below
  for (const { tier, url } of told.sources) if (tier === 2) fetch(address(url, root)).then(answer => answer.text(), () => {});
  return { ...film, root, renditions };
}

async function leaves(film, cid) {
  if (cid[1] === 85) return [await block(film, cid)];
  return (await Promise.all(links(await node(film, cid)).map(link => leaves(film, link[1])))).flat();
}

// An inner block, kept: each file of a folder needs it.
const node = (film, cid) => once(nodes, text(cid), () => block(film, cid));

// One block of checked bytes: the next server is asked when one fails, and when none of those asked makes way.
async function block(film, cid) {
  const bad = await shunned, now = Date.now(), ban = ({ url }) => bad[url] > now ? bad[url] : 0;
  const waiting = [...film.sources].sort((one, other) => ban(one) - ban(other)), flights = new Set();
  const stop = new AbortController(), { signal } = stop;
  return new Promise((done, fail) => {
    let ticks = 0, idle;
    const end = (settle = fail, found = "no server brings this") => {
      clearInterval(timer);
      stop.abort();
      settle(found);
    };
    const next = () => {
      idle = 0;
      if (waiting.length) ask(waiting.shift());
      else if (!flights.size) end();
    };
    const ask = async ({ url }) => {
      const flight = { url, got: 0, had: 0 }, parts = [];
      flights.add(flight);
      try {
        const { ok, body } = await fetch(address(url, cid), { signal, credentials: "omit", redirect: "error" });
        const reader = ok && body.getReader();
        for (let read; !(read = await reader.read()).done && flight.got <= BLOCK_BYTES; flight.got += read.value.length) parts.push(read.value);
        const data = await new Blob(parts).bytes();
        if ((await sha256(data)).toHex() !== cid.slice(4).toHex()) throw 0;
        if (signal.aborted) return;
        film.served[url] = (film.served[url] ?? 0) + data.length;
        flights.delete(flight);
        for (const slower of flights) if (slower.late) avoid(slower.url);
        end(done, data);
      } catch {
        flights.delete(flight);
        if (!signal.aborted) { avoid(url); next(); }
      }
    };
    // late is who brought next to nothing since the last tick. One more is asked when all together brought too little, for
    // as many ticks as there are of them; the more of them bring something, the less is enough: they may share a slow line
    const timer = setInterval(() => {
      let sum = 0, live = 0;
      for (const flight of flights) {
        const came = flight.got - flight.had;
        flight.had = flight.got;
        flight.late = came < LEAST_BYTES;
        sum += came;
        live += came > 0;
      }
      idle = sum < LEAST_BYTES / live ** 2 && idle + 1;
      if (++ticks > TICKS) end();
      else if (idle >= flights.size) next();
    }, TICK_MS);
    next();
  });
}

// A Service Worker is ended when idle: whom it shuns is written down.
async function avoid(url) {
  const bad = await shunned;
  bad[url] = Date.now() + PENALTY_MS;
  kv("shunned", bad);
}

// The links of a dag-pb block (IPLD dag-pb specification): 1 is the CID, 2 the name.
const links = data => [...fields(data)].filter(([field]) => field === 2).map(([, link]) => Object.fromEntries(fields(link)));

function* fields(data) {
  let at = 0;
  const number = () => {
    let value = 0, unit = 1, byte;
    do { byte = data[at++]; value += (byte & 127) * unit; unit *= 128; } while (byte > 127);
    return value;
  };
  while (at < data.length) {
    const key = number(), value = number();
    yield [key >> 3, key & 7 ? data.subarray(at, at += value) : value];
  }
}

function address(url, cid) {
  const [base, token] = url.split("?");
  return `${base}/ipfs/${text(cid)}?format=raw${token ? "&" + token : ""}`;
}

// A CID as text: multibase base32, lower case. Ours have 36 bytes: 288 bits and 2 of padding, "a" and 57 digits.
const text = cid => "ba" + (BigInt("0x" + cid.toHex()) << 2n).toString(32)
  .replace(/./g, digit => ((digit = parseInt(digit, 32)) + (digit > 25 ? -24 : 10)).toString(36));

// This site's table in IndexedDB: reads `key`, or writes `value` there and returns `key`; nothing where that failed.
function kv(key, value) {
  return new Promise(done => {
    const opening = indexedDB.open("farcast");
    opening.onupgradeneeded = () => opening.result.createObjectStore("kv");
    opening.onerror = () => done();
    opening.onsuccess = () => {
      const act = opening.result.transaction("kv", "readwrite", { durability: "strict" }), table = act.objectStore("kv");
      let asked; // nothing where the put throws: a private mode may not keep keys
      act.oncomplete = () => done(opening.result.close() ?? asked?.result);
      act.onabort = () => done(opening.result.close());
      asked = value === undefined ? table.get(key) : table.put(value, key);
    };
  });
}

// A msgpack value; the signature over it was checked, so its form is not.
function unpack(data) {
  let at = 0;
  const number = size => { let value = 0; while (size--) value = value * 256 + data[at++]; return value; };
  const some = size => data.subarray(at, at += size);
  const list = size => Array.from({ length: size }, read);
  const read = () => {
    const type = number(1);
    return type < 128 ? type : type < 160 ? list(type & 15) : type < 192 ? word(some(type & 31))
      : type < 196 ? type > 194 : type < 204 ? some(number(1 << type - 196)) : type < 212 ? number(1 << type - 204)
      : type < 220 ? word(some(number(1 << type - 217))) : list(number(2 << type - 220));
  };
  return read();
}
