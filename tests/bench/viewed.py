"""Viewed seconds against what players played by their own account, over a minute and more each.

``ours`` is the worst error of all cases in per cent of what was played; there is no peer. ``extra``:
the worst of the cases with CMCD version 2 (``cmcd2_pct``) and by delivery alone (``delivery_pct``),
version 1, which may only be under (``cmcd1_pct``), and how far any case was over (``over_pct``).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from farcast.tests.conftest import installed
from farcast.tests.system.chromium import tab_in
from farcast.tests.system.cinema import Cinema, cinema
from farcast.tests.system.desktop import Mpv, Vlc, Watch, at_desktop
from farcast.tests.system.screening import HLS_JS, Mode, Screening, together_s

FIGURES = ("viewed_seconds_error",)
FILM_S = 300
STALL_S = 14.0
REST_TIMEOUT_S = 15.0


def run(only: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Measure ``viewed_seconds_error`` unless ``only`` names other figures."""
    if only and FIGURES[0] not in only:
        return []
    missing = [program for program in ("chromium", "mpv", "vlc") if installed(program) is None]
    if missing or not HLS_JS.is_file():
        return [{"name": FIGURES[0], "skipped": f"not here: {', '.join(missing) or 'hls.js'}"}]
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        place = Path(folder)
        place.chmod(0o755)  # VLC runs as nobody
        with cinema(place, FILM_S) as house:
            errors = asyncio.run(_all(house, place))
    by_kind = {
        kind: [pct for name, pct in errors.items() if name.startswith(kind)]
        for kind in ("cmcd2", "cmcd1", "delivery")
    }
    worst = {f"{kind}_pct": max(found, key=abs) for kind, found in by_kind.items()}
    return [
        {
            "name": FIGURES[0],
            "unit": "% of the seconds played",
            "ours": max(map(abs, errors.values())),
            "peer": None,
            "peer_name": "",
            "peer_version": "",
            "ratio": None,
            "rounds": 1,
            "spread": [min(errors.values()), max(errors.values())],
            "extra": {**worst, "over_pct": max(0.0, *errors.values()), "cases": errors},
        }
    ]


async def _all(house: Cinema, place: Path) -> dict[str, float]:
    """Return the error of each case in per cent, over is positive."""
    errors: dict[str, float] = {}
    browsers: dict[str, Mode] = {"cmcd2": "events", "cmcd1": "requests", "delivery-chromium": "native"}
    for name, mode in browsers.items():
        errors[name] = await _browser(house, place / name, mode)
    errors["cmcd2-tabs"] = await _tabs(house, place)
    errors["delivery-mpv"] = await _desktop(house, place, Mpv, "mpv", "master.m3u8", stall=True)
    errors["delivery-mpv-file"] = await _desktop(house, place, Mpv, "mpv", "film.mp4")
    errors["delivery-vlc"] = await _desktop(house, place, Vlc, "vlc", "master.m3u8")
    errors["delivery-vlc-file"] = await _desktop(house, place, Vlc, "vlc", "film.mp4")
    return errors


async def _browser(house: Cinema, profile: Path, mode: Mode) -> float:
    """Play, pause, double speed, seek, an origin that hangs, a hidden tab; by delivery only play and seek."""
    before_s = await asyncio.to_thread(_at_rest, house)
    async with tab_in(installed("chromium") or "", profile) as tab:
        screen = Screening(tab)
        await screen.open(house.url, house.title, mode, buffer_s=8)
        await screen.play()
        await asyncio.sleep(30)
        if mode != "native":
            await screen.pause()
            await asyncio.sleep(10)
            await screen.go_on()
            await screen.rate(2.0)
            await asyncio.sleep(15)
            await screen.rate(1.0)
            await asyncio.sleep(5)
        await screen.seek(200)
        await asyncio.sleep(10)
        if mode != "native":
            await _hang(house)
        await screen.hide()
        await asyncio.sleep(20)
        if mode != "native":
            await screen.pause()
        played_s = await screen.advanced_s()
        if mode == "native":
            counted_s = sum(one["viewed_ms"] for one in house.status()["sessions"][:1]) / 1000
        else:
            counted_s = await asyncio.to_thread(house.settled_s) - before_s
    return _error(counted_s, played_s)


async def _tabs(house: Cinema, place: Path) -> float:
    before_s = await asyncio.to_thread(_at_rest, house)
    async with AsyncExitStack() as stack:
        screens: list[Screening] = []
        for name in ("one", "two"):
            tab = await stack.enter_async_context(tab_in(installed("chromium") or "", place / name))
            screens.append(Screening(tab))
            await screens[-1].open(house.url, house.title, "events")
        await asyncio.gather(*(screen.play() for screen in screens))
        await asyncio.sleep(30)
        await screens[1].pause()
        await asyncio.sleep(30)
        await screens[0].pause()
        played_s = together_s([stretch for screen in screens for stretch in await screen.stretches()])
        counted_s = await asyncio.to_thread(house.settled_s) - before_s
    return _error(counted_s, played_s)


async def _desktop(
    house: Cinema, place: Path, kind: type[Mpv | Vlc], program: str, file: str, *, stall: bool = False
) -> float:
    """Play, seek (or an origin that hangs, with a small buffer), play on, and leave."""
    before_s = await asyncio.to_thread(_at_rest, house)
    url = f"{house.url}/watch/{house.title}/{file}"
    small = ("--cache-secs=4", "--demuxer-readahead-secs=4", "--demuxer-max-bytes=1MiB") if stall else ()
    async with (
        at_desktop(kind, installed(program) or "", place, *small, url) as player,
        Watch(player) as watch,
    ):
        await asyncio.sleep(30)
        if stall:
            await _hang(house)
        else:
            await player.seek(200)
        await asyncio.sleep(35)
        player.process.send_signal(signal.SIGKILL)
        played_s = watch.advanced_s
    return _error(await asyncio.to_thread(house.settled_s) - before_s, played_s)


def _at_rest(house: Cinema) -> float:
    """Return the seconds signed so far, once whoever played last is known to be gone and all is signed."""
    deadline = time.monotonic() + REST_TIMEOUT_S
    while any(one["playing"] for one in house.status()["sessions"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return house.settled_s()


async def _hang(house: Cinema) -> None:
    """Let the only source hang for longer than the player's buffer lasts."""
    house.troupe.signal("origin", signal.SIGSTOP)
    await asyncio.sleep(STALL_S)
    house.troupe.signal("origin", signal.SIGCONT)


def _error(counted_s: float, played_s: float) -> float:
    return round((counted_s - played_s) / played_s * 100, 2)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1:] or None), indent=1) + "\n")
