"""A stick between boxes that never meet: real commands; it is half copied, damaged and pulled out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.pantry import office, stock
from farcast.tests.wire.street import Box, Street, ask, until

SEGMENTS, SEGMENT_BYTES = 12, 300_000
ALONE = {"FARCAST_NETWORK_ALLOW_PRIVATE": "false", "FARCAST_MESH_ENABLED": "false"}
"""A box on loopback that may dial no private address reaches nobody."""


class Village(NamedTuple):
    """An origin, a node in the town that reaches it, and one far away that does not."""

    street: Street
    origin: Box
    town: Box
    films: dict[str, dict[str, bytes]]
    root: Path

    def hut(self, name: str) -> Path:
        """Make a home that has root.json alone."""
        home = self.street.home(name)
        ran = self.street.run("join", self.root, "--home", home, "--json", settings=ALONE)
        assert (ran.code, ran.json["online"]) == (0, False), ran
        return home


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Generator[Village]:
    street, port, random = Street(tmp_path_factory.mktemp("stick")), free_port(), Random(7)
    home = street.home("origin")
    listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    try:
        made = street.must(
            "origin", "init", "--name", "Coast", "--endpoint", f"127.0.0.1:{port}", "--home", home
        )
        books = office(home)
        films = {
            title: {
                f"v0/seg-{at:05d}.m4s": b"\0" + random.randbytes(SEGMENT_BYTES - 1) for at in range(SEGMENTS)
            }
            | {"v0/index.m3u8": b"#EXTM3U\n", "master.m3u8": b"#EXTM3U\n"}
            for title in ("sea", "hills", "dunes")
        }
        for title, files in films.items():
            stock(books, title, files)
        books.close()
        origin = street.start("origin", "origin", "run", settings=listen)
        link = street.must("origin", "invite", "--home", home)["link"]
        street.must("join", link, "--home", street.home("town"))
        town = street.start("town", "run")
        until(lambda: len(town.api("/api/titles")) == len(films), 30)
        street.must("keep", "sea", "--home", town.home)
        yield Village(street, origin, town, films, Path(made["root"]))
    finally:
        street.close()


def held(street: Street, home: Path) -> dict[str, int]:
    """Return how much of each title a running node holds."""
    return {row["title"]: row["held_percent"] for row in street.must("list", "--home", home)}


def test_a_node_with_root_json_and_a_stick_lists_and_plays_the_title(
    village: Village, tmp_path: Path
) -> None:
    street = village.street
    exported = street.must("export", tmp_path, "sea", "--home", village.town.home)
    assert [one["title"] for one in exported["titles"]] == ["sea"]
    assert exported["titles"][0]["written_bytes"] == exported["titles"][0]["bytes"] > SEGMENTS * SEGMENT_BYTES
    again = street.must("export", tmp_path, "sea", "--home", village.town.home)
    assert again["titles"][0]["written_bytes"] == 0
    home = village.hut("hut")
    imported = street.must("import", tmp_path, "--home", home)
    assert imported["damaged"] == []
    assert [(one["title"], one["missing_blocks"]) for one in imported["titles"]] == [("sea", 0)]
    hut = street.start("hut", "run", settings=ALONE)
    assert held(street, home)["sea"] == 100
    assert held(street, home)["hills"] == 0
    for path, data in village.films["sea"].items():
        answer = ask(hut.local, "GET", f"/{hut.token}/watch/sea/{path}")
        assert (answer.status, answer.body) == (200, data), path
    assert {row["name"]: row["blocks"] for row in hut.api("/api/status")["tiers"]} == dict.fromkeys(
        ("cdn", "relay", "mesh", "satellite"), 0
    )
    street.must("keep", "hills", "--home", village.town.home)
    street.must("export", tmp_path, "hills", "--home", village.town.home)
    more = street.must("import", tmp_path, "hills", "--home", home)  # into the running node
    assert [(one["title"], one["missing_blocks"]) for one in more["titles"]] == [("hills", 0)]
    assert held(street, home)["hills"] == 100


def watch(box: Box, title: str, seconds: float) -> None:
    """Play a title as a player does that tells what it plays by CMCD."""
    for at in range(3):
        ask(box.local, "GET", f"/{box.token}/watch/{title}/v0/seg-{at:05d}.m4s")
    deadline, number = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        number += 1
        line = f'cid="{title}",e=ps,sid="s1",sn={number},sta=p,ts={time.time_ns() // 1_000_000},v=2\n'
        place = f"/{box.token}/v1/cmcd"
        answer = ask(box.local, "POST", place, {"content-type": "application/cmcd"}, line.encode())
        assert answer.status == 204, answer
        time.sleep(0.3)


def test_pulses_go_home_with_a_stick_and_their_acks_come_back_with_it(
    village: Village, tmp_path: Path
) -> None:
    street = village.street
    link = street.must("origin", "account", "add", "ann", "--home", village.origin.home)["link"]
    street.must("join", link, "--home", street.home("far"))
    quick = {"FARCAST_HEARTBEAT_INTERVAL_S": "1", "FARCAST_MESH_ENABLED": "false"}
    cut_off = {**quick, "FARCAST_NETWORK_DIRECT": "false"}
    far = street.start("far", "run", settings=cut_off)
    until(lambda: far.api("/api/status")["tickets"] > 0, 20)
    watch(far, "sea", 3.0)
    until(lambda: far.api("/api/pulses")["waiting"] >= 2)
    assert far.stop() == 0
    waiting = street.must("export", tmp_path, "--home", far.home)["pulses"]
    assert waiting >= 2
    before = village.origin.metric("farcast_origin_pulses_accepted_total")
    brought = street.must("import", tmp_path, "--home", village.town.home)
    assert (brought["pulses"], brought["returned"]) == (waiting, waiting), brought
    assert village.origin.metric("farcast_origin_pulses_accepted_total") == before + waiting
    assert list((tmp_path / "farcast").rglob("pulses/*")) == [], "acks prune the stick"
    home = street.must("import", tmp_path, "--home", far.home)
    assert (home["settled"], home["pulses"]) == (waiting, 0)
    far = street.start("far", "run", settings=cut_off)
    assert far.api("/api/pulses")["waiting"] == 0
    sent = far.api("/api/pulses/sent")
    assert {row["state"] for row in sent} == {"acked"}
    assert {row["way"] for row in sent} == {"stick"}


def test_a_stick_that_was_half_copied_and_damaged_gives_what_is_whole_and_names_the_rest(
    village: Village, tmp_path: Path
) -> None:
    street = village.street
    whole, copy = tmp_path / "whole", tmp_path / "copy"
    whole.mkdir()
    street.must("export", whole, "sea", "--home", village.town.home)
    shutil.copytree(whole, copy)
    [folder] = (copy / "farcast").iterdir()
    car = folder / "titles" / "sea" / "0001.car"
    data = bytearray(car.read_bytes())
    data[1_000_000] ^= 1
    car.write_bytes(data[: len(data) // 2])
    (folder / "acks").write_bytes(b"\xff")
    home = village.hut("hut2")
    ran = street.run("import", copy, "--home", home, "--json")
    assert ran.code == 1, ran
    [title] = ran.json["titles"]
    assert title["missing_blocks"] > 0
    assert title["new_blocks"] > 0
    assert {one["file"] for one in ran.json["damaged"]} == {"titles/sea/0001.car", "acks"}
    assert any("has a damaged block, bafk" in one["why"] for one in ran.json["damaged"])
    shown = street.run("import", copy, "--home", home)
    assert "left out: titles/sea/0001.car" in shown.out
    repaired = street.must("export", copy, "sea", "--home", village.town.home)
    assert repaired["titles"][0]["written_bytes"] == repaired["titles"][0]["bytes"]
    again = street.must("import", copy, "--home", home)
    assert again["damaged"] == []
    assert again["titles"][0]["missing_blocks"] == 0
    assert again["titles"][0]["new_blocks"] + title["new_blocks"] == again["titles"][0]["blocks"] - 1, (
        "no twice"
    )


def test_a_folder_that_is_no_export_another_origins_and_a_title_not_there_are_one_sentence_each(
    village: Village, tmp_path: Path
) -> None:
    street, town = village.street, village.town.home
    home = village.hut("hut3")
    nothing, stick = tmp_path / "nothing", tmp_path / "stick"
    nothing.mkdir()
    stick.mkdir()
    street.run("import", tmp_path / "gone", "--home", home).refused(2, "is no folder")
    street.run("import", nothing, "--home", home).refused(2, "is no export", "farcast export DIR")
    street.run("export", nothing, "--home", home).refused(2, "knows no catalog yet")
    street.run("export", nothing, "nope", "--home", town).refused(1, "no title 'nope'")
    assert not any(nothing.iterdir())
    street.must("export", stick, "sea", "--home", town)
    street.run("import", stick, "nope", "--home", home).refused(2, "no title 'nope'", "sea")
    other = street.home("other")
    made: Any = street.must(
        "origin", "init", "--name", "Desert", "--endpoint", "127.0.0.1:9", "--home", other
    )
    stranger = street.home("stranger")
    street.run("join", made["root"], "--home", stranger, settings=ALONE)
    street.run("import", stick, "--home", stranger).refused(2, "is an export of Coast", "does not follow")


def test_an_older_box_that_writes_to_a_stick_takes_nothing_back(village: Village, tmp_path: Path) -> None:
    street, town = village.street, village.town
    street.must("keep", "dunes", "--home", town.home)
    whole = street.must("export", tmp_path, "--home", town.home)
    assert {"sea", "dunes"} <= {one["title"] for one in whole["titles"]}, "without a name all that is whole"
    home = village.hut("hut4")
    street.must("import", tmp_path, "--home", home)
    street.must("origin", "retire", "dunes", "--home", village.origin.home)
    until(lambda: "dunes" not in {row["title"] for row in town.api("/api/titles")}, 20)
    street.must("export", tmp_path, "sea", "--home", town.home)
    titles = next((tmp_path / "farcast").iterdir()) / "titles"
    left = {path.name for path in titles.iterdir()}
    assert "sea" in left
    assert "dunes" not in left
    older = street.must("export", tmp_path, "--home", home)
    assert [one["written_bytes"] for one in older["titles"]] == [0] * len(left)
    assert {path.name for path in titles.iterdir()} == left
    street.run("export", tmp_path, "dunes", "--home", home).refused(1, "no title 'dunes'")
