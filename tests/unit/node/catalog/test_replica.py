"""The replica: one truth on disk, however many ways news comes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from farcast.node.catalog.replica import BEACONS_KEPT, Replica, catalog_name
from farcast.protocol.beacon import HOUR_MS, seal_beacon
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import Checkpoint, seal

ORIGIN = Identity(b"\1" * 32)
KEYS = [ORIGIN.key]
RING = Keyring(1, "Acme", ORIGIN.key, KEYS, KEYS, KEYS, KEYS, KEYS, [], [])
NAME = catalog_name(RING)
WAYS = 4
NEWS = 12


def heads(count: int) -> tuple[list[bytes], list[bytes]]:
    """Return ``count`` entries and the checkpoint after each."""
    catalog, notes = Catalog(), list[bytes]()
    for number in range(count):
        catalog.append(Entry(1, "publish", f"film-{number}", Cid.of(RAW, bytes([number])).encode(), number))
        notes.append(seal(Checkpoint(NAME, catalog.size, catalog.root, number), NAME, ORIGIN))
    return list(catalog.entries), notes


def at_once(*works: Callable[[], None]) -> list[Exception]:
    """Run everything in threads that start together; returns what they raised."""
    gate, raised = threading.Barrier(len(works)), list[Exception]()

    def run(work: Callable[[], None]) -> None:
        gate.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_the_same_news_by_several_ways_at_once_is_kept_once(tmp_path: Path) -> None:
    entries, notes = heads(NEWS)
    beacons = [seal_beacon(number * HOUR_MS, bytes(32), ORIGIN) for number in range(NEWS)]
    replica = Replica(tmp_path, lambda: RING)
    refused: set[str] = set()

    def hear() -> None:
        for number in range(NEWS):
            try:
                replica.advance(notes[number], 0, entries[: number + 1])
            except RemoteError as error:
                refused.add(error.reason)
            replica.accept_beacon(beacons[number])

    assert at_once(*[hear] * WAYS) == []
    assert refused <= {"stale", "rollback"}  # another way was ahead
    assert replica.catalog.entries == entries
    assert replica.checkpoint() == notes[-1]
    again = Replica(tmp_path, lambda: RING)
    again.load()
    assert (again.catalog.entries, again.checkpoint()) == (entries, notes[-1])
    assert again.beacons() == replica.beacons() == beacons


def test_a_kill_between_entries_and_checkpoint_keeps_the_older_head(tmp_path: Path) -> None:
    entries, notes = heads(2)
    replica = Replica(tmp_path, lambda: RING)
    replica.advance(notes[0], 0, entries[:1])
    older = (tmp_path / "checkpoint").read_bytes()
    replica.advance(notes[1], 1, entries[1:])
    (tmp_path / "checkpoint").write_bytes(older)
    again = Replica(tmp_path, lambda: RING)
    again.load()
    assert again.catalog.entries == entries[:1]
    assert again.advance(notes[1], 1, entries[1:]) == 1


def test_only_the_newest_beacons_are_kept(tmp_path: Path) -> None:
    replica = Replica(tmp_path, lambda: RING)
    beacons = [seal_beacon(number * HOUR_MS, bytes(32), ORIGIN) for number in range(BEACONS_KEPT + 1)]
    assert [replica.accept_beacon(data) for data in beacons] == [True] * len(beacons)
    assert replica.beacons() == beacons[1:]
    assert not replica.accept_beacon(beacons[-1])
