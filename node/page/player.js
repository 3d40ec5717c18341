"use strict";
// Plays through the gateway with hls.js where MSE exists; the browser's own HLS sends no player events.
const video = document.getElementById("video");
const line = document.getElementById("line");
const { source, cmcd, title, facts } = video.dataset;

function say(text) { line.textContent = text; }

// A title that needs a ticket stops with the node's own sentence; anything else is a tier that failed.
async function explain() {
  let locked = "";
  try { locked = (await (await fetch(facts)).json()).locked; } catch { /* the node itself is gone */ }
  say(locked || "Playback stopped: no tier delivered the next part. Reload to try again.");
}

if (window.Hls && Hls.isSupported()) {
  const hls = new Hls({
    enableWorker: false, // a worker from a blob would need a wider content policy
    cmcd: {
      contentId: title, version: 2, useHeaders: false,
      eventTargets: [{ url: new URL(cmcd, location.href).href, events: ["ps", "t", "e"], interval: 10 }],
    },
  });
  hls.on(Hls.Events.ERROR, (_, data) => {
    if (data.fatal) { explain(); }
  });
  hls.on(Hls.Events.MANIFEST_PARSED, () => say("Ready"));
  hls.loadSource(source);
  hls.attachMedia(video);
} else if (video.canPlayType("application/vnd.apple.mpegurl")) {
  video.src = source;
  say("Ready (the browser's own player)");
} else {
  say("This browser plays no HLS. Run `make setup` with npm installed, or open the address below in mpv or VLC.");
}
video.addEventListener("playing", () => say("Playing"));
video.addEventListener("waiting", () => say("Waiting for the next part"));
video.addEventListener("pause", () => say("Paused"));
video.addEventListener("error", explain);
video.addEventListener("ended", () => say("The end"));
