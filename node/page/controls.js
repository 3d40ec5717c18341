// The bar below the picture: every control is a button, a slider or a list that a keyboard and a reader know.

const IDLE_MS = 3000;

export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes, left] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(left)}` : `${minutes}:${two(left)}`;
}

export class Controls {
  constructor(stage, video, engine, duration) {
    const get = (id) => document.getElementById(id);
    Object.assign(this, { stage, video, engine, duration, seek: get("seek"), now: get("now"), begin: get("begin") });
    Object.assign(this, { sound: get("sound"), subtitles: get("subtitles"), full: get("full"), volume: get("volume") });
    this.playButton = get("play");
    this.muteButton = get("mute");
    this.dragged = false;
    this.lastSubtitle = 0;
    video.removeAttribute("controls");
    this.wire();
    this.showTime();
  }

  wire() {
    const { video, stage } = this;
    for (const one of [this.begin, this.playButton]) { one.addEventListener("click", () => this.toggle()); }
    video.addEventListener("click", () => this.toggle());
    this.muteButton.addEventListener("click", () => this.toggleSound());
    this.full.addEventListener("click", () => this.toggleFull());
    this.volume.addEventListener("input", () => { video.volume = this.volume.value / 100; video.muted = false; });
    this.seek.addEventListener("input", () => { this.dragged = true; this.showTime(Number(this.seek.value)); });
    this.seek.addEventListener("change", () => { this.dragged = false; this.jumpTo(Number(this.seek.value)); });
    this.sound?.addEventListener("change", () => { this.engine.sound = this.sound.selectedIndex; });
    this.subtitles?.addEventListener("change", () => this.choose(Number(this.subtitles.value)));
    for (const event of ["timeupdate", "seeked", "loadedmetadata"]) { video.addEventListener(event, () => this.showTime()); }
    for (const event of ["play", "playing", "pause", "ended"]) { video.addEventListener(event, () => this.showPlaying()); }
    video.addEventListener("volumechange", () => this.showVolume());
    document.addEventListener("fullscreenchange", () => this.showFull());
    for (const event of ["pointermove", "keydown"]) { stage.addEventListener(event, () => this.stir()); }
    stage.addEventListener("dblclick", (event) => { if (event.target === video) { this.toggleFull(); } });
  }

  // -- acts

  toggle() {
    if (this.video.paused) { this.video.play().catch(() => {}); } else { this.video.pause(); }
  }

  /** Go to a second of the film; before anything is loaded, once it is. */
  jumpTo(seconds) {
    const at = Math.min(Math.max(0, seconds), Math.max(0, this.duration - 0.1));
    if (this.video.readyState) { this.video.currentTime = at; } else {
      this.engine.start = at;
      this.video.addEventListener("loadedmetadata", () => { this.video.currentTime = this.engine.start; }, { once: true });
    }
    this.showTime(at);
  }

  jumpBy(seconds) { this.jumpTo(this.place + seconds); }

  get place() { return this.video.readyState ? this.video.currentTime : this.engine.start; }

  toggleSound() { this.video.muted = !this.video.muted; }

  louder(by) {
    this.video.muted = false;
    this.video.volume = Math.min(1, Math.max(0, Math.round((this.video.volume + by) * 100) / 100));
  }

  toggleFull() {
    if (document.fullscreenElement) { document.exitFullscreen(); } else { this.stage.requestFullscreen?.(); }
  }

  toggleSubtitles() {
    const { names, chosen } = this.engine.subtitles;
    if (names.length) { this.choose(chosen >= 0 ? -1 : Math.min(this.lastSubtitle, names.length - 1)); }
  }

  choose(index) {
    if (index >= 0) { this.lastSubtitle = index; }
    this.engine.subtitle = index;
    if (this.subtitles) { this.subtitles.value = String(index); }
  }

  // -- shows

  /** Fill the lists of languages once the engine knows them. */
  offer() {
    const { sounds, subtitles, hls } = this.engine;
    fill(this.sound, sounds, []);
    fill(this.subtitles, subtitles, ["No subtitles"]);
    if (this.sound && !hls) { this.sound.parentElement.hidden = !sounds.names.length; } // Chromium's own HLS offers none
  }

  showTime(seconds = this.place) {
    if (this.dragged && seconds === this.place) { return; }
    const text = clock(seconds);
    if (this.now.textContent !== text) {
      this.now.textContent = text;
      this.seek.setAttribute("aria-valuetext", `${text} of ${clock(this.duration)}`);
    }
    if (!this.dragged) { this.seek.value = Math.round(seconds); }
  }

  showPlaying() {
    const playing = !this.video.paused && !this.video.ended;
    this.stage.classList.toggle("playing", playing);
    this.playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
    if (playing && !this.begin.hidden) {
      const held = document.activeElement === this.begin;
      this.begin.hidden = true;
      if (held) { this.playButton.focus(); }
    }
    this.stir();
  }

  showVolume() {
    const silent = this.video.muted || this.video.volume === 0;
    this.stage.classList.toggle("muted", silent);
    this.muteButton.setAttribute("aria-pressed", String(silent));
    this.volume.value = silent ? 0 : Math.round(this.video.volume * 100);
  }

  showFull() {
    const full = Boolean(document.fullscreenElement);
    this.full.setAttribute("aria-pressed", String(full));
    this.stir();
  }

  /** Show the bar again on a full screen, until nobody moves for a while. */
  stir() {
    this.stage.classList.remove("idle");
    clearTimeout(this.idle);
    if (document.fullscreenElement && !this.video.paused) {
      this.idle = setTimeout(() => this.stage.classList.add("idle"), IDLE_MS);
    }
  }
}

function fill(list, { names, chosen }, before) {
  if (!list || !names.length) { return; }
  const options = [...before.map((name) => new Option(name, "-1")), ...names.map((name, at) => new Option(name, String(at)))];
  list.replaceChildren(...options);
  list.value = String(chosen);
  list.disabled = false;
}
