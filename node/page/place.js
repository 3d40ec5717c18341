// Where this title is, told to this box alone, so that it can be gone on with.

const EVERY_MS = 10000;

export class Place {
  constructor(video, address) {
    Object.assign(this, { video, address, told: -1, at: 0 });
    video.addEventListener("timeupdate", () => { if (performance.now() - this.at > EVERY_MS) { this.note(); } });
    addEventListener("pagehide", () => this.note());
  }

  note() {
    const place = Math.round((this.video.ended ? this.video.duration : this.video.currentTime) * 1000);
    if (!this.video.readyState || place === this.told) { return; }
    [this.told, this.at] = [place, performance.now()];
    const body = JSON.stringify({ position_ms: place });
    fetch(this.address, { method: "POST", body, keepalive: true }).catch(() => {}); // it is told again soon
  }
}
