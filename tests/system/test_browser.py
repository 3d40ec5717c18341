"""A real Chromium on the node's page: it plays by hls.js, reports, and shows no fault; pictures are kept."""

from __future__ import annotations

import asyncio
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from farcast.tests.system.chromium import Tab
from farcast.tests.system.served import Served

SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
SCHEMES = ("light", "dark")
PLAYED_S = 6.0
STALL_LIMIT_MS = 250
START_TIMEOUT_S, REPORT_TIMEOUT_S = 15.0, 12.0
HEARTBEAT_S = 5.0

WATCH = """
(() => {
  const video = document.getElementById("video");
  const seen = { stalled: 0, longest: 0, samples: 0 };
  let place = null, moved = 0;
  window.seen = seen;
  setInterval(() => {
    const now = performance.now();
    if (video.paused || (place === null && video.currentTime === 0)) { place = null; return; }
    if (place === null || video.currentTime !== place) { place = video.currentTime; moved = now; }
    else if (now - moved > seen.longest) { seen.longest = now - moved; }
    seen.samples += 1;
  }, 20);
})()
"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture
def hls_js() -> None:
    if not files("farcast.node.page").joinpath("vendor/hls.min.js").is_file():
        pytest.skip("hls.js is not here: `make page` brings it where npm is installed")


def reporting(status: dict[str, Any]) -> dict[str, Any]:
    """Return the newest session whose player reports."""
    return next(row for row in status["sessions"] if row["reports"])


async def test_the_overview_shows_verdict_titles_and_tiers(served: Served, tab: Tab) -> None:
    await tab.go(f"{served.gateway}/")
    for scheme in SCHEMES:
        await tab.look(scheme, SCREENS / f"overview-{scheme}.png", height=980)
    await tab.look("light", SCREENS / "overview-narrow.png", width=400, height=980)
    text = await tab.evaluate("document.body.innerText")
    assert "Ready" in text
    assert all(word in text for word in ("Farcast evening", "0:48", "cdn", "relay", "mesh", "satellite"))
    assert await tab.evaluate("document.querySelector('.titles img').naturalWidth > 0")
    assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it overflows"
    assert not tab.complaints


async def test_every_box_shows_a_page_of_its_own(served: Served, tab: Tab) -> None:
    names = ("origin", "relay-1", "relay-2", "neighbour", "node")
    for name, url in zip(names, served.urls["pages"], strict=True):
        await tab.go(url)
        for scheme in SCHEMES:
            await tab.look(scheme, SCREENS / f"{name}-{scheme}.png", height=620)
        assert await tab.evaluate("document.querySelector('h1').innerText") == "Farcast demo", url
        assert await tab.evaluate("document.querySelectorAll('tbody tr').length > 3"), url
        assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), url
    assert not tab.complaints


async def test_the_player_page_plays_by_hls_js_without_a_stall_and_is_paid_for(
    served: Served, tab: Tab, hls_js: None
) -> None:
    del hls_js
    before = served.status()
    await tab.go(served.urls["player"])
    await tab.evaluate(WATCH)
    await tab.evaluate("document.getElementById('video').play()")
    await tab.until("document.getElementById('video').currentTime > 0", START_TIMEOUT_S)
    await tab.until(f"document.getElementById('video').currentTime > {PLAYED_S}", PLAYED_S * 2)
    for scheme in SCHEMES:
        await tab.look(scheme, SCREENS / f"player-{scheme}.png")
    assert await tab.evaluate("document.getElementById('line').textContent") == "Playing"
    assert (await tab.evaluate("document.getElementById('video').src")).startswith("blob:"), "not by hls.js"
    await tab.evaluate("document.getElementById('video').pause()")
    seen = await tab.evaluate("window.seen")
    played_s = float(await tab.evaluate("document.getElementById('video').currentTime"))
    assert played_s > 3
    assert seen["samples"] > 50
    assert seen["longest"] <= STALL_LIMIT_MS, seen
    after = await _told(served, before["pulses"]["signed"])
    assert reporting(after)["viewed_ms"] / 1000 == pytest.approx(played_s, abs=0.5)
    assert after["pulses"]["signed"] > before["pulses"]["signed"]
    assert any(request.startswith("POST") and request.endswith("/v1/cmcd") for request in tab.requests)
    assert not tab.complaints


async def _told(served: Served, signed: int) -> dict[str, Any]:
    """Wait until the gateway has heard of the pause and signed for what was watched."""
    deadline = time.monotonic() + REPORT_TIMEOUT_S
    while True:
        status = await asyncio.to_thread(served.status)
        paused = any(row["reports"] and not row["playing"] for row in status["sessions"])
        if (paused and status["pulses"]["signed"] > signed) or time.monotonic() > deadline:
            return status
        await asyncio.sleep(0.2)
