"""A browser without a node: steered by hls.js, checked by the Service Worker, paid by the pulse snippet."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Generator
from importlib.resources import files
from pathlib import Path
from shutil import copytree
from typing import Any
from urllib.parse import urlsplit

import pytest

from farcast.origin.keys import Keys
from farcast.origin.pulses.admission import arrival, open_frame
from farcast.origin.pulses.segments import SegmentLog
from farcast.protocol.pulse import (
    ACTIVE,
    START,
    Pulse,
    Viewing,
    check_pulse,
    open_viewing,
    pulse_hash,
    read_pulse,
    ticket_hash,
)
from farcast.protocol.ticket import TicketOffice, open_ticket
from farcast.tests.browser.unaided import (
    KEPT,
    NO_SOURCES,
    NO_WORKER,
    SMALL_BUFFER,
    WATCH,
    Town,
    play,
    prepare,
    town,
)
from farcast.tests.system.chromium import Tab
from farcast.tests.wire.street import until

RESOURCES = """
performance.getEntriesByType("resource").map(entry => ({ name: entry.name, end: entry.responseEnd }))
"""

log = logging.getLogger(__name__)

SCREENS = Path(__file__).resolve().parents[2] / "build" / "screens"
STALL_LIMIT_MS = 250
"""A playhead is looked at every 20 ms on a busy machine; less than this nobody sees."""
SWITCH_LIMIT_S = 3.0
LOOK_MS = 40
"""What two looks at the playhead may miss."""
BUFFER_S = 8
SHORT_BUFFER_S = 4
BROKEN = ("refuse", "hang", "halfway", "slow", "cut", "flip")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Town]:
    if not files("farcast.node.page").joinpath("vendor/hls.min.js").is_file():
        pytest.skip("hls.js is not here: `make page` brings it where npm is installed")
    with town(tmp_path_factory.mktemp("unaided")) as found:
        yield found


@pytest.fixture
def cdn(site: Town) -> Generator[Callable[[str], int]]:
    """Return the switch of the CDN, good again afterwards."""
    yield site.cdn.turn
    site.cdn.turn("good")


async def seen(tab: Tab) -> dict[str, Any]:
    return dict[str, Any](await tab.evaluate("window.seen"))


def first_after(entries: list[dict[str, Any]], place: str, at_ms: float) -> float:
    """Return how many seconds after ``at_ms`` the first segment from ``place`` was there."""
    found = [
        row["end"] for row in entries
        if row["name"].startswith(place) and ".m4s" in row["name"] and row["end"] > at_ms
    ]  # fmt: skip
    assert found, f"no segment ever came from {place}"
    return float(min(found) - at_ms) / 1_000


def noticed_ms(asked: list[dict[str, Any]], place: str, at_ms: float) -> float:
    """Return when a request first met the fault that ``place`` has since ``at_ms``."""
    met = [
        max(row["at"], at_ms) for row in asked
        if row["url"].startswith(place) and (row["end"] is None or row["end"] > at_ms)
    ]  # fmt: skip
    assert met, f"nobody asked {place} again"
    return float(min(met))


@pytest.mark.parametrize("fault", ["refuse", "stopped"])
async def test_steered_players_reach_the_next_tier_in_time(
    site: Town, tab: Tab, cdn: Callable[[str], int], fault: str
) -> None:
    """Where a browser has no Service Worker: a CDN killed, or stopped in the middle of everything."""
    until(site.steers_to_the_cdn, 15)  # the relay has forgotten the fault before
    await prepare(tab, NO_WORKER, SMALL_BUFFER % (BUFFER_S, BUFFER_S), WATCH)
    await play(tab, f"{site.relay}/web/film", 2)
    assert "cannot check" in await tab.evaluate("document.getElementById('check').textContent")
    at_ms = float(await tab.evaluate("performance.now()"))
    assert first_after(await tab.evaluate(RESOURCES), site.cdn.url, 0) > 0
    try:
        if fault == "stopped":
            site.cdn.process.send_signal(signal.SIGSTOP)
        else:
            cdn("refuse")
        await tab.until("document.getElementById('video').currentTime > 11", 30)
    finally:
        site.cdn.process.send_signal(signal.SIGCONT)
    found = await seen(tab)
    met_ms = noticed_ms(found["asked"], site.cdn.url, at_ms)
    switch_s = first_after(await tab.evaluate(RESOURCES), site.relay, met_ms)
    log.info("%s: %.2f s to the relay, playhead stood %.0f ms", fault, switch_s, found["longest"])
    assert switch_s <= SWITCH_LIMIT_S
    assert found["samples"] > 100
    assert found["longest"] <= STALL_LIMIT_MS


CLONED = """
(async () => {
  const text = await (await fetch("/web/film/master.m3u8")).text(), kept = [];
  const rows = text.split("\\n");
  for (let at = 0; at < rows.length; at++) {
    if (!rows[at].includes("relay-")) kept.push(rows[at]);
    else if (rows[at].startsWith("#EXT-X-STREAM-INF")) at++; // and its address on the next line
  }
  const known = kept.map(row => row.replace(/(URI=")[/]/g, `$1${location.origin}/`)
    .replace(/^[/]/, `${location.origin}/`)).join("\\n");
  const hls = window.cloned = new Hls({ enableWorker: false, maxBufferLength: 4 });
  hls.loadSource(URL.createObjectURL(new Blob([known])));
  hls.attachMedia(document.createElement("video"));
  return known.includes("relay-");
})()
"""
"""Another player on the page, whose master is older than the relay."""


async def test_a_relay_that_the_master_lacks_is_learned_from_the_steering_server(
    site: Town, tab: Tab
) -> None:
    """On its odd port, which players leave out of a HOST: by the address of each playlist."""
    await prepare(tab, NO_WORKER, WATCH)
    await tab.call("Page.setBypassCSP", enabled=True)
    await tab.go(f"{site.origin}/web/film")
    assert await tab.evaluate(CLONED) is False
    await tab.until("cloned.pathways.some(way => way.startsWith('relay-'))", 10)
    await tab.until("cloned.media.buffered.length", 20)  # hls.js may never begin if it is sent away before
    await tab.evaluate("cloned.pathwayPriority = cloned.pathways.filter(way => way.startsWith('relay-'))")
    await tab.evaluate("cloned.currentLevel = 0; cloned.media.currentTime = 15")
    await tab.until(f"({RESOURCES}).some(row => row.name.startsWith('{site.relay}/watch/film/'))", 20)


async def test_native_players_live_on_the_redundant_variants(
    site: Town, tab: Tab, cdn: Callable[[str], int]
) -> None:
    """Chromium's own HLS asks no steering server; the other servers' variants are in the same master."""
    await prepare(tab, NO_WORKER, NO_SOURCES, WATCH)
    if not await tab.evaluate("document.createElement('video').canPlayType('application/vnd.apple.mpegurl')"):
        pytest.skip("this Chromium has no HLS of its own")
    await play(tab, f"{site.relay}/web/film", 1, rate=2)
    source = str(await tab.evaluate("document.getElementById('video').src"))
    assert source == f"{site.relay}/web/film/master.m3u8"
    cdn("refuse")
    await tab.until("document.getElementById('video').currentTime > 8", 20)


@pytest.mark.parametrize("fault", BROKEN)
async def test_checked_players_never_stop_and_see_no_wrong_byte(
    site: Town, tab: Tab, cdn: Callable[[str], int], fault: str
) -> None:
    await prepare(tab, SMALL_BUFFER % (SHORT_BUFFER_S, SHORT_BUFFER_S), WATCH)
    await play(tab, f"{site.relay}/web/film", 2, rate=2)
    assert "Every block is checked" in await tab.evaluate("document.getElementById('check').textContent")
    before, sent = cdn("good"), site.relay_sent_bytes()
    cdn(fault)
    await tab.until("document.getElementById('video').currentTime > 9", 30)
    spoiled = cdn("good") - before
    found = await seen(tab)
    log.info("%s: playhead stood %.0f ms, %d answers spoiled", fault, found["longest"], spoiled)
    assert spoiled or fault == "refuse", "the CDN was asked while it was bad"
    assert site.relay_sent_bytes() > sent + 100_000, "the relay knew the blocks it was asked for"
    assert found["longest"] <= STALL_LIMIT_MS
    files_given: list[tuple[str, str]] = found["files"]
    given = [(urlsplit(url).path.removeprefix("/watch/film/"), digest) for url, digest in files_given]
    assert sum(".m4s" in path for path, _ in given) >= 8
    assert [(path, digest) for path, digest in given if site.digests[path] != digest] == []


async def test_a_relays_page_plays_on_when_the_relay_itself_is_gone(site: Town, tab: Tab) -> None:
    """The page's own server is one of many: what it said of the title holds, in a worker begun anew too."""
    await prepare(tab, SMALL_BUFFER % (SHORT_BUFFER_S, SHORT_BUFFER_S), WATCH)
    await play(tab, f"{site.relay}/web/film", 2, rate=2)
    site.relay_box.process.send_signal(signal.SIGSTOP)
    try:
        await tab.call("ServiceWorker.enable")
        await tab.call("ServiceWorker.stopAllWorkers")
        await tab.until("document.getElementById('video').currentTime > 9", 30)
        found = await seen(tab)
    finally:
        site.relay_box.process.send_signal(signal.SIGCONT)
    assert found["longest"] <= STALL_LIMIT_MS


FAILS = "kept.trigger(Hls.Events.ERROR, {{ type: 'mediaError', details: '{}', fatal: true, error: Error() }})"


async def test_a_failed_decoder_is_begun_anew_and_a_codec_that_is_not_there_is_said(
    site: Town, tab: Tab
) -> None:
    await prepare(tab, KEPT)
    await play(tab, f"{site.relay}/web/film", 2)
    video, line = "document.getElementById('video')", "document.getElementById('line').textContent"
    await tab.evaluate("kept.currentLevel = 0")
    await tab.evaluate(FAILS.format("bufferAppendError"))
    assert "trying again" in await tab.evaluate(line)
    await tab.until(f"{video}.currentTime > 4 && {line} === 'Playing'", 20)
    await tab.evaluate("kept.levels[1].details = undefined; kept.nextLevel = 1")  # a playlist is asked for
    await tab.until("kept.currentLevel === 1", 20)
    await tab.evaluate(FAILS.format("bufferIncompatibleCodecsError"))
    assert "cannot play this title" in await tab.evaluate(line)


async def test_an_invited_browser_is_enrolled_and_its_watching_counted(
    site: Town, tab: Tab, tmp_path: Path
) -> None:
    await prepare(tab, WATCH)
    link = await asyncio.to_thread(site.invite, "cleo")
    await tab.go(f"{site.origin}/web/")
    await _enrol(tab, link.replace("token=", "token=wrong-"))
    await tab.until("document.getElementById('line').textContent.startsWith('Not enrolled')", 10)
    await _enrol(tab, link)
    await tab.until("document.getElementById('line').textContent.includes('is enrolled')", 10)
    before = site.origin_box.api("/api/origin/pulses")["accepted"]
    await tab.go(f"{site.origin}/web/film")
    await tab.until("document.getElementById('video').readyState > 2", 20)  # left unwatched: nothing is told
    await play(tab, f"{site.origin}/web/film", 3)
    video = "document.getElementById('video')"
    await tab.evaluate(f"{video}.playbackRate = 2")
    await tab.until(f"{video}.currentTime > 9", 20)
    await tab.evaluate(f"{video}.pause()")
    advanced_ms = float((await seen(tab))["advanced"])
    await _accepted(site, before + 2)
    await tab.evaluate(f"{video}.playbackRate = 1; {video}.play()")
    await asyncio.sleep(1.5)
    await tab.go(f"{site.relay}/healthz")  # left in the middle: the last stretch is told as the page goes
    await _accepted(site, before + 3)
    counts = site.origin_box.api("/api/origin/pulses")
    assert not counts["rejected"]
    pulses = _pulses(site.origin_box.home, tmp_path / "intake")
    assert [pulse.seq for pulse, _ in pulses] == [1, 2, 3]
    assert [viewing.state for _, viewing in pulses] == [START, ACTIVE, ACTIVE]
    assert sum(served.kbytes for _, viewing in pulses for served in viewing.served) > 100
    counted_ms = pulses[1][0].cum_ms
    log.info("%d ms signed for, the playhead advanced for %.0f ms", counted_ms, advanced_ms)
    assert advanced_ms > 5_000
    assert abs(counted_ms - advanced_ms) <= advanced_ms / 100 + LOOK_MS
    assert 1_000 <= pulses[2][0].delta_ms <= 2_500


async def test_a_sealed_title_says_what_it_needs_and_plays_for_the_invited(site: Town, tab: Tab) -> None:
    await tab.go(f"{site.origin}/web/secret")
    await tab.until("document.getElementById('line').textContent.includes('needs a ticket')", 15)
    await tab.go(f"{site.origin}/web/")
    await _enrol(tab, await asyncio.to_thread(site.invite, "dora"))
    await tab.until("document.getElementById('line').textContent.includes('is enrolled')", 10)
    await play(tab, f"{site.origin}/web/secret", 2, rate=2)


async def _enrol(tab: Tab, link: str) -> None:
    await tab.evaluate(f"document.getElementById('link').value = {link!r}")
    await tab.evaluate("document.getElementById('join').requestSubmit()")


async def _accepted(site: Town, count: int) -> None:
    deadline = time.monotonic() + 10
    while site.origin_box.api("/api/origin/pulses")["accepted"] < count:
        assert time.monotonic() < deadline, site.origin_box.api("/api/origin/pulses")
        await asyncio.sleep(0.1)


def _pulses(home: Path, copy: Path) -> list[tuple[Pulse, Viewing]]:
    """Read the origin's intake log, verify every pulse as anybody would, and open it as the origin can."""
    copytree(home / "intake" / "seg", copy)
    keys = Keys(home)
    office = TicketOffice(keys.ticket, keys.ticket_secret)
    frames: list[bytes] = []
    SegmentLog(copy, frames.append).close()
    found: list[tuple[Pulse, Viewing]] = []
    link = b""
    for frame in map(open_frame, frames):
        parts = arrival(frame)
        ticket, signed = open_ticket(parts.tickets[0], [keys.ticket.key])
        for data in parts.pulses:
            pulse = check_pulse(data, ticket)
            assert pulse.prev == (link or ticket_hash(signed)), "each names the one before"
            link = pulse_hash(read_pulse(data)[1].body)
            found.append((pulse, open_viewing(pulse, office.key(pulse.tid))))
    return found


async def test_the_pages_have_no_violation_and_fit_a_phone(site: Town, tab: Tab) -> None:
    for name, url in {
        "web": f"{site.origin}/web/",
        "web-relay": f"{site.relay}/web/",
        "web-player": f"{site.origin}/web/film",
    }.items():
        for scheme in ("light", "dark"):
            for width in (1100, 360):
                await tab.scheme(scheme, width=width, height=900)
                await tab.go(url)
                await tab.until(
                    "!document.getElementById('video') || document.getElementById('check').textContent", 10
                )
                await tab.look(scheme, SCREENS / f"{name}-{scheme}-{width}.png", width=width, height=900)
                assert not await tab.axe(), (name, scheme, width)
                assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not tab.complaints
