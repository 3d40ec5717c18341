"""What is counted against what players played by their own account; every second is signed for.

The scripts are short: the bounds are those of the promise (1 % with CMCD version 2, 5 % by delivery
alone) plus what half a second of starting and stopping is worth. The bench has the long ones.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from farcast.tests.system.chromium import tab_in
from farcast.tests.system.cinema import Cinema, cinema
from farcast.tests.system.desktop import PLAYERS, Mpv, Watch, at_desktop
from farcast.tests.system.screening import HLS_JS, Mode, Screening, together_s

FILM_S = 110
EDGE_S = 0.5
"""A short script is as exact as its ends: the last event and the last look at the position."""

Need = Callable[..., str]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cinema]:
    with cinema(tmp_path_factory.mktemp("cinema"), FILM_S) as made:
        yield made


@pytest.fixture
def hls_js() -> None:
    if not HLS_JS.is_file():
        pytest.skip("hls.js is not here: `make page` brings it where npm is installed")


@asynccontextmanager
async def screening(program: str, folder: Path, house: Cinema, mode: Mode) -> AsyncGenerator[Screening]:
    async with tab_in(program, folder) as tab:
        screen = Screening(tab)
        await screen.open(house.url, house.title, mode)
        yield screen


async def paid(house: Cinema, before_s: float) -> float:
    return await asyncio.to_thread(house.settled_s) - before_s


async def test_a_player_with_events_is_paid_what_it_played(
    house: Cinema, need: Need, tmp_path: Path, hls_js: None
) -> None:
    del hls_js
    before_s = house.signed_s()
    async with screening(need("chromium"), tmp_path / "profile", house, "events") as screen:
        await asyncio.sleep(1.5)  # buffered, not played
        await screen.play()
        await asyncio.sleep(4)
        await screen.pause()
        await asyncio.sleep(3)
        await screen.go_on()
        await screen.rate(2.0)
        await asyncio.sleep(3)
        await screen.rate(1.0)
        await screen.seek(70)
        await asyncio.sleep(4)
        await screen.pause()
        played_s = await screen.advanced_s()
        counted_s = await paid(house, before_s)
    assert played_s > 9
    assert counted_s == pytest.approx(played_s, abs=0.01 * played_s + EDGE_S)
    assert house.status()["sessions"][0]["basis"] == "events"


async def test_two_tabs_and_a_hidden_one_are_paid_as_one_stretch(
    house: Cinema, need: Need, tmp_path: Path, hls_js: None
) -> None:
    del hls_js
    before_s = house.signed_s()
    async with AsyncExitStack() as stack:
        profiles = ("one", "two")
        screens = [
            await stack.enter_async_context(screening(need("chromium"), tmp_path / name, house, "events"))
            for name in profiles
        ]
        await asyncio.gather(*(screen.play() for screen in screens))
        await asyncio.sleep(4)
        await screens[1].pause()
        await screens[0].hide()
        await asyncio.sleep(4)
        await screens[0].pause()
        played_s = [await screen.advanced_s() for screen in screens]
        either_s = together_s([stretch for screen in screens for stretch in await screen.stretches()])
        counted_s = await paid(house, before_s)
    assert played_s[0] > 7
    assert played_s[1] > 3
    assert sum(played_s) > either_s + 2
    assert counted_s == pytest.approx(either_s, abs=0.01 * either_s + EDGE_S)


async def test_a_player_with_requests_alone_is_never_paid_more(
    house: Cinema, need: Need, tmp_path: Path, hls_js: None
) -> None:
    del hls_js
    before_s = house.signed_s()
    async with screening(need("chromium"), tmp_path / "profile", house, "requests") as screen:
        await asyncio.sleep(1.5)
        await screen.play()
        await screen.asks()  # while its first buffer fills, that is shorter than it says: this places it
        placed_s = await screen.advanced_s()
        await asyncio.sleep(7)
        await screen.pause()
        await asyncio.sleep(3)
        await screen.go_on()
        await asyncio.sleep(5)
        await screen.pause()
        played_s = await screen.advanced_s()
        counted_s = await paid(house, before_s)
    assert house.status()["sessions"][0]["basis"] == "requests"
    assert counted_s <= played_s * 1.01 + 0.2
    assert counted_s >= played_s - placed_s - 3, "only what lies between two requests counts"


async def test_the_browsers_own_player_is_counted_by_delivery(
    house: Cinema, need: Need, tmp_path: Path
) -> None:
    before_s = house.signed_s()
    async with screening(need("chromium"), tmp_path / "profile", house, "native") as screen:
        await screen.play()
        await asyncio.sleep(10)
        played_s = await screen.advanced_s()
        counted_s = sum(one["viewed_ms"] for one in house.status()["sessions"][:1]) / 1000
    assert house.status()["sessions"][0]["basis"] == "delivery"
    assert counted_s == pytest.approx(played_s, abs=0.05 * played_s + 1)
    assert await paid(house, before_s) >= counted_s - 0.1


@pytest.mark.parametrize(
    ("kind", "address"), [("mpv", "master.m3u8"), ("mpv", "film.mp4"), ("vlc", "film.mp4")]
)
async def test_a_player_that_tells_nothing_is_counted_by_delivery_until_it_leaves(
    house: Cinema, need: Need, tmp_path: Path, kind: str, address: str
) -> None:
    before_s = house.signed_s()
    url = f"{house.url}/watch/{house.title}/{address}"
    async with at_desktop(PLAYERS[kind], need(kind), tmp_path, url) as player, Watch(player) as watch:
        await asyncio.sleep(6)
        if address == "film.mp4":
            await player.seek(80)
        await asyncio.sleep(6)
        assert watch.last_s is not None
        player.process.send_signal(signal.SIGKILL)
        played_s = watch.advanced_s
    counted_s = await paid(house, before_s)
    assert played_s > 7
    slow_s = 2.0 if address == "film.mp4" else 1.2  # every start may take a second less or more than is taken
    assert counted_s == pytest.approx(played_s, abs=0.05 * played_s + slow_s)


async def test_mpv_at_double_speed_is_never_starved(house: Cinema, need: Need, tmp_path: Path) -> None:
    url = f"{house.url}/watch/{house.title}/master.m3u8"
    options = ("--speed=2", url)
    async with at_desktop(Mpv, need("mpv"), tmp_path, *options) as player, Watch(player) as watch:
        await asyncio.sleep(6)
        assert watch.last_s is not None
        assert watch.last_s > 10
        assert watch.longest_stall_s < 0.3
        lead_s = house.status()["sessions"][0]["lead_ms"] / 1000
        assert lead_s <= 35, "and it is paced all the same"
