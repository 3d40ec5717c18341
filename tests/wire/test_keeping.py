"""A kept title and a watched one when things go wrong: killed, cut off, retired, lied to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from farcast.node.blocks.store import SPARE_BYTES
from farcast.node.demo.troupe import free_port
from farcast.tests.wire.pantry import Meter, office, stock
from farcast.tests.wire.street import Answered, Box, Street, ask, until

SEGMENTS, SEGMENT_BYTES = 24, 512 << 10
SLOW_BYTES_S = 1 << 20
SMALL_BYTES = 8 << 20
"""Less than a film, and more than what the databases write."""
SEGMENT = "v0/seg-{:05d}.m4s"


class House(NamedTuple):
    """An origin with three films behind a CDN that can be slow, and a viewer."""

    street: Street
    meter: Meter
    origin: Box
    viewer: Box
    films: dict[str, dict[str, bytes]]

    def watch(self, title: str, path: str, **headers: str) -> Answered:
        """Ask the viewer's gateway as a player does."""
        viewer = self.street.boxes["viewer"]
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        return ask(viewer.local, "GET", f"/{viewer.token}/watch/{title}/{path}", given)

    def refused(self, reason: str) -> float:
        """Return how often the viewer's servers have refused for a reason."""
        return self.street.boxes["viewer"].metric("farcast_node_http_refusals_total", reason=reason)

    def kept(self, title: str) -> dict[str, Any]:
        """Return what `list` says of a title."""
        rows = self.street.boxes["viewer"].api("/api/titles")
        return next(row for row in rows if row["title"] == title)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    street, port, random = Street(tmp_path_factory.mktemp("keeping")), free_port(), Random(7)
    meter, home = Meter(port), street.home("origin")
    listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    try:
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--cdn", meter.url, "--home", home)
        books = office(home)
        films = {
            title: {SEGMENT.format(at): b"\0" + random.randbytes(SEGMENT_BYTES - 1) for at in range(SEGMENTS)}
            | {"v0/index.m3u8": _playlist(), "master.m3u8": b"#EXTM3U\n"}
            for title in ("kept", "watched", "gone")
        }
        for title, files in films.items():
            stock(books, title, files)
        books.close()
        origin = street.start("origin", "origin", "run", settings=listen)
        link = street.must("origin", "invite", "--home", home)["link"]
        street.must("join", link, "--home", street.home("viewer"))
        viewer = street.start("viewer", "run")
        until(lambda: len(viewer.api("/api/titles")) == len(films), 30)
        yield House(street, meter, origin, viewer, films)
    finally:
        street.close()
        meter.close()


def _playlist() -> bytes:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2"]
    for at in range(SEGMENTS):
        lines += ["#EXTINF:2.000000,", SEGMENT.format(at).rpartition("/")[2]]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


def test_a_title_retired_while_it_plays_ends_with_a_sentence_and_harms_no_other(house: House) -> None:
    name = SEGMENT.format(0)
    assert house.watch("gone", name).body == house.films["gone"][name]
    house.street.must("origin", "retire", "gone", "--home", house.origin.home)
    until(lambda: house.watch("gone", SEGMENT.format(1)).status == 410, 15)
    answer = house.watch("gone", SEGMENT.format(2))
    assert answer.reason == "retired"
    assert b"'gone' was retired by its origin while it played" in answer.body
    assert house.watch("watched", name).body == house.films["watched"][name]
    assert any('reason="retired"' in line for line in house.viewer.refusals())


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("v0/../../../etc/passwd", {}, 400, "bad_request"),
        ("v0/seg-99999.m4s", {}, 404, "unknown_file"),
        ("v0/index.m3u8?_HLS_msn=9999999&_HLS_part=-1", {}, 200, ""),
        (SEGMENT.format(3), {"range": "bytes=99999999-"}, 416, "range"),
        (SEGMENT.format(3), {"range": "bytes=-0"}, 416, "range"),
        ("film.mp4", {"range": "bytes=99999999-"}, 415, "unsupported"),
        (SEGMENT.format(3), {"sec_fetch_site": "cross-site"}, 403, "cross_site"),
        (SEGMENT.format(3), {"host": "evil.example"}, 421, "unknown_host"),
    ],
)
def test_what_no_player_should_ask_has_a_clear_answer(
    house: House, path: str, headers: dict[str, str], status: int, reason: str
) -> None:
    before = house.refused(reason)
    answer = house.watch("watched", path, **headers)
    assert answer.status == status, answer
    assert not answer.body.startswith(b"{") or answer.reason == reason
    assert not reason or house.refused(reason) == before + 1, "counted by reason"
    assert house.watch("watched", SEGMENT.format(3)).status == 200


def test_an_unknown_token_opens_nothing(house: House) -> None:
    path, before = f"/{'A' * len(house.viewer.token)}/watch/watched/master.m3u8", house.refused("no_route")
    assert ask(house.viewer.local, "GET", path).status == 404
    assert house.refused("no_route") == before + 1


LIES = (
    "CMCD=bl%3D-5%2Csid%3D%22liar%22",
    "CMCD=bl%3D99999999999999999999999%2Csid%3D%22liar%22",
    "CMCD=pr%3D16%2Csid%3D%22liar%22%2Csn%3D1",
    "CMCD=pr%3D16%2Csid%3D%22liar%22%2Csn%3D1",
    "CMCD=%22%22%2C%3D%3D%2Csid%3D",
)


def test_a_player_that_lies_is_served_and_believed_nothing_beyond_the_clock(house: House) -> None:
    lies = house.viewer.metric("farcast_node_player_lies_total")
    for at, lie in enumerate(LIES):
        assert house.watch("watched", f"{SEGMENT.format(at)}?{lie}").status == 200
    viewer = house.viewer
    events = b'sid="liar",e=ps,sta=p,sn=1,pt=-40,v=2\nsid="liar",e=t,sn=1,pr=16,pt=999999999,v=2\n'
    told = ask(viewer.local, "POST", f"/{viewer.token}/v1/cmcd", {"content-type": "application/cmcd"}, events)
    assert told.status in (204, 400), told
    rows = [row for row in viewer.api("/api/status")["sessions"] if row["title"] == "watched"]
    assert rows
    assert all(row["viewed_ms"] < 30_000 for row in rows)
    assert viewer.metric("farcast_node_player_lies_total") > lies, "counted by reason"
    assert house.watch("watched", SEGMENT.format(7)).status == 200


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """Return a folder on a disk with room for the databases and some of a film."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    command = [
        mount,
        "-t",
        "tmpfs",
        "-o",
        f"size={SPARE_BYTES + SMALL_BYTES}",
        "farcast-small",
        str(tmp_path),
    ]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True, timeout=10)


def test_a_disk_that_fills_stops_the_keeping_with_a_sentence_and_no_playback(
    house: House, small_disk: Path
) -> None:
    street, files, home = house.street, house.films["watched"], small_disk / "home"
    link = street.must("origin", "invite", "--home", house.origin.home)["link"]
    street.must("join", link, "--home", home)
    (street.folder / "tight").symlink_to(home)
    tight = street.start("tight", "run")
    try:
        until(lambda: any(row["title"] == "watched" for row in tight.api("/api/titles")), 30)
        sent = sum(house.meter.sent_bytes.values())
        ran = street.run("keep", "watched", "--home", home)
        ran.refused(1, "watched is not whole yet", "room", "disk", "`farcast keep watched`")
        assert "kept 100%" not in ran.out
        assert sum(house.meter.sent_bytes.values()) - sent < SEGMENTS * SEGMENT_BYTES, (
            "a film fetched in vain"
        )
        assert tight.metric("farcast_node_store_refused_blocks_total", reason="disk_full") > 0
        assert shutil.disk_usage(home).free > SPARE_BYTES // 2, "what the databases need is left"
        for at in range(SEGMENTS):
            path = SEGMENT.format(at)
            answer = ask(tight.local, "GET", f"/{tight.token}/watch/watched/{path}")
            assert (answer.status, answer.body) == (200, files[path]), path
        grow = ["mount", "-o", f"remount,size={4 * SPARE_BYTES}", str(small_disk)]
        subprocess.run(grow, check=True, timeout=10)
        told = street.must("keep", "watched", "--home", home)
        assert told["held_blocks"] == told["blocks"]
    finally:
        tight.stop()


def test_a_keep_killed_halfway_goes_on_and_plays_with_every_network_gone(house: House) -> None:
    house.meter.bytes_s = SLOW_BYTES_S
    viewer = house.viewer
    began = ask(viewer.local, "POST", f"/{viewer.token}/api/titles/kept/keep", body=b"")
    assert began.status == 200, began
    until(lambda: 10 < house.kept("kept")["held_percent"] < 90, 20)
    viewer.process.send_signal(signal.SIGKILL)
    viewer.process.wait(10)
    (viewer.home / "admin.json").unlink()
    house.meter.bytes_s = 0
    viewer = house.street.start("viewer", "run")
    until(lambda: house.kept("kept")["held_percent"] == 100, 60)
    house.origin.stop()
    house.meter.way = "missing"
    for path, data in house.films["kept"].items():
        answer = house.watch("kept", path)
        assert (answer.status, answer.body) == (200, data), path
