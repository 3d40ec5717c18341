# pyright: reportPrivateUsage=false
"""Exports and imports that break off anywhere go on; what is damaged, strange or taken down has no effect."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from farcast.node.stick.exporter import Exporter
from farcast.node.stick.importer import Importer
from farcast.protocol.car import header, section
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import LocalError, UsageError
from farcast.tests.unit.node.stick.boxes import VOLUME_BYTES, House, files, houses


class Clumsy(Exporter):
    """An exporter that is stopped after so many looks."""

    def __init__(self, house: House, looks: int) -> None:
        super().__init__(house.depot, volume_bytes=VOLUME_BYTES)
        self._looks = looks

    def _check_stopped(self) -> None:
        self._looks -= 1
        if self._looks < 0:
            self.stop()
        super()._check_stopped()


class Hasty(Importer):
    """An importer that is stopped after so many blocks."""

    def __init__(self, house: House, blocks: int) -> None:
        super().__init__(house.depot, house)
        self._blocks = blocks

    def _check_stopped(self) -> None:
        self._blocks -= 1
        if self._blocks < 0:
            self.stop()
        super()._check_stopped()


def insist(work: Callable[[], object]) -> int:
    """Repeat what is stopped until it comes through; returns how often it was stopped."""
    for times in range(100):
        try:
            work()
        except LocalError as error:
            if error.reason != "stopped":
                raise
        else:
            return times
    raise AssertionError("it never got on")


def test_an_export_and_an_import_that_break_off_anywhere_come_to_the_same(tmp_path: Path) -> None:
    stick, whole = tmp_path / "stick", tmp_path / "whole"
    stick.mkdir()
    whole.mkdir()
    random = Random(5)
    with houses(tmp_path, "town", "hut") as (town, hut):
        town.make("sea")
        town.make("hills", seed=2)
        town.export(whole)
        stops = insist(lambda: town.export(stick, Clumsy(town, random.randint(12, 40))))
        assert stops > 1
        assert files(stick) == files(whole)
        done = town.export(stick)
        assert [one.written_bytes for one in done.titles] == [0, 0]
        stops = insist(lambda: hut.bring(stick, town, importer=Hasty(hut, random.randint(4, 9))))
        assert stops > 1
        found = hut.bring(stick, town)
        assert [(one.new_blocks, one.missing_blocks) for one in found.titles] == [(0, 0), (0, 0)]
        for title in town.titles.values():
            assert all(hut.store.has(cid) for cid in title.cids)
            assert {*hut.store.pinned()[f"keep/{title.title}"]} == {*title.cids}


def test_a_title_that_changed_replaces_its_volumes_and_one_taken_down_leaves_the_stick(
    tmp_path: Path,
) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with houses(tmp_path, "town", "hut") as (town, hut):
        town.make("sea", files=14)
        town.make("hills", seed=2)
        town.export(stick)
        town.make("sea", files=9, seed=3)
        del town.titles["hills"]
        town.export(stick)
        names = {name.partition("titles/")[2].partition("/")[0] for name in files(stick) if "titles/" in name}
        assert names == {"sea"}
        done = hut.bring(stick, town)
        assert [(one.title, one.missing_blocks) for one in done.titles] == [("sea", 0)]
        assert done.damaged == []


def test_no_block_is_kept_that_no_listed_title_reaches(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with houses(tmp_path, "town", "hut") as (town, hut):
        title = town.make("sea")
        town.export(stick)
        strange = [(Cid.of(RAW, data), data) for data in (b"a" * 1_000, b"b" * 1_000)]
        folder = town.disk(stick).folder / "titles" / "sea"
        car = header([title.root]) + b"".join(section(*block) for block in strange)
        (folder / "0000.car").write_bytes(car)
        (folder / "9999.car").write_bytes(car)
        done = hut.bring(stick, town)
        assert done.titles[0].missing_blocks == 0
        assert not any(hut.store.has(cid) for cid, _ in strange)
        assert hut.store.held_blocks == len(title.cids)


def test_blocks_in_any_order_and_nodes_that_come_last_are_all_found(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with houses(tmp_path, "town", "hut") as (town, hut):
        title = town.make("sea")
        town.titles["sea"] = title._replace(cids=[title.cids[0], *reversed(title.cids[1:])])
        town.export(stick)
        done = hut.bring(stick, town)
        assert done.titles[0].missing_blocks == 0
        assert done.titles[0].new_blocks == len(title.cids)


def test_every_file_of_a_stick_may_be_rubbish(tmp_path: Path) -> None:
    random = Random(9)
    with houses(tmp_path, "town") as (town,):
        town.make("sea")
        for number in range(12):
            stick = tmp_path / f"stick{number}"
            stick.mkdir()
            town.export(stick)
            folder = town.disk(stick).folder
            (folder / "pulses").mkdir()
            (folder / "pulses" / ("0" * 32)).write_bytes(random.randbytes(90))
            (folder / "acks").write_bytes(random.randbytes(90))
            victims = [path for path in folder.rglob("*") if path.is_file()]
            for path in random.sample(victims, number % len(victims)):
                path.write_bytes(random.randbytes(random.randint(0, 2_000)))
            (folder / "titles" / "sea" / "0002.car").unlink()
            (folder / "titles" / "sea" / "0002.car").mkdir()
            with houses(tmp_path, f"hut{number}") as (hut,):
                done = hut.bring(stick, town)
                named = {one.file for one in done.damaged}
                assert {"acks", f"pulses/{'0' * 32}"} <= named
                assert "titles/sea/0002.car" in named
                assert all(hut.store.check(cid) for cid in hut.store.cids())
            town.export(stick)
            with houses(tmp_path, f"next{number}") as (hut,):
                done = hut.bring(stick, town)
                assert (done.damaged, done.titles[0].missing_blocks) == ([], 0)


def test_a_title_that_is_not_whole_is_not_begun(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with houses(tmp_path, "town") as (town,):
        title = town.make("sea")
        town.store.drop(title.cids[7])
        with pytest.raises(UsageError, match="sea is not whole here; `farcast keep sea`"):
            town.export(stick)
        assert not any(stick.iterdir())


def test_a_stick_with_links_and_pipes_leads_nowhere_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    stick, elsewhere = tmp_path / "stick", tmp_path / "elsewhere"
    stick.mkdir()
    (elsewhere / "diary").mkdir(parents=True)
    with houses(tmp_path, "town", "hut") as (town, hut):
        town.make("sea")
        town.export(stick)
        folder = town.disk(stick).folder
        (folder / "acks").unlink(missing_ok=True)
        os.mkfifo(folder / "acks")
        (folder / "titles" / "sea" / "0001.car").unlink()
        os.mkfifo(folder / "titles" / "sea" / "0001.car")
        done = hut.bring(stick, town)
        assert {one.file for one in done.damaged} == {"acks", "titles/sea/0001.car"}
        shutil.rmtree(folder / "titles")
        (folder / "titles").symlink_to(elsewhere)
        for work in (lambda: town.export(stick), lambda: hut.bring(stick, town)):
            with pytest.raises(UsageError, match="titles is a link") as caught:
                work()
            assert caught.value.reason == "bad_stick"
        assert [path.name for path in elsewhere.iterdir()] == ["diary"], "nothing was written or deleted"
