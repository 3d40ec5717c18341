// How the film comes, while it plays and is looked at: which tier each segment came from, buffer, verified
// blocks, and why the next part is not here.

const LOOK_MS = 2000;
const TIERS = {
  cdn: ["C", "the CDN"], relay: ["R", "a relay"], mesh: ["N", "a neighbour"],
  satellite: ["S", "the satellite"], here: ["H", "this box"],
};

export class Live {
  constructor(video, address) {
    Object.assign(this, { video, address, timer: 0, on: false, onTrouble: () => {} });
    for (const id of ["source", "map", "legend", "buffer", "verified", "rejected"]) { this[id] = document.getElementById(id); }
    document.addEventListener("visibilitychange", () => { if (this.on && !document.hidden) { this.look(); } });
  }

  begin() { if (!this.on) { this.on = true; this.look(); } }

  rest() {
    this.on = false;
    this.look(); // once more, for what came last
  }

  async look() {
    clearTimeout(this.timer);
    try {
      const answer = await fetch(this.address);
      if (answer.ok) { this.show(await answer.json()); }
    } catch { this.onTrouble(""); /* the box is gone; the player says so */ }
    if (this.on && !document.hidden) { this.timer = setTimeout(() => this.look(), LOOK_MS); }
  }

  show({ segments, verified_blocks: verified, rejected_blocks: rejected, trouble }) {
    this.onTrouble(trouble);
    const { buffered, currentTime } = this.video;
    let ahead = 0;
    for (let at = 0; at < buffered.length; at += 1) {
      if (buffered.start(at) <= currentTime + 0.1 && buffered.end(at) > currentTime) { ahead = buffered.end(at) - currentTime; }
    }
    this.buffer.textContent = `${ahead.toFixed(0)} s`;
    this.verified.textContent = verified.toLocaleString();
    this.rejected.textContent = rejected.toLocaleString();
    if (segments.length) { this.draw(segments); }
  }

  draw(segments) {
    const last = segments.at(-1);
    this.source.textContent = last.tier === "here" ? "From this box" : `From ${TIERS[last.tier][1]}, ${last.ms} ms`;
    const counts = new Map();
    [...this.map.children].forEach((cell, at) => {
      const tier = segments[at]?.tier ?? "";
      if (cell.className !== tier) { cell.className = tier; cell.textContent = tier ? TIERS[tier][0] : ""; }
      if (tier) { counts.set(tier, (counts.get(tier) ?? 0) + 1); }
    });
    const parts = [...counts].map(([tier, count]) => `${count} from ${TIERS[tier][1]}`);
    const text = `The last ${segments.length} segments, oldest first: ${parts.join(", ")}`;
    if (this.map.getAttribute("aria-label") === text) { return; }
    this.map.setAttribute("aria-label", text);
    this.legend.replaceChildren(...[...counts].map(([tier, count]) => {
      const entry = document.createElement("span");
      const [key, number] = [document.createElement("i"), document.createElement("b")];
      key.className = tier;
      number.textContent = count;
      entry.append(key, number, ` from ${TIERS[tier][1]}`);
      return entry;
    }));
  }
}
