// What feeds the video: hls.js wherever MSE is, for it reports to the gateway; else the browser's own HLS.

const AGAIN_MS = 4000;
const TELL = ["ps", "pr", "t", "e"];
const GONE = new Set([400, 401, 402, 403, 404, 410, 451]);

/** Read the sentence of a problem document (RFC 9457) out of a failed request; empty where there is none. */
function sentenceOf(request) {
  try {
    const text = request.response instanceof ArrayBuffer ? new TextDecoder().decode(request.response) : request.response;
    const { detail } = JSON.parse(text);
    return detail ? `${detail[0].toUpperCase()}${detail.slice(1)}.` : "";
  } catch { return ""; }
}

export class Engine {
  constructor(video, { source, cmcd, title, sid, start }) {
    this.video = video;
    this.source = source;
    this.start = start;
    this.onFault = () => {};
    this.onTracks = () => {};
    this.hls = null;
    this.timer = 0;
    this.healed = false;
    video.addEventListener("playing", () => { this.healed = false; this.clear(); });
    if (window.Hls?.isSupported()) { this.feed(cmcd, title, sid); } else { this.native(); }
  }

  feed(cmcd, title, sid) {
    takeOver(this.video);
    const hls = this.hls = new window.Hls({
      enableWorker: false, // a worker from a blob would need a wider content policy
      startPosition: this.start || -1,
      // the gateway changes tiers by itself, so a request is only given up once it said no
      fragLoadPolicy: { default: {
        maxTimeToFirstByteMs: 35000, maxLoadTimeMs: 120000,
        timeoutRetry: { maxNumRetry: 2, retryDelayMs: 0, maxRetryDelayMs: 0 },
        errorRetry: { maxNumRetry: 2, retryDelayMs: 1000, maxRetryDelayMs: 4000 },
      } },
      cmcd: {
        sessionId: sid, contentId: title, version: 2, useHeaders: false,
        eventTargets: [{ url: new URL(cmcd, location.href).href, events: TELL, interval: 10 }],
      },
    });
    const { Events, ErrorTypes } = window.Hls;
    hls.on(Events.ERROR, (_, data) => {
      if (data.type === ErrorTypes.NETWORK_ERROR) { this.missed(data); }
      else if (data.fatal && data.type === ErrorTypes.MEDIA_ERROR && !this.healed) {
        this.healed = true;
        hls.recoverMediaError();
      } else if (data.fatal) {
        this.tell("This browser cannot play this film. Open it in VLC: the button is below.", () => location.reload());
      }
    });
    const news = ["AUDIO_TRACKS_UPDATED", "AUDIO_TRACK_SWITCHED", "SUBTITLE_TRACKS_UPDATED", "SUBTITLE_TRACK_SWITCH"];
    for (const name of news) { hls.on(Events[name], () => this.onTracks()); }
    hls.on(Events.FRAG_LOADED, () => this.clear());
    hls.loadSource(this.source);
    hls.attachMedia(this.video);
  }

  native() {
    const { video } = this;
    video.addEventListener("loadedmetadata", () => {
      if (this.start) { video.currentTime = this.start; }
      this.onTracks();
    }, { once: true });
    const failed = async () => {
      const answer = await fetch(this.source).catch(() => null);
      const said = answer && !answer.ok ? sentenceOf({ response: await answer.text() }) : "";
      this.tell(said || "This browser does not play the film. Open it in VLC: the button is below.", () => location.reload());
    };
    video.addEventListener("error", failed);
    video.querySelector("source").addEventListener("error", failed);
  }

  /** A request failed: say what the gateway says; go on by itself where that can help. */
  missed(data) {
    const request = data.networkDetails ?? {};
    const status = data.response?.code ?? request.status ?? 0;
    const said = sentenceOf(request);
    if (GONE.has(status)) {
      if (data.fatal) { this.tell(said || `The box answered ${status}.`, () => this.again(data)); }
      return;
    }
    if (!said && !data.fatal) { return; }
    const why = said || "This box does not answer: is farcast still running?";
    this.tell(`${why} It goes on by itself as soon as something answers.`, () => this.again(data));
    if (data.fatal) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.again(data), AGAIN_MS);
    }
  }

  again(data) {
    if (document.hidden) { // an unwatched page asks nobody
      document.addEventListener("visibilitychange", () => this.again(data), { once: true });
    } else if (data.details?.startsWith("manifest")) {
      this.hls.loadSource(this.source);
      this.hls.startLoad(this.video.currentTime || -1);
    } else { this.hls.startLoad(this.video.currentTime || -1); }
  }

  tell(sentence, again) { this.told = true; this.onFault(sentence, again); }

  clear() {
    clearTimeout(this.timer);
    if (this.told) { this.told = false; this.onFault("", null); }
  }

  // -- languages

  /** The sounds to choose from, and which is on. */
  get sounds() {
    if (this.hls) { return named(this.hls.audioTracks, this.hls.audioTrack); }
    const tracks = [...(this.video.audioTracks ?? [])];
    return named(tracks.map(({ label, language }) => ({ name: label, lang: language })), tracks.findIndex((one) => one.enabled));
  }

  set sound(index) {
    if (this.hls) { this.hls.audioTrack = index; return; }
    [...this.video.audioTracks].forEach((track, at) => { track.enabled = at === index; });
  }

  get subtitles() {
    if (this.hls) { return named(this.hls.subtitleTracks, this.hls.subtitleTrack); }
    const tracks = [...this.video.textTracks];
    return named(tracks.map(({ label, language }) => ({ name: label, lang: language })), tracks.findIndex((one) => one.mode === "showing"));
  }

  set subtitle(index) {
    if (this.hls) { this.hls.subtitleDisplay = index >= 0; this.hls.subtitleTrack = index; return; }
    [...this.video.textTracks].forEach((track, at) => { track.mode = at === index ? "showing" : "disabled"; });
  }
}

function takeOver(video) {
  video.querySelector("source")?.remove();
}

/** Name tracks as people do: by label, else by the language in the reader's own. */
function named(tracks, chosen) {
  const names = new Intl.DisplayNames(undefined, { type: "language", fallback: "code" });
  return {
    chosen,
    names: tracks.map(({ name, lang }, index) => {
      if (name && name !== lang) { return name; }
      try { return names.of(lang); } catch { return `Track ${index + 1}`; }
    }),
  };
}
