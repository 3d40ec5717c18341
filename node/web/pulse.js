"use strict";
// The pulse snippet, in the Service Worker: what an enrolled browser says of its own watching
// (docs/protocol.md, section 6), signed by the day's key, which never leaves the browser.
const zeros = size => Array(size).fill(0);

// ChaCha20-Poly1305 (RFC 8439): browsers do not bring it.
function chacha(key, counter, nonce) {
  const start = [...new Uint32Array(join(ascii("expand 32-byte k"), key, [counter, 0, 0, 0], nonce).buffer)], x = [...start];
  for (let round = 0; round < 20; round++) {
    for (let at = 0; at < 4; at++) {
      const [a, b, c, d] = [0, 4, 8, 12].map((row, step) => row + (at + round % 2 * step) % 4);
      for (const [i, j, k, turn] of [[a, b, d, 16], [c, d, b, 12], [a, b, d, 8], [c, d, b, 7]]) {
        x[k] ^= x[i] = x[i] + x[j] | 0;
        x[k] = x[k] << turn | x[k] >>> 32 - turn;
      }
    }
  }
  return new Uint8Array(Uint32Array.from(x, (word, at) => word + start[at]).buffer);
}

function seal(key, seq, clear, plain) {
  const nonce = [...zeros(10), seq >> 8, seq & 255], number = data => data.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);
  const box = plain.map((byte, at) => byte ^ chacha(key, 1 + (at >> 6), nonce)[at & 63]), once = chacha(key, 0, nonce);
  const all = join(clear, zeros(-clear.length & 15), box, [clear.length], zeros(7), [box.length], zeros(7));
  let sum = 0n; // Poly1305: the box is whole blocks, both lengths are below 256
  for (let at = 0; at < all.length; at += 16) {
    sum = (sum + number(join(all.slice(at, at + 16), [1]))) * (number(once.slice(0, 16)) & 0xffffffc0ffffffc0ffffffc0fffffffn) % (2n ** 130n - 5n);
  }
  sum += number(once.slice(16, 32));
  return join(box, zeros(16).map((_, at) => Number(sum >> BigInt(8 * at) & 255n)));
}

// Signs one pulse, keeps it, and posts all that no answer has settled.
async function pulse({ title, state, delta, position, variant }) {
  const device = await kv("device"), now = Date.now();
  if (!device) return;
  const film = await once(films, title, () => learn(title)), held = await purse(device, now);
  const served = film.sources.map(({ url, tier, relay }) => [tier, Uint8Array.fromHex(relay), (film.served[url] ?? 0) / 1e3 | 0])
    .filter(([, , kbytes]) => kbytes).slice(0, 4);
  film.served = {};
  const clear = [1, held.tid, ++held.seq, now, held.sum += delta, delta, 0, held.prev];
  const viewing = pack([state, Uint8Array.fromHex(film.manifest), position, Math.max(0, film.renditions.indexOf(variant)), served, join(zeros(16))]);
  const plain = join([0, viewing.length], viewing, zeros(174 - viewing.length));
  const body = pack([...clear, seal(held.key, held.seq, pack(clear), plain)]);
  held.prev = await sha256(join(domain("pulse"), body));
  held.waiting = [...held.waiting, [held.ticket, await envelope(held.session, "pulse", body)]].slice(-500);
  await kv("purse", held); // before it leaves: no number is signed twice
  const tickets = new Map(held.waiting.map(([ticket]) => [ticket.toHex(), ticket]));
  const post = pack([1, [...tickets.values()], held.waiting.map(([, pulse]) => pulse)]);
  if ((await fetch("/v1/pulses", { method: "POST", body: post, keepalive: true })).ok) await kv("purse", { ...held, waiting: [] });
}
