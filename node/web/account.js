"use strict";
// An account's device in a browser: its key, made by an invitation and never leaving the browser, and the
// day's ticket (docs/protocol.md, sections 4, 5 and 6).
const fresh = () => crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
const raw = async keys => new Uint8Array(await crypto.subtle.exportKey("raw", keys.publicKey));
const alphabet = "base64url", base64 = data => data.toBase64({ alphabet, omitPadding: true });

// Posts a request signed over a nonce of the site.
async function ask(path, message, keys) {
  const post = rest => fetch(path, { method: "POST", ...rest }), body = pack(message);
  const nonce = Uint8Array.fromBase64(/"(.+)"/.exec((await post()).headers.get("www-authenticate"))[1], { alphabet });
  const proof = pack([1, "POST", path, nonce, await sha256(body), await raw(keys), join(), Date.now()]);
  const authorization = "Farcast " + base64(await envelope(keys, "request", proof));
  const answer = await post({ body, headers: { authorization } });
  if (!answer.ok) throw (await answer.json()).detail;
  return unpack(await answer.bytes());
}

async function enrol(token) {
  const device = await fresh();
  await ask("/v1/devices", [1, token, await raw(device)], device);
  await kv("purse", { ...await kv("purse"), day: 0 }); // today's ticket may be another account's
  if (!await kv("device", device)) throw "this browser keeps no keys; leave its private mode";
}

// The day's ticket and how far it has signed, where this browser is enrolled; what no ack has answered goes
// over into the next day.
async function purse(now) {
  const device = await kv("device"), held = device && await kv("purse"), day = Math.floor(now / 864e5);
  if (!device || held?.day === day) return held;
  const session = await fresh(), [, [[ticket, key]]] = await ask("/v1/tickets", [1, [[day, await raw(session)]]], device);
  const [body] = unpack(ticket), prev = await sha256(marked("ticket", body));
  const made = { day, session, ticket, key, prev, tid: unpack(body)[1], seq: 0, sum: 0, waiting: held?.waiting ?? [] };
  await kv("purse", made);
  return made;
}

// A content key (HLS AES-128): asked for with a proof of the day's ticket, where this browser has one.
addEventListener("fetch", event => {
  const { origin, pathname } = new URL(event.request.url);
  if (origin === location.origin && pathname.startsWith("/v1/keys/")) event.respondWith(unlock(pathname));
});
async function unlock(path) {
  const now = Date.now(), held = await one(() => purse(now));
  if (!held) return fetch(path);
  const secret = await crypto.subtle.importKey("raw", held.key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const proof = await crypto.subtle.sign("HMAC", secret, ascii(`farcast/key/v1\0${path.split("/").pop()}\0${now}`));
  return fetch(path, { headers: { authorization: `Farcast-Ticket ${base64(held.ticket)}.${now}.${base64(new Uint8Array(proof))}` } });
}

// One after another, so that no two go on from the same place.
let turn = Promise.resolve();
const one = act => turn = turn.catch(() => {}).then(act);

// What a page says: an invitation's token, or what was watched.
addEventListener("message", event => event.waitUntil(one(() => hear(event))));
async function hear({ data, source }) {
  const tell = error => source.postMessage({ error }), now = Date.now();
  if (data.token) return enrol(data.token).then(() => tell(""), tell);
  const held = await purse(now);
  if (held) await pulse(held, now, ...data.watched);
}
