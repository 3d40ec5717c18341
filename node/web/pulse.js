"use strict";
// The pulse snippet, in the Service Worker: what an enrolled browser says of its own watching
// (docs/protocol.md, section 6), signed by the day's key, which never leaves the browser.
const zeros = size => new Uint8Array(size);

// ChaCha20-Poly1305 (RFC 8439): browsers do not bring it.
function chacha(key, counter, nonce) {
  const start = new Uint32Array(join(ascii("expand 32-byte k"), key, [counter, 0, 0, 0], nonce).buffer), x = start.slice();
  for (let round = 0; round < 20; round++) {
    for (let at = 0; at < 4; at++) {
      let [a, b, c, d] = [0, 4, 8, 12].map((row, step) => row + (at + round % 2 * step) % 4);
      for (const turn of [16, 12, 8, 7]) {
        x[d] ^= x[a] += x[b];
        x[d] = x[d] << turn | x[d] >>> 32 - turn;
        [a, b, c, d] = [c, d, a, b];
      }
    }
  }
  return new Uint8Array(x.map((word, at) => word + start[at]).buffer);
}

function seal(key, seq, clear, plain) {
  const nonce = [...zeros(10), seq >> 8, seq & 255], number = data => BigInt("0x" + data.toReversed().toHex());
  const box = plain.map((byte, at) => byte ^ chacha(key, 1 + (at >> 6), nonce)[at & 63]), once = chacha(key, 0, nonce);
  const all = join(clear, zeros(-clear.length & 15), box, [clear.length], zeros(7), [box.length], zeros(7));
  let sum = 0n; // Poly1305: the box is whole blocks, both lengths are below 256
  for (let at = 0; at < all.length; at += 16) {
    sum = (sum + number(join(all.slice(at, at + 16), [1]))) * (number(once.slice(0, 16)) & 0xffffffc0ffffffc0ffffffc0fffffffn) % (2n ** 130n - 5n);
  }
  sum += number(once.slice(16, 32));
  return join(box, zeros(16).map((_, at) => Number(sum >> BigInt(8 * at) & 255n)));
}

// A body under the name of its kind.
const envelope = async (keys, kind, body) =>
  pack([body, new Uint8Array(await crypto.subtle.sign("Ed25519", keys.privateKey, marked(kind, body)))]);

// Canonical msgpack of whole numbers, words of ASCII, bytes and lists.
function pack(value) {
  const head = (number, least, few, code, log = 0) => {
    if (number < few) return [least + number];
    while (number >= 256 ** (1 << log)) log++;
    return [code + log, ...zeros(1 << log).map((_, at, all) => number / 256 ** (all.length - 1 - at) & 255)];
  };
  return join(...typeof value === "number" ? [head(value, 0, 128, 204)]
    : Array.isArray(value) ? [head(value.length, 144, 16, 219, 1), ...value.map(pack)]
    : typeof value === "string" ? [head(value.length, 160, 32, 217), ascii(value)]
    : [head(value.length, 0, 0, 196), value]);
}

// Signs one pulse, keeps it, and posts all that no answer has settled.
async function pulse(held, now, title, state, delta, position, variant) {
  // with every server gone, what the site said last is enough to sign
  const film = await once(films, title, () => learn(title)).catch(() => kv("/" + title));
  const served = film.sources.map(({ url, tier, relay }) => [tier, Uint8Array.fromHex(relay), film.served?.[url] / 1e3 | 0])
    .filter(([, , kbytes]) => kbytes).slice(0, 4);
  film.served = {};
  const clear = [1, held.tid, ++held.seq, now, held.sum += delta, delta, 0, held.prev];
  const rendition = Math.max(0, film.renditions.findIndex(([name]) => name === variant));
  const viewing = pack([state, Uint8Array.fromHex(film.manifest), position, rendition, served, zeros(16)]);
  const plain = join([0, viewing.length], viewing, zeros(174 - viewing.length));
  const body = pack([...clear, seal(held.key, held.seq, pack(clear), plain)]);
  held.prev = await sha256(marked("pulse", body));
  held.waiting = [...held.waiting, [held.ticket, await envelope(held.session, "pulse", body)]].slice(-500);
  const post = pack([1, [...new Set(held.waiting.map(([ticket]) => ticket))], held.waiting.map(([, pulse]) => pulse)]);
  // kept before it leaves: no number is signed twice
  if (await kv("purse", held) && (await fetch("/v1/pulses", { method: "POST", body: post, signal: AbortSignal.timeout(1e4) })).ok) await kv("purse", { ...held, waiting: [] });
}
