"use strict";
// The web player: checked by the Service Worker where there is one, else steered from server to server.
const video = document.getElementById("video"), { title } = video.dataset, worker = navigator.serviceWorker;
const say = (text, line = "line") => { document.getElementById(line).textContent = text; };
let teller, hls, retry, last, rate = video.playbackRate, before = rate, turned = -Infinity, wall = 0, media = 0, told = 0;

function begin(checked) {
  const able = window.Hls?.isSupported();
  checked &&= able; // a browser's own HLS may load past the worker
  say(checked ? "Every block is checked in this browser." : "This browser cannot check what the servers send.", "check");
  const source = `/${checked ? "watch" : "web"}/${title}/master.m3u8`;
  if (!able) { video.src = source; return; }
  // the worker answers with whole segments and asks the next server itself; without it hls.js is to ask the next one soon
  const policy = { default: checked ? { ...Hls.DefaultConfig.fragLoadPolicy.default, maxTimeToFirstByteMs: 6e4 }
    : { maxTimeToFirstByteMs: 1500, maxLoadTimeMs: 2e4, timeoutRetry: null, errorRetry: null } };
  hls = new Hls({ enableWorker: false, fragLoadPolicy: policy, playlistLoadPolicy: policy });
  hls.on(Hls.Events.ERROR, (_, { type, details, fatal, url, frag, networkDetails }) => {
    const [level] = hls.levels, media = type === "mediaError", place = address => new URL(address, location).host;
    if (!checked && level && type === "networkError" && place(url ?? frag?.url) === place(level.uri)) {
      const gone = level.attrs["PATHWAY-ID"]; // hls.js would try this server's other variants first
      hls.pathwayPriority = [...(hls.pathwayPriority ?? hls.pathways).filter(way => way !== gone), gone];
    }
    const again = () => {
      if (!fatal) return;
      say(`${media ? "This browser cannot play" : "No server sends"} the next part; trying again.`);
      clearTimeout(retry);
      retry = setTimeout(() => {
        const { currentTime, paused } = video;
        if (media) hls.recoverMediaError(); // empties the video and lets it stand
        if (level) hls.startLoad(currentTime || -1); else hls.loadSource(source);
        if (!paused) video.play().catch(() => {});
      }, 2e3);
    };
    if (details.startsWith("key")) { // a refusal says why; all else may pass
      new Response(networkDetails?.status < 500 ? networkDetails.response : "").json().then(({ detail }) => say(detail), again);
    } else if (fatal && details.includes("Codec")) say("This browser cannot play this title.");
    else again();
  });
  hls.loadSource(source);
  hls.attachMedia(video);
}

// Viewed time is wall time in which the media advanced, so late timers in hidden tabs lose nothing. Both are
// summed up before the smaller one counts: what one timer reads late, the next makes good. Right after a change
// of speed the sound that was mixed before is still heard at the old one, so the slower of both counts.
function fold() {
  const now = performance.now(), place = video.currentTime;
  if (last) {
    const passed = now - last.now, moved = Math.max(0, place - last.place) * 1e3;
    wall += passed;
    media += last.now - turned > 200 ? moved / rate : Math.min(passed, moved / Math.min(rate, before));
  }
  last = !video.paused && { now, place };
  if (Date.now() - told > 6e4) tell();
}

function tell() {
  const now = Date.now(), state = told ? now - told > 3e5 ? 3 : 2 : 1; // the origin judges by its clock
  const due = Math.min(wall, media), delta = state === 2 ? Math.min(due, 121e3) | 0 : 0;
  if (!teller?.active || due < 1) return;
  wall = media = due - delta;
  told = now;
  teller.active.postMessage({ watched: [title, state, delta, video.currentTime * 1e3 | 0, hls?.levels[hls.currentLevel]?.attrs["STABLE-VARIANT-ID"]] });
}

const flush = () => { fold(); tell(); };
const on = (name, act, on = video) => on.addEventListener(name, act);
on("loadeddata", () => say("Ready"));
on("timeupdate", fold);
on("ratechange", () => {
  fold();
  [before, rate, turned] = [rate, video.playbackRate || 1, performance.now()];
});
on("playing", () => { say("Playing"); fold(); });
on("waiting", () => say("Waiting for the next part"));
on("seeking", () => {
  const played = last ? Math.min(performance.now() - last.now, 250) : 0;
  wall += played;
  media += played;
  last = null;
});
on("pause", () => { say(video.ended ? "The end" : "Paused"); flush(); });
on("pagehide", flush, window);

async function ready() {
  if (!worker || !Uint8Array.fromHex) return false;
  const control = new Promise(done => on("controllerchange", done, worker));
  const account = localStorage.getItem("enrolled") ? "?account" : "", made = await worker.register("/web/sw.js" + account);
  teller = account && made;
  return worker.controller ?? control;
}
Promise.race([ready().catch(() => false), new Promise(done => setTimeout(done, 5e3))]).then(begin);
