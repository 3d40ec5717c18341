// What feeds the video: hls.js wherever MSE is, for it reports to the gateway; else the browser's own HLS.
import { Native } from "./native.js";

const AGAIN_MS = 4000;
const TELL = ["ps", "pr", "t", "e"];
const GONE = new Set([400, 401, 402, 403, 404, 410, 451]);

/** Read the sentence of a problem document (RFC 9457); empty where there is none. */
function sentenceIn(text) {
  try {
    const { detail } = JSON.parse(text);
    return detail ? `${detail[0].toUpperCase()}${detail.slice(1)}.` : "";
  } catch { return ""; }
}

function waiting(why) { return `${why} It goes on by itself as soon as something answers.`; }

export class Engine {
  constructor(video, { source, cmcd, title, sid, start }) {
    this.video = video;
    this.source = source;
    this.start = start;
    this.trouble = "";
    this.onFault = () => {};
    this.onTracks = () => {};
    this.hls = null;
    this.timer = 0;
    this.healed = false;
    this.told = "";
    video.addEventListener("playing", () => { this.healed = false; this.clear(); });
    if (window.Hls?.isSupported()) { this.feed(cmcd, title, sid); }
    else { this.native = new Native(this, new URL(source, location.href).href.replace(/[^/]*$/, "")); }
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

  /** A request of hls.js failed. */
  missed(data) {
    const { networkDetails: request, response, fatal } = data;
    const body = request?.response;
    const text = body instanceof ArrayBuffer ? new TextDecoder().decode(body) : body;
    this.refused(response?.code ?? request?.status ?? 0, text, fatal, () => this.again(data));
  }

  /** Say what the gateway says of a request; go on by itself where that can help. */
  refused(status, text, fatal, again) {
    const said = sentenceIn(text);
    if (GONE.has(status)) {
      if (fatal) { this.tell(said || `The box answered ${status}.`, again); }
      return;
    }
    if (!said && !fatal) { return; }
    this.tell(waiting(said || this.trouble || "This box does not answer: is farcast still running?"), again);
    if (fatal) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => watched(again), AGAIN_MS);
    }
  }

  again(data) {
    if (data.details?.startsWith("manifest")) { this.hls.loadSource(this.source); }
    this.hls.startLoad(this.video.currentTime || -1);
  }

  /** What the gateway says of a part it has promised and has not got; the picture may run on meanwhile. */
  waits(trouble) {
    this.trouble = trouble;
    const sentence = waiting(trouble);
    if (trouble && this.dry && this.told !== sentence) { // said once: an alert is read out each time it is written
      this.tell(sentence, () => { this.told = ""; if (this.hls) { this.again({}); } else { this.native.again(); } });
    }
  }

  get dry() { return !this.video.paused && this.video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA; }

  tell(sentence, again) { this.told = sentence; this.onFault(sentence, again); }

  clear() {
    clearTimeout(this.timer);
    this.trouble = "";
    if (this.told) { this.told = ""; this.onFault("", null); }
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

  /** The browser's own subtitles, without what else a film carries in time. */
  get texts() { return [...this.video.textTracks].filter(({ kind }) => kind === "subtitles" || kind === "captions"); }

  get subtitles() {
    if (this.hls) { return named(this.hls.subtitleTracks, this.hls.subtitleTrack); }
    const tracks = this.texts;
    return named(tracks.map(({ label, language }) => ({ name: label, lang: language })), tracks.findIndex((one) => one.mode === "showing"));
  }

  set subtitle(index) {
    if (this.hls) { this.hls.subtitleDisplay = index >= 0; this.hls.subtitleTrack = index; return; }
    this.texts.forEach((track, at) => { track.mode = at === index ? "showing" : "disabled"; });
  }
}

function takeOver(video) {
  video.querySelectorAll("source, track").forEach((one) => one.remove());
}

/** Act now, or once somebody looks: an unwatched page asks nobody. */
function watched(act) {
  if (document.hidden) { document.addEventListener("visibilitychange", act, { once: true }); } else { act(); }
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
