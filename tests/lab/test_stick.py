"""A stick that is full, and one that is pulled out while it is written or read: real mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from farcast.node.stick.exporter import Exporter
from farcast.node.stick.freight import Cargo
from farcast.node.stick.importer import Importer
from farcast.protocol.errors import LocalError, StoreFullError
from farcast.tests.unit.node.stick.boxes import BOX, SIGNED_MS, VOLUME_BYTES, House, files, houses, silent


class Socket:
    """A place where a stick of some size can be plugged in, and pulled out though it is in use."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.place = place

    def plug(self, size: str) -> None:
        """Mount an empty stick."""
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "farcast-stick", str(self.place)]
        made = subprocess.run(words, check=False, capture_output=True, text=True, timeout=10)
        if made.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")

    def pull(self) -> None:
        """Take the stick away at once."""
        subprocess.run(["umount", "-l", str(self.place)], check=True, timeout=10)


@pytest.fixture
def socket(tmp_path: Path) -> Generator[Socket]:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a stick needs root")
    made = Socket(tmp_path / "socket")
    yield made
    with suppress(subprocess.CalledProcessError):
        while os.path.ismount(made.place):
            made.pull()


def cargo(house: House) -> Cargo:
    """Return all that a house has."""
    return Cargo(BOX, "Coast", [], [*house.titles.values()], frozenset(house.titles), SIGNED_MS)


def test_a_stick_pulled_out_is_one_sentence_nothing_goes_elsewhere_and_repeating_goes_on(
    tmp_path: Path, socket: Socket
) -> None:
    socket.plug("40m")
    kept = tmp_path / "kept"
    with houses(tmp_path, "town", "hut") as (town, hut):
        town.make("sea", files=30)
        exporter = Exporter(town.depot, volume_bytes=VOLUME_BYTES)

        def pull(stage: str, done: float, total: float = 1.0) -> None:
            if stage == "sea" and done > total / 2 and not kept.exists():
                shutil.copytree(socket.place, kept)  # what a stick has on it when it is pulled
                socket.pull()

        with pytest.raises(LocalError, match="was pulled out or fails at titles/sea/") as caught:
            exporter.run(town.disk(socket.place), cargo(town), pull)
        assert caught.value.reason == "stick_lost"
        assert "\n" not in str(caught.value)
        assert not any(socket.place.iterdir()), "the folder below the mount stays empty"
        socket.plug("40m")
        shutil.copytree(kept, socket.place, dirs_exist_ok=True)
        done = town.export(socket.place)
        assert 0 < done.titles[0].written_bytes < done.titles[0].bytes * 0.6
        before = files(socket.place)

        def pull_again(stage: str, done: float, total: float = 1.0) -> None:
            if stage == "sea" and done > total / 2:
                socket.pull()

        hut.titles = town.titles
        with pytest.raises(LocalError, match="was pulled out") as caught:
            Importer(hut.depot, hut).run(hut.disk(socket.place), [], pull_again)
        assert caught.value.reason == "stick_lost"
        held = hut.store.held_blocks
        assert held > 5
        socket.plug("40m")
        for name, data in before.items():
            (socket.place / name).parent.mkdir(parents=True, exist_ok=True)
            (socket.place / name).write_bytes(data)
        town.export(socket.place)
        found = hut.bring(socket.place, town)
        assert (found.titles[0].missing_blocks, found.damaged) == (0, [])
        assert found.titles[0].new_blocks == len(town.titles["sea"].cids) - held


def test_a_stick_that_is_too_small_is_told_before_and_one_that_fills_up_leaves_nothing_half_written(
    tmp_path: Path, socket: Socket
) -> None:
    socket.plug("3m")
    with houses(tmp_path, "town") as (town,):
        town.make("sea", files=30)
        with pytest.raises(StoreFullError, match=r"3\.\d MB free|2\.\d MB free") as caught:
            town.export(socket.place)
        assert caught.value.reason == "stick_full"
        assert not list(socket.place.rglob("*.car")), "nothing was begun"
        socket.pull()
        socket.plug("9m")
        exporter = Exporter(town.depot, volume_bytes=VOLUME_BYTES)

        def fill(stage: str, done: float, total: float = 1.0) -> None:
            if stage == "sea" and done > total / 2:  # somebody else writes to it too
                with suppress(OSError), (socket.place / "holiday.jpg").open("ab") as file:
                    file.write(bytes(8 << 20))

        with pytest.raises(StoreFullError, match="is full; make room") as caught:
            exporter.run(town.disk(socket.place), cargo(town), fill)
        assert caught.value.reason == "stick_full"
        assert not list(socket.place.rglob("*.part"))
        (socket.place / "holiday.jpg").unlink()
        done = town.export(socket.place)
        assert 0 < done.titles[0].written_bytes < done.titles[0].bytes
        Exporter(town.depot, volume_bytes=VOLUME_BYTES).run(town.disk(socket.place), cargo(town), silent)


def test_a_stick_that_is_locked_is_said_and_can_still_be_imported(tmp_path: Path, socket: Socket) -> None:
    socket.plug("40m")
    with houses(tmp_path, "town", "hut") as (town, hut):
        town.make("sea")
        town.export(socket.place)
        subprocess.run(["mount", "-o", "remount,ro", str(socket.place)], check=True, timeout=10)
        with pytest.raises(LocalError, match="cannot be written to: Read-only file system") as caught:
            town.export(socket.place)
        assert caught.value.reason == "read_only"
        done = hut.bring(socket.place, town)
        assert (done.titles[0].missing_blocks, done.damaged) == (0, [])
