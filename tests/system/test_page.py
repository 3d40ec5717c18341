"""The viewer's pages in a real Chromium: no violation in any state, everything by keyboard."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Callable, Generator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.demo.troupe import free_port
from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.locallistener import LocalListener
from farcast.node.http.tally import HttpMetrics
from farcast.node.page import Page, assets, viewerpage
from farcast.node.page.assets import there
from farcast.node.web.scripts import SCRIPTS
from farcast.protocol.errors import RefusedError
from farcast.tests.system.chromium import Tab
from farcast.tests.system.pagehouse import LIVE, PULSES, TITLE, TROUBLE, Cinema, shoot
from farcast.tests.wire.street import Box, Street, draw, side_by_side, until

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "build" / "screens"
TOKEN = "t" * 22
KEYS = {
    " ": ("Space", 32), "Tab": ("Tab", 9), "Enter": ("Enter", 13), "ArrowLeft": ("ArrowLeft", 37),
    "ArrowRight": ("ArrowRight", 39), "ArrowDown": ("ArrowDown", 40),
}  # fmt: skip
SHIFTED = """
new Promise(done => {
  new PerformanceObserver(seen => done(seen.getEntries().filter(e => !e.hadRecentInput)
    .reduce((sum, e) => sum + e.value, 0))).observe({ type: "layout-shift", buffered: true });
  requestAnimationFrame(() => setTimeout(() => done(0), 50)); // what has moved was told by then
})
"""
FOCUSED = "(e => e === document.body ? '' : e.id || e.textContent.trim())(document.activeElement)"
VIDEO = "document.getElementById('video')"
BUDGET_BYTES = 40_000
REAL_FILM = (
    "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=12:duration=128",
    "-f", "lavfi", "-i", "sine=frequency=440:duration=128",
    "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac",
)  # fmt: skip
"""Longer than a player fetches in a moment, so that another tier has to bring its end."""
REAL_TOML = """
title = "harbour"
name = "harbour"
language = "en"
[[payees]]
payee = "ada"
points = 10000
[[audio]]
file = "harbour.de.m4a"
language = "de"
label = "Deutsch"
[[subtitles]]
file = "harbour.de.srt"
language = "de"
label = "Deutsch"
"""
CUE = f"[...{VIDEO}.textTracks].filter(t => t.mode === 'showing').map(t => t.activeCues?.[0]?.text)[0]"
"""What is written below the picture now."""
OPTIONS = "[...document.getElementById('{}').options].map(one => one.textContent)"

Need = Callable[..., str]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture
def hls_js() -> None:
    if not files("farcast.node.page").joinpath("vendor/hls.min.js").is_file():
        pytest.skip("hls.js is not here: `make page` brings it where npm is installed")


@pytest.fixture
def no_hls_js(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hls.js be missing, as where npm never ran."""

    def but_hls_js(name: str) -> bool:
        return name != assets.HLS and there(name)

    for module in (assets, viewerpage):
        monkeypatch.setattr(module, "there", but_hls_js)


@pytest.fixture(scope="module")
def reel(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("reel")
    shoot(folder)
    return folder


@pytest.fixture
def cinema(reel: Path) -> Cinema:
    return Cinema(reel)


@pytest.fixture
async def base(cinema: Cinema) -> AsyncGenerator[str]:
    router = Router(Hosts(), token=TOKEN)
    Page(cinema, TOKEN).add_to(router)
    cinema.add_to(router)
    async with LocalListener(router, HttpMetrics(CollectorRegistry()), port=0) as listener:
        yield f"http://127.0.0.1:{listener.port}/{TOKEN}"


async def press(tab: Tab, key: str) -> None:
    """Press a key as a person does."""
    code, number = KEYS[key] if key in KEYS else (f"Key{key.upper()}", ord(key.upper()))
    text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
    more = {"text": text} if text else {}
    event: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
    await tab.call("Input.dispatchKeyEvent", type="keyDown", **event, **more)
    await tab.call("Input.dispatchKeyEvent", type="keyUp", **event)


async def soon(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until something holds here, while the page goes on."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await asyncio.to_thread(holds):
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_s} s"
        await asyncio.sleep(0.05)


async def begin(tab: Tab, url: str) -> None:
    """Open a player and let it play."""
    await tab.go(url)
    await tab.evaluate("document.getElementById('begin').click()")
    await tab.until(f"{VIDEO}.currentTime > 0.5", 15)


async def inspect(tab: Tab, url: str, name: str, *, until: str = "true", height: int = 1100) -> None:
    """Look at a page in both schemes, wide and narrow: axe-core finds nothing, nothing overflows or moves."""
    for scheme in ("light", "dark"):
        for width in (1100, 360):
            await tab.scheme(scheme, width=width, height=height)
            await tab.go(url)
            await tab.until(until, 15)
            await tab.look(scheme, SCREENS / f"page-{name}-{scheme}-{width}.png", width=width, height=height)
            assert await tab.axe() == [], (name, scheme, width)
            assert await tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (
                name,
                width,
            )
            assert await tab.evaluate(SHIFTED) < 0.02, (name, scheme, width)


# -- states


async def test_the_films_empty_full_begun_and_searched(base: str, cinema: Cinema, tab: Tab) -> None:
    await inspect(tab, f"{base}/?q=nothing", "found-none")
    cinema.marked = [{**cinema.film, "position_ms": 9_000, "at_ms": 1}]
    cinema.film["held_percent"] = 100
    await inspect(tab, f"{base}/", "films")
    assert await tab.evaluate("document.querySelector('.titles img').naturalWidth") == 640
    words = await tab.evaluate("document.body.innerText")
    assert "Continue watching" in words
    assert "plays offline" in words
    await tab.evaluate("document.querySelector('.line button').click()")
    await tab.until("document.body && !document.getElementById('begun')", 5)
    assert cinema.marked == []
    cinema.listed = False
    cinema.facts = {**cinema.facts, "verdict": "Waiting for the catalog: nobody reachable has it yet"}
    await inspect(tab, f"{base}/", "empty")
    assert "No titles yet" in await tab.evaluate("document.body.innerText")
    assert not tab.complaints


async def test_the_search_is_a_form_that_works_without_scripts(base: str, tab: Tab) -> None:
    await tab.call("Emulation.setScriptExecutionDisabled", value=True)
    await tab.go(f"{base}/")
    await tab.call("Runtime.evaluate", expression="0")
    await press(tab, "Tab")
    for _ in range(2):
        await press(tab, "Tab")
    for letter in "night":
        await press(tab, letter)
    await press(tab, "Enter")
    await soon(lambda: any(request.endswith("?q=night") for request in tab.requests))
    await tab.call("Emulation.setScriptExecutionDisabled", value=False)


async def test_the_player_at_rest_kept_and_for_the_home(base: str, cinema: Cinema, tab: Tab) -> None:
    await inspect(tab, f"{base}/play/harbour", "ready")
    assert not await tab.evaluate(f"{VIDEO}.hasAttribute('controls')")
    cinema.film |= {"kept": True, "held_percent": 100, "position_ms": 9_000}
    cinema.address = "http://192.168.1.20:7481/abcdefghijklmnopqrstuv"
    await inspect(tab, f"{base}/play/harbour", "kept")
    await tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    await tab.look("dark", SCREENS / "page-open-dark-1100.png", height=1500)
    assert await tab.axe() == []
    words = await tab.evaluate("document.body.innerText")
    assert f"{cinema.address}/watch/harbour/tv.m3u8" in words
    assert "manifest.mpd" in words
    assert "Goes on at 0:09" in words
    assert not tab.complaints


async def test_without_the_home_switched_on_there_is_no_code_but_a_way(base: str, tab: Tab) -> None:
    await tab.go(f"{base}/play/harbour")
    await tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert not await tab.evaluate("Boolean(document.querySelector('.code'))")
    assert "farcast run --lan" in await tab.evaluate("document.body.innerText")


async def test_a_playing_film_has_languages_pictures_and_a_map(
    base: str, cinema: Cinema, tab: Tab, hls_js: None
) -> None:
    del hls_js
    await begin(tab, f"{base}/play/harbour")
    await tab.until("document.getElementById('verified').textContent === '312'", 5)
    assert await tab.evaluate("document.getElementById('source').textContent") == "From a relay, 38 ms"
    label = await tab.evaluate("document.getElementById('map').getAttribute('aria-label')")
    assert label.startswith(
        f"The last {len(LIVE['segments'])} segments, oldest first: 3 from this box, 30 from"
    )
    assert await tab.evaluate(OPTIONS.format("sound")) == ["English", "Deutsch"]
    assert await tab.evaluate(OPTIONS.format("subtitles")) == ["No subtitles", "Deutsch"]
    await tab.evaluate("(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')); })"
                       "(document.getElementById('sound'))")  # fmt: skip
    await soon(lambda: any("/de/s" in request for request in tab.requests))
    await press(tab, "c")
    await tab.until(f"{CUE} === 'Guten Abend'", 5)
    assert await tab.evaluate("document.getElementById('subtitles').value") == "0"
    await tab.evaluate("document.getElementById('seek').scrollIntoView({ block: 'center' })")
    at = await tab.evaluate("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.getElementById('seek')"
                            ".getBoundingClientRect())")  # fmt: skip
    await tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    await tab.until("!document.getElementById('preview').hidden", 5)
    shown = await tab.evaluate("document.getElementById('frame').style.backgroundPosition")
    assert shown == "0px -90px", "the fourth picture of six"
    for scheme in ("light", "dark"):
        await tab.look(scheme, SCREENS / f"page-playing-{scheme}-1100.png", height=1000)
        assert await tab.axe() == []
    await tab.look("dark", SCREENS / "page-playing-dark-360.png", width=360, height=1400)
    assert await tab.axe() == []
    assert not tab.complaints
    assert all(request.split(" ")[1].startswith((base, "data:", "blob:")) for request in tab.requests)
    told = len(cinema.places)
    await press(tab, "k")
    await tab.until(f"{VIDEO}.paused", 5)
    await soon(lambda: any(b"position_ms" in place for place in cinema.places[told:]))


async def test_every_key_does_what_the_page_says(base: str, tab: Tab, hls_js: None) -> None:
    del hls_js
    await tab.go(f"{base}/play/harbour")
    await press(tab, "k")
    await tab.until(f"{VIDEO}.currentTime > 0.3", 15)
    await press(tab, " ")
    await tab.until(f"{VIDEO}.paused", 5)
    place = await tab.evaluate(f"{VIDEO}.currentTime")
    for key, step in (("l", 10), ("ArrowRight", 5), ("j", -10), ("ArrowLeft", -5), ("ArrowRight", 5)):
        await press(tab, key)
        place = max(0, place + step)
        await tab.until(f"Math.abs({VIDEO}.currentTime - {place}) < 0.2", 5)
    await press(tab, "m")
    assert await tab.evaluate(f"{VIDEO}.muted")
    await tab.until("document.getElementById('mute').getAttribute('aria-pressed') === 'true'", 5)
    await press(tab, "m")
    await press(tab, "ArrowDown")
    assert await tab.evaluate(f"{VIDEO}.volume") == 0.95
    await press(tab, "f")
    await tab.until("document.fullscreenElement?.id === 'stage'", 5)
    await press(tab, "f")
    await tab.until("!document.fullscreenElement", 5)
    await tab.evaluate("document.getElementById('q').focus()")
    await press(tab, "m")
    assert not await tab.evaluate(f"{VIDEO}.muted"), "a letter typed is a letter"
    assert await tab.evaluate("document.getElementById('q').value") == "m"
    await tab.evaluate("document.getElementById('q').blur()")
    await tab.evaluate("document.getElementById('keys').click(); document.activeElement.blur()")
    await press(tab, "m")
    assert not await tab.evaluate(f"{VIDEO}.muted"), "switched off"
    assert not tab.complaints


async def test_the_tab_key_reaches_everything_and_shows_where_it_is(base: str, tab: Tab) -> None:
    await tab.go(f"{base}/play/harbour")
    seen: list[str] = []
    for _ in range(26):
        await press(tab, "Tab")
        at = await tab.evaluate(
            "(e => e === document.body ? '' : e.id || e.textContent.trim())(document.activeElement)"
        )
        if at in seen or not at:
            break
        seen.append(at)
        shown = (
            "(s => s.outlineStyle !== 'none' || s.top === '0px')(getComputedStyle(document.activeElement))"
        )
        assert await tab.evaluate(shown), f"{at} shows no focus"
    assert seen[0] == "Skip to the content"
    wanted = [
        "q",
        "begin",
        "seek",
        "play",
        "mute",
        "volume",
        "full",
        "Open in VLC",
        "Keep",
        "On a TV",
        "Keys",
    ]
    assert [one for one in seen if one in wanted] == [
        "q", "begin", "seek", "play", "mute", "volume", "full", "Keep", "Open in VLC", "On a TV", "Keys",
    ]  # fmt: skip


async def test_what_the_gateway_refuses_is_a_sentence_and_playback_goes_on_by_itself(
    base: str, cinema: Cinema, tab: Tab, hls_js: None
) -> None:
    del hls_js
    cinema.fault = RefusedError("no tier delivers 'v/s0.m4s' of 'harbour' now", status=504, reason="no_tier")
    await inspect(
        tab, f"{base}/play/harbour", "fault", until="document.getElementById('fault').textContent.length > 20"
    )
    words = await tab.evaluate("document.getElementById('fault').textContent")
    assert words.startswith("No tier delivers 'v/s0.m4s' of 'harbour' now. It goes on by itself")
    await tab.evaluate("document.getElementById('begin').click()")
    cinema.fault = None
    await tab.until(f"{VIDEO}.currentTime > 0.5", 15)
    assert await tab.evaluate("document.getElementById('fault').textContent") == ""


@pytest.mark.parametrize("end", ["comes", "is cut short"])
@pytest.mark.parametrize("engine", ["hls.js", "the browser's own"])
async def test_a_part_that_is_promised_and_not_here_is_told_of_and_playback_goes_on_by_itself(
    base: str, cinema: Cinema, tab: Tab, request: pytest.FixtureRequest, engine: str, end: str
) -> None:
    """The gateway has sent a head alone: nothing failed yet, or it fails without a word."""
    begun = engine != "hls.js"  # which holds all of so short a film at once
    request.getfixturevalue("no_hls_js" if begun else "hls_js")
    promised, cut_s = asyncio.Event(), 60.0 if end == "comes" else 1.0
    if begun:
        await native(tab, f"{base}/play/harbour")
        await tab.until(f"{VIDEO}.currentTime > 0.3", 15)
        await tab.evaluate(f"{VIDEO}.playbackRate = 4")
    cinema.promised, cinema.cut_s = promised, cut_s
    if not begun:
        await tab.go(f"{base}/play/harbour")
        await tab.evaluate("document.getElementById('begin').click()")
    await tab.until("document.getElementById('fault').textContent.length > 20", 25)
    words = await tab.evaluate("document.getElementById('fault').textContent")
    assert words.startswith(f"{TROUBLE} It goes on by itself")
    place = float(await tab.evaluate(f"{VIDEO}.currentTime"))
    assert (place > 0.3) == begun
    if end != "comes":
        await asyncio.sleep(2 * cut_s)
    promised.set()
    await tab.until(f"{VIDEO}.currentTime > {place + 1}", 20)
    assert await tab.evaluate("document.getElementById('fault').textContent") == ""


async def test_a_title_taken_down_says_so_and_stays(
    base: str, cinema: Cinema, tab: Tab, hls_js: None
) -> None:
    del hls_js
    cinema.fault = RefusedError("'harbour' was taken down", status=410, reason="taken_down")
    await tab.go(f"{base}/play/harbour")
    await tab.until("document.getElementById('fault').textContent.includes('taken down')", 15)
    words = await tab.evaluate("document.getElementById('fault').textContent")
    assert words == "'harbour' was taken down.Try again"
    await tab.go(f"{base}/play/other")
    assert "No title 'other' in this catalog." in await tab.evaluate("document.body.innerText")
    await inspect(tab, f"{base}/play/other", "problem")


# -- where npm never ran: the browser's own HLS


async def native(tab: Tab, url: str) -> None:
    """Open a player without hls.js and let it play."""
    await tab.go(url)
    assert not await tab.evaluate("Boolean(window.Hls || document.querySelector('script[src*=hls]'))")
    if not await tab.evaluate(f"{VIDEO}.canPlayType('application/vnd.apple.mpegurl')"):
        pytest.skip("this Chromium has no HLS of its own")
    await tab.evaluate("document.getElementById('begin').click()")


async def test_without_hls_js_the_browsers_own_plays_with_subtitles_keys_pictures_and_map(
    base: str, cinema: Cinema, tab: Tab, no_hls_js: None
) -> None:
    del no_hls_js
    cinema.film["position_ms"] = 9_000
    await native(tab, f"{base}/play/harbour")
    await tab.until(f"{VIDEO}.currentTime > 9.3", 15)
    assert await tab.evaluate(f"{VIDEO}.currentTime") < 12, "goes on where it was left"
    await tab.until("document.getElementById('line').textContent === 'Playing'", 5)
    await tab.until("document.getElementById('verified').textContent === '312'", 5)
    await press(tab, "c")
    await tab.until(f"{CUE} === 'Guten Abend'", 5)
    assert await tab.evaluate("document.getElementById('subtitles').value") == "0"
    assert await tab.evaluate("document.getElementById('sound').checkVisibility()") == await tab.evaluate(
        f"Boolean({VIDEO}.audioTracks?.length)"
    ), "no list of what this browser cannot choose"
    await press(tab, "k")
    await tab.until(f"{VIDEO}.paused", 5)
    place = await tab.evaluate(f"{VIDEO}.currentTime")
    await press(tab, "ArrowRight")
    await tab.until(f"Math.abs({VIDEO}.currentTime - {place + 5}) < 0.2", 5)
    await tab.evaluate("document.getElementById('seek').focus()")
    await press(tab, "ArrowRight")
    await tab.until("!document.getElementById('preview').hidden", 5)
    for scheme in ("light", "dark"):
        await tab.look(scheme, SCREENS / f"page-native-{scheme}-1100.png", height=1000)
        assert await tab.axe() == []
    assert not tab.complaints
    assert all(request.split(" ")[1].startswith((base, "data:", "blob:")) for request in tab.requests)


@pytest.mark.parametrize("when", ["at the start", "in the middle"])
async def test_the_browsers_own_player_says_why_it_stopped_and_goes_on_by_itself(
    base: str, cinema: Cinema, tab: Tab, no_hls_js: None, when: str
) -> None:
    """Chromium never asks again for a segment that failed, and in the middle of a film says nothing of it."""
    del no_hls_js
    begun = when == "in the middle"
    fault = RefusedError("no tier delivers this part of 'harbour' now", status=504, reason="no_tier")
    cinema.fault = None if begun else fault
    await native(tab, f"{base}/play/harbour")
    if begun:
        await tab.until(f"{VIDEO}.currentTime > 0.3", 15)
        cinema.fault = fault
        await tab.evaluate(f"{VIDEO}.playbackRate = 4")
    await tab.until("document.getElementById('fault').textContent.length > 20", 25)
    words = await tab.evaluate("document.getElementById('fault').textContent")
    assert words.startswith("No tier delivers this part of 'harbour' now. It goes on by itself")
    place = float(await tab.evaluate(f"{VIDEO}.currentTime"))
    assert (place > 0.3) == begun
    cinema.fault = None
    await tab.until(f"{VIDEO}.currentTime > {place + 1}", 20)
    assert await tab.evaluate("document.getElementById('fault').textContent") == ""


async def test_the_browsers_own_player_says_that_a_title_was_taken_down(
    base: str, cinema: Cinema, tab: Tab, no_hls_js: None
) -> None:
    del no_hls_js
    cinema.fault = RefusedError("'harbour' was taken down", status=410, reason="taken_down")
    await native(tab, f"{base}/play/harbour")
    await tab.until(
        "document.getElementById('fault').textContent === \"'harbour' was taken down.Try again\"", 15
    )


async def test_what_was_sent_and_the_switch(base: str, cinema: Cinema, tab: Tab) -> None:
    await inspect(tab, f"{base}/sent", "sent-none")
    cinema.pulses = PULSES
    await inspect(tab, f"{base}/sent", "sent")
    words = await tab.evaluate("document.body.innerText")
    for word in (
        "9 pulses", "2 not acknowledged", "waits for a way", "refused: wrong day", TITLE["name"],
        "not all counted: gap, session cap", "; counted", "Of 1 closed session with 3:00 it counts 2:00",
    ):  # fmt: skip
        assert word in words
    await tab.evaluate("document.querySelector('.switch button').click()")
    await tab.until("document.body?.innerText.includes('Pulses are off')", 5)
    assert cinema.facts["pulses"] == {"on": False}
    await inspect(tab, f"{base}/sent", "sent-off")
    assert not tab.complaints


# -- a real node


@pytest.fixture(scope="module")
def node(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Street, Box, Box]]:
    """Bring up an origin that stands for the CDN, a relay that has the film already, and a viewer's node."""
    need("ffmpeg")
    street = Street(tmp_path_factory.mktemp("node"))
    port, relay_port = free_port(), free_port()
    home = street.home("origin")

    def listen(number: int) -> dict[str, str]:
        return {"FARCAST_LISTEN_PORT": str(number), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{number}"}

    try:
        film = draw(street.folder / "harbour.mp4", *REAL_FILM)
        draw(street.folder / "harbour.de.m4a", "-f", "lavfi", "-i", "sine=frequency=880:duration=128")
        (street.folder / "harbour.de.srt").write_text("1\n00:00:00,000 --> 00:02:08,000\nGuten Abend\n")
        film.with_suffix(".toml").write_text(REAL_TOML)
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", home)
        street.must("origin", "payee", "add", "ada", "--home", home)
        street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        origin = street.start("origin", "origin", "run", settings=listen(port))

        def add_relay() -> None:
            at = ("--home", street.home("relay"))
            link = street.must("origin", "invite", "--relay", "--home", home)["link"]
            ran = street.run("relay", "join", link, *at, settings=listen(relay_port))
            assert ran.code == 0, ran
            street.start("relay", "relay", "run", settings=listen(relay_port))
            street.must("relay", "pin", "harbour", *at)

        def add_viewer() -> None:
            link = street.must("origin", "account", "add", "ann", "--home", home)["link"]
            street.must("join", link, "--home", street.home("viewer"))
            quiet = {"FARCAST_SATELLITE_ENABLED": "false", "FARCAST_HEARTBEAT_INTERVAL_S": "2"}
            street.start("viewer", "run", settings=quiet)

        side_by_side(add_relay, add_viewer)
        viewer = street.boxes["viewer"]
        until(lambda: viewer.api("/api/status")["verdict"] == "Ready" and bool(viewer.api("/api/titles")), 30)
        tiers = {"cdn": 1, "relay": 1}
        until(lambda: tiers.items() <= {row["name"]: row["sources"] for row in _tiers(viewer)}.items(), 30)
        yield street, origin, viewer
    finally:
        street.close()


def _tiers(viewer: Box) -> list[dict[str, Any]]:
    return list(viewer.api("/api/status")["tiers"])


async def test_a_real_film_changes_tiers_on_the_map_is_gone_on_with_kept_and_told_of(
    node: tuple[Street, Box, Box], tab: Tab, hls_js: None
) -> None:
    del hls_js
    _, origin, viewer = node
    url = f"{viewer.url}/play/harbour"
    await tab.narrow(200_000)  # a player fetches a film as small as this whole before the CDN can be lost
    await begin(tab, url)
    await tab.until("document.getElementById('source').textContent.startsWith('From the CDN')", 10)
    os.kill(origin.process.pid, signal.SIGSTOP)
    try:
        tiers = "document.getElementById('map').getAttribute('aria-label')"
        await tab.until(f"{tiers}.includes('from a relay')", 15)
        assert "from the CDN" in await tab.evaluate(tiers)
    finally:
        os.kill(origin.process.pid, signal.SIGCONT)
    await tab.narrow(-1)
    assert (await tab.evaluate(OPTIONS.format("sound")))[1:] == ["Deutsch"]
    assert await tab.evaluate(OPTIONS.format("subtitles")) == ["No subtitles", "Deutsch"]
    await press(tab, "c")
    await tab.until(f"{CUE} === 'Guten Abend'", 10)
    await tab.evaluate("document.getElementById('seek').focus()")
    await press(tab, "ArrowRight")
    await tab.until("!document.getElementById('preview').hidden", 10)
    assert "/storyboard/00000.jpg" in await tab.evaluate(
        "document.getElementById('frame').style.backgroundImage"
    )
    await tab.look("light", SCREENS / "page-real-light-1100.png", height=1000)
    await tab.evaluate(f"{VIDEO}.pause()")
    place = await tab.evaluate(f"{VIDEO}.currentTime")
    told = pytest.approx(place * 1_000, abs=600)
    await soon(lambda: [one["position_ms"] for one in viewer.api("/api/bookmarks")] == [told])
    await tab.go(f"{viewer.url}/")
    assert "Continue watching" in await tab.evaluate("document.body.innerText")
    await tab.go(url)
    await tab.until(f"{VIDEO}.readyState > 0 && Math.abs({VIDEO}.currentTime - {place}) < 1", 15)
    await tab.evaluate("document.querySelector('#keep button').click()")
    await tab.until("document.getElementById('kept-line').textContent.startsWith('Kept')", 30)
    await tab.go(url)
    assert "Kept: plays with no network" in await tab.evaluate("document.body.innerText")
    await tab.evaluate("document.querySelector('#keep button').click()")
    await tab.until("document.querySelector('#keep button').textContent === 'Keep'", 10)
    sent = await asyncio.to_thread(viewer.api, "/api/pulses/sent")
    assert sent
    assert all(one["title"] == "harbour" for one in sent)
    await tab.go(f"{viewer.url}/sent")
    await tab.look("light", SCREENS / "page-real-sent-light-1100.png", height=1000)
    assert "harbour" in await tab.evaluate("document.body.innerText")
    await tab.go(f"{viewer.url}/?q=harb")
    assert "1 title for" in await tab.evaluate("document.body.innerText")
    assert all(request.split(" ")[1].startswith((viewer.url, "blob:", "data:")) for request in tab.requests)
    assert not tab.complaints


# -- what is packed


def test_the_scripts_of_our_own_stay_below_their_budget() -> None:
    import gzip

    scripts = sorted((ROOT / "node" / "page").glob("*.js"))
    assert len(gzip.compress(b"".join(one.read_bytes() for one in scripts))) < BUDGET_BYTES


def test_the_wheel_holds_every_file_of_the_page_and_hls_js_with_its_licence(
    tmp_path: Path, hls_js: None
) -> None:
    del hls_js
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    page = ROOT / "node" / "page"
    wanted = {
        f"farcast/node/page/{one.name}"
        for one in page.iterdir()
        if one.suffix in (".js", ".css", ".j2", ".svg")
    }
    wanted |= {f"farcast/node/page/vendor/{name}" for name in ("hls.min.js", "hls.js.LICENSE")}
    wanted |= {f"farcast/node/web/small/{name}{end}" for name in SCRIPTS for end in ("", ".map")}
    assert wanted <= names
    assert not [name for name in names if "node_modules" in name or name.endswith(".mjs")]
    assert json.loads((page / "package-lock.json").read_text())["packages"]["node_modules/hls.js"][
        "integrity"
    ]
