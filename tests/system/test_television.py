"""A television's three addresses, on loopback and in the household: read by real programs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from farcast.tests.system.cinema import Cinema, cinema
from farcast.tests.system.desktop import PLAYERS, POLL_S, Mpv, Vlc, Watch, at_desktop

FILM_S = 20
SEALED = "sealed"
"""The film again, for ticket holders."""
PLAYED_S, PLAYED_TIMEOUT_S = 3.0, 30.0
DECODED = "out_time_us="
CLOSED = ("", "api/status", "api/titles", "metrics", "v1/cmcd", "assets/style.css", "play/film", "ipfs/x")

Need = Callable[..., str]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cinema]:
    folder = tmp_path_factory.mktemp("cinema")
    with cinema(folder, FILM_S, {"FARCAST_LAN_PORT": "0"}, run=("run", "--lan"), sealed=SEALED) as made:
        yield made


@pytest.fixture(params=["loopback", "lan"])
def base(request: pytest.FixtureRequest, house: Cinema) -> str:
    return house.url if request.param == "loopback" else house.greeting["lan"].rpartition("/")[0]


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urlopen(Request(url, headers=headers), timeout=10) as answer:  # noqa: S310 - this machine
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("address", ["film.mp4", "tv.m3u8"])
def test_ffmpeg_decodes_pictures_and_sound_to_the_end_and_in_time(
    base: str, need: Need, address: str
) -> None:
    url = f"{base}/watch/film/{address}"
    command = [need("ffmpeg"), "-v", "warning", "-xerror", "-nostdin", "-progress", "pipe:1", "-i", url]
    for track, option in (("video", "0:v"), ("audio", "0:a")):
        done = subprocess.run(
            [*command, "-map", option, "-f", "null", "-"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), track
        last = [line for line in done.stdout.splitlines() if line.startswith(DECODED)][-1]
        assert int(last.removeprefix(DECODED)) / 1e6 == pytest.approx(FILM_S, abs=0.05), track


@pytest.mark.parametrize("sought_s", [5.0, 15.0])
def test_ffmpeg_seeks_in_the_file_and_decodes_both_tracks_from_there_to_the_end(
    base: str, need: Need, sought_s: float
) -> None:
    command = [need("ffmpeg"), "-v", "warning", "-xerror", "-nostdin", "-ss", str(sought_s)]
    command += ["-i", f"{base}/watch/film/film.mp4", "-f", "framecrc", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    frames = [line.split(",")[0] for line in done.stdout.splitlines() if not line.startswith("#")]
    left_s = FILM_S - sought_s
    assert frames.count("0") == pytest.approx(left_s * 25, abs=1), "pictures"
    assert frames.count("1") == pytest.approx(left_s * 48_000 / 1_024, abs=3), "sound"


def test_the_file_says_its_length_and_every_range_is_a_part_of_the_whole(base: str, need: Need) -> None:
    url = f"{base}/watch/film/film.mp4"
    entries = ["-show_entries", "stream=duration", "-of", "csv=p=0"]
    probe = subprocess.run(
        [need("ffprobe"), "-v", "error", *entries, url],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lengths = [float(line) for line in probe.stdout.split()]
    assert len(lengths) == 2
    assert lengths == pytest.approx([FILM_S, FILM_S], abs=0.05)
    status, whole = get(url)
    assert status == 200
    size = len(whole)
    for first, last in (
        (0, 0),
        (0, size - 1),
        (5_000, 90_000),
        (size - 16, size - 1),
        (size // 2, size // 2 + 7),
    ):
        status, part = get(url, Range=f"bytes={first}-{last}")
        assert (status, part) == (206, whole[first : last + 1])
    assert get(url, Range=f"bytes={size}-")[0] == 416


def test_nothing_but_titles_is_behind_the_households_token(house: Cinema) -> None:
    base = house.greeting["lan"].rpartition("/")[0]
    address, _, token = base.rpartition("/")
    assert token not in house.url
    assert len(token) >= 22, "128 bits"
    assert all(get(f"{base}/{path}")[0] == 404 for path in CLOSED)
    assert get(f"{address}/{'a' * 22}/all.m3u")[0] == 404
    assert get(f"{address}/{house.url.rpartition('/')[2]}/api/status")[0] == 404
    assert get(f"{base}/all.m3u", Host="evil.example")[0] == 421
    assert get(f"{base}/all.m3u", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    status, text = get(f"{base}/all.m3u")
    assert status == 200
    listed = [line for line in text.decode().splitlines() if not line.startswith("#")]
    assert listed == [f"{base}/watch/{title}/film.mp4" for title in (house.title, SEALED)]
    assert (house.node / "lan-token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["mpv", "vlc"])
async def test_mpv_and_vlc_play_all_three_and_hls_with_a_ticket_or_without(
    house: Cinema, need: Need, tmp_path: Path, kind: str
) -> None:
    """Side by side, for what counts is that each plays; the list plays both titles, one after the other."""
    program, home = need(kind), house.greeting["lan"].rpartition("/")[0]
    titles = (house.title, SEALED)
    films = [f"{home}/watch/{title}/film.mp4" for title in titles]
    single = [
        f"{house.url}/watch/{SEALED}/master.m3u8",
        *(f"{home}/watch/{title}/tv.m3u8" for title in titles),
    ]
    shown = {f"{home}/all.m3u": films} | {address: [address] for address in [*single, *films]}
    async with asyncio.TaskGroup() as sofa:
        for number, (address, parts) in enumerate(shown.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            sofa.create_task(_played(PLAYERS[kind], program, folder, address, parts))


async def _played(
    kind: type[Mpv | Vlc], program: str, folder: Path, address: str, parts: Sequence[str]
) -> None:
    """Open an address and see that each of its ``parts`` plays for a few seconds."""
    async with at_desktop(kind, program, folder, address) as player:
        for number, part in enumerate(parts):
            if number:
                await player.skip()
            deadline = time.monotonic() + PLAYED_TIMEOUT_S
            while (at := await player.plays()) != part:
                assert time.monotonic() < deadline, f"{address} plays {at!r}, not {part}"
                await asyncio.sleep(POLL_S)
            async with Watch(player) as watch:
                await watch.until(PLAYED_S, PLAYED_TIMEOUT_S)
        assert player.process.poll() is None
