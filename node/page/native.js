// The browser's own HLS, where hls.js is not. It says nothing of a part that failed and never asks for it again:
// which one that was is read from the browser's list of requests, the gateway is asked why, and the film goes on.

const LOOK_MS = 1000;
const STUCK_LOOKS = 4;
const ENOUGH_MS = 200;
const PART = /\.(m3u8|m4s|mp4)$/;

export class Native {
  constructor(engine, folder) {
    const { video } = engine;
    Object.assign(this, { engine, video, missing: "", since: 0, place: 0, still: 0, asking: false });
    new PerformanceObserver((list) => { for (const one of list.getEntries()) { this.note(one, folder); } })
      .observe({ type: "resource", buffered: true });
    video.addEventListener("loadedmetadata", () => this.begin());
    for (const from of [video, video.querySelector("source")]) { from.addEventListener("error", () => this.fail()); }
    video.addEventListener("seeking", () => this.forget());
    setInterval(() => this.look(), LOOK_MS);
  }

  /** A request is over: one that brought nothing has no status or no body, and counts until the same brings something. */
  note({ name, responseStatus, decodedBodySize, initiatorType, startTime }, folder) {
    if (initiatorType !== "video" || startTime < this.since || !name.startsWith(folder) || !PART.test(name)) { return; }
    if (responseStatus === 0 || responseStatus >= 400 || !decodedBodySize) { this.missing = name; }
    else if (name === this.missing) { this.missing = ""; }
  }

  /** What was asked for until now was broken off by us. */
  forget() { [this.missing, this.since] = ["", performance.now()]; }

  begin() {
    const { engine, video } = this;
    if (engine.start) { video.currentTime = engine.start; }
    const ours = video.querySelectorAll("track");
    if (video.textTracks.length > ours.length) { ours.forEach((one) => one.remove()); } // it has them of the film itself
    engine.onTracks();
  }

  look() {
    const { video } = this;
    const moves = video.paused || video.ended || video.currentTime !== this.place;
    this.still = moves ? 0 : this.still + 1;
    this.place = video.currentTime;
    if (this.still >= STUCK_LOOKS && this.missing) { this.still = 0; this.fail(); }
  }

  /** It does not go on: ask for what was missing, as little of it as can be, and go on once that is there. */
  async fail() {
    if (this.asking) { return; }
    this.asking = true;
    await new Promise((done) => { setTimeout(done, ENOUGH_MS); }); // the list of requests is written a little later
    const answer = await fetch(this.missing || this.engine.source, { headers: { range: "bytes=0-0" } }).catch(() => null);
    const text = await answer?.text().catch(() => null); // null: the gateway promised it, and it never came
    const here = answer?.ok && text !== null;
    this.asking = false;
    if (!here) { this.engine.refused(answer && !answer.ok ? answer.status : 0, text ?? "", true, () => this.fail()); }
    else if (this.missing) { this.again(); }
    else if (this.failed) { this.engine.tell("This browser does not play the film. Open it in VLC: the button is below.", () => location.reload()); }
  }

  get failed() { return this.video.error || this.video.networkState === HTMLMediaElement.NETWORK_NO_SOURCE; }

  again() {
    const { engine, video } = this;
    const playing = !video.paused;
    this.forget();
    engine.start = video.currentTime || engine.start;
    video.load();
    if (playing) { video.play().catch(() => {}); }
  }
}
