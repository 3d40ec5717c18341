"use strict";
// One player on an empty page. Every 20 ms it is noted whether the picture advanced and how late this
// note itself is, so that a machine without time for us is told from a film without data.
window.stage = (() => {
  const STEP_MS = 20, GAP_MS = 250;
  const seen = { startup_ms: null, gaps: [], samples: 0, late_ms: 0, errors: [] };
  let video = null, began = 0, place = null, moved = 0, due = 0, open = null;

  function ahead() {
    const ranges = video.buffered;
    for (let i = 0; i < ranges.length; i += 1) {
      if (ranges.start(i) <= video.currentTime + 0.1 && ranges.end(i) >= video.currentTime) {
        return ranges.end(i) - video.currentTime;
      }
    }
    return 0;
  }

  function close(now) {
    if (open && now - moved > GAP_MS) { seen.gaps.push({ ...open, ms: Math.round(now - moved) }); }
    open = null;
  }

  function note() {
    const now = performance.now(), late = Math.max(0, now - due);
    due = now + STEP_MS;
    seen.late_ms = Math.max(seen.late_ms, late);
    seen.samples += 1;
    if (seen.startup_ms === null) {
      if (video.currentTime > 0 && !video.paused && video.readyState >= 2) {
        if (place !== null && video.currentTime > place) {
          seen.startup_ms = Math.round(now - began);
          moved = now;
        }
        place = video.currentTime;
      }
      return;
    }
    if (video.currentTime !== place || video.paused || video.ended) {
      close(now);
      place = video.currentTime;
      moved = now;
    } else if (open === null) {
      open = { at_s: place, ahead_s: ahead(), late_ms: late };
    } else {
      open.late_ms = Math.max(open.late_ms, late);
    }
  }

  function complain(what) { if (seen.errors.length < 20) { seen.errors.push(String(what).slice(0, 300)); } }

  const players = {
    hls(url, options) {
      const hls = new Hls(options);
      hls.on(Hls.Events.ERROR, (_, data) => {
        complain(`${data.fatal ? "fatal " : ""}${data.details}${data.response ? ` ${data.response.code}` : ""}`);
      });
      hls.loadSource(url);
      hls.attachMedia(video);
    },
    async shaka(url, options) {
      shaka.polyfill.installAll();
      const player = new shaka.Player();
      player.addEventListener("error", (event) => complain(`shaka ${event.detail.code}`));
      await player.attach(video);
      player.configure(options);
      await player.load(url);
    },
    dash(url, options) {
      const player = dashjs.MediaPlayer().create();
      player.updateSettings(options);
      player.on("error", (event) => complain(`dash.js ${event.error.code} ${event.error.message}`));
      player.initialize(video, url, true);
    },
    native(url) { video.src = url; },
  };

  return {
    play(kind, url, options) {
      document.title = kind;
      document.body.replaceChildren();
      document.body.style.cssText = "margin:0;background:#222";
      video = document.createElement("video");
      video.style.cssText = "width:640px;height:360px";
      video.muted = true;
      video.autoplay = true;
      video.playsInline = true;
      video.addEventListener("error", () => complain(`video ${video.error.code} ${video.error.message}`));
      document.body.append(video);
      began = performance.now();
      due = began + STEP_MS;
      setInterval(note, STEP_MS);
      Promise.resolve(players[kind](url, options)).catch((error) => complain(error.code || error));
    },
    now() {
      return {
        position_s: video.currentTime, ahead_s: ahead(), ended: video.ended, paused: video.paused,
        started: seen.startup_ms !== null, errors: seen.errors,
      };
    },
    seen() {
      const now = performance.now(), gaps = [...seen.gaps];
      if (open && now - moved > GAP_MS) { gaps.push({ ...open, ms: Math.round(now - moved) }); }
      const { totalVideoFrames, droppedVideoFrames } = video.getVideoPlaybackQuality();
      return { ...seen, gaps, frames: totalVideoFrames, dropped: droppedVideoFrames };
    },
  };
})();
