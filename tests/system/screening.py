"""A film on a real browser tab, by hls.js or the browser's own HLS, with an account of what it played."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from farcast.tests.system.chromium import Tab

HLS_JS = Path(__file__).parents[2] / "node" / "page" / "vendor" / "hls.min.js"
START_TIMEOUT_S = 20.0
Mode = Literal["events", "requests", "native"]
"""CMCD version 2 by events, version 1 with each request, or nothing at all."""

SCREEN = """
(({ mode, hls, cmcd, title, buffer }) => {
  document.body.innerHTML = "<video id=film width=320 height=180></video>";
  const video = document.getElementById("film");
  const seen = { advanced: 0, longest: 0, stretches: [], asked: 0 };
  let place = 0, at = performance.now(), moved = null;
  const look = () => {
    const now = performance.now(), gone = (now - at) / 1000, step = video.currentTime - place;
    if (step > 0 && step <= gone * video.playbackRate + 0.5 && !video.seeking) {
      seen.advanced += gone < 0.1 ? gone : Math.min(gone, step / video.playbackRate);
      const end = performance.timeOrigin + now, begin = end - gone * 1000, last = seen.stretches.at(-1);
      if (last && begin - last[1] < 100) { last[1] = end; } else { seen.stretches.push([begin, end]); }
      if (moved !== null) { seen.longest = Math.max(seen.longest, now - moved); }
      moved = now;
    } else if (video.paused || video.seeking) { moved = null; }
    place = video.currentTime; at = now;
  };
  setInterval(look, 20);
  window.screen_ = { video, seen, look };
  if (mode === "native") { video.src = hls; return true; }
  const target = { url: cmcd, events: ["ps", "pr", "t", "e"], interval: 10 };
  const player = new Hls({
    enableWorker: false, maxBufferLength: buffer, maxMaxBufferLength: buffer,
    cmcd: mode === "events" ? { contentId: title, version: 2, eventTargets: [target] } : { contentId: title },
  });
  player.on(Hls.Events.FRAG_LOADING, () => { seen.asked += 1; });
  player.loadSource(hls);
  player.attachMedia(video);
  window.screen_.player = player;
  return true;
})
"""


def together_s(stretches: list[tuple[float, float]]) -> float:
    """Return for how long at least one of the stretches lasted."""
    total_ms, until_ms = 0.0, 0.0
    for begin, end in sorted(stretches):
        total_ms += max(end - max(begin, until_ms), 0)
        until_ms = max(until_ms, end)
    return total_ms / 1_000


class Screening:
    """One tab that shows one film; any page of the gateway lends its origin."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    async def open(self, url: str, title: str, mode: Mode, *, buffer_s: int = 12) -> None:
        """Load the film of the gateway at ``url``; with hls.js at most ``buffer_s`` ahead."""
        await self._tab.call("Page.setBypassCSP", enabled=True)
        await self._tab.go(f"{url}/")
        if mode != "native":
            await self._tab.evaluate(HLS_JS.read_text("utf-8") + "; true")
        hls = f"{url}/watch/{title}/master.m3u8"
        facts = (
            f'{{mode: "{mode}", hls: "{hls}", cmcd: "{url}/v1/cmcd", title: "{title}", buffer: {buffer_s}}}'
        )
        await self._tab.evaluate(f"({SCREEN})({facts})")

    async def play(self) -> None:
        """Start, and wait for the picture to move."""
        await self._tab.evaluate("screen_.video.play().then(() => true)")
        await self._tab.until("screen_.video.currentTime > 0", START_TIMEOUT_S)

    async def asks(self) -> None:
        """Wait until hls.js has asked for another segment."""
        await self._tab.evaluate("screen_.known = screen_.seen.asked; true")
        await self._tab.until("screen_.seen.asked > screen_.known", START_TIMEOUT_S)

    async def pause(self) -> None:
        """Pause; first what was played is taken down: a hidden tab's timer looks once a second."""
        await self._tab.evaluate("screen_.look(); screen_.video.pause(); true")

    async def go_on(self) -> None:
        """Play on after a pause."""
        await self._tab.evaluate("screen_.video.play(); true")

    async def rate(self, rate: float) -> None:
        """Play so fast."""
        await self._tab.evaluate(f"screen_.video.playbackRate = {rate}; true")

    async def seek(self, position_s: float) -> None:
        """Move the playhead."""
        await self._tab.evaluate(f"screen_.video.currentTime = {position_s}; true")

    async def position_s(self) -> float:
        """Return the playhead."""
        return float(await self._tab.evaluate("screen_.video.currentTime"))

    async def advanced_s(self) -> float:
        """Return the wall seconds in which the playhead advanced."""
        return float(await self._tab.evaluate("screen_.look(), screen_.seen.advanced"))

    async def stretches(self) -> list[tuple[float, float]]:
        """Return when it advanced, as wall-clock milliseconds from and until."""
        found = await self._tab.evaluate("screen_.look(), screen_.seen.stretches")
        return [(begin, end) for begin, end in found]

    async def hide(self) -> None:
        """Put another tab before it, as a person does; its timers slow down."""
        await self._tab.cover()
        await self._tab.until("document.visibilityState === 'hidden'", START_TIMEOUT_S)
