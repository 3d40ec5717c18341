from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcast.node.catalog.replica import Replica
from farcast.origin import log as module
from farcast.origin.log import BEACONS_TOLD, CatalogLog
from farcast.protocol.beacon import HOUR_MS, open_beacon
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode
from farcast.protocol.errors import LocalError, RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import open_note

KEY = Identity(b"\1" * 32)
NAME = f"farcast/{KEY.peer_id}/catalog"
NOW_MS = 1_700_000_000_000
RING = Keyring(1, "Acme", KEY.key, [KEY.key], [KEY.key], [KEY.key], [KEY.key], [KEY.key], [], [])


def film(number: int) -> Cid:
    return Cid.of(RAW, b"manifest %d" % number)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CatalogLog]:
    log = CatalogLog(tmp_path / "catalog", KEY, NAME)
    yield log
    log.close()


def reopened(folder: Path) -> CatalogLog:
    log = CatalogLog(folder, KEY, NAME)
    log.close()
    return log


def test_what_is_appended_is_there_after_a_restart_under_a_signed_head(
    log: CatalogLog, tmp_path: Path
) -> None:
    assert log.append("publish", "bunny", film(1), NOW_MS) == 0
    assert log.append("publish", "sintel", film(2), NOW_MS + 1) == 1
    assert log.append("retire", "bunny", film(1), NOW_MS + 2) == 2
    again = reopened(tmp_path / "catalog")
    assert list(again.catalog.titles()) == ["sintel"]
    assert again.checkpoint() == log.checkpoint()
    head = open_note(again.checkpoint(), NAME, KEY.key)
    assert (head.size, head.root, head.time_ms) == (3, log.catalog.root, NOW_MS + 2)
    assert decode(Entry, again.catalog.entries[1]) == Entry(
        1, "publish", "sintel", film(2).encode(), NOW_MS + 1
    )


def test_an_empty_log_has_a_signed_head_too(log: CatalogLog) -> None:
    assert open_note(log.checkpoint(), NAME, KEY.key).size == 0


def test_a_follower_accepts_every_head_in_turn(log: CatalogLog, tmp_path: Path) -> None:
    replica = Replica(tmp_path / "replica", lambda: RING)
    for number in range(5):
        log.append("publish", f"film-{number}", film(number), NOW_MS + number)
        page = log.catalog.page(replica.catalog.size, log.catalog.size)
        assert replica.advance(log.checkpoint(), page.start, page.entries) == 1
    log.tick(NOW_MS + HOUR_MS + 10, b"\5" * 32)
    assert replica.advance(log.checkpoint(), 5, []) == 0
    assert replica.catalog.root == log.catalog.root


@pytest.mark.parametrize("kept", [1, 5, 6, 20])
def test_a_torn_tail_is_cut_off_and_the_log_goes_on(log: CatalogLog, tmp_path: Path, kept: int) -> None:
    log.append("publish", "bunny", film(1), NOW_MS)
    log.close()
    folder = tmp_path / "catalog"
    whole = (folder / "entries.log").read_bytes()
    (folder / "entries.log").write_bytes(whole + whole[:kept])
    again = CatalogLog(folder, KEY, NAME)
    assert again.catalog.size == 1
    again.append("publish", "sintel", film(2), NOW_MS + 1)
    again.close()
    assert sorted(reopened(folder).catalog.titles()) == ["bunny", "sintel"]


def test_an_entry_written_before_its_head_gets_one_at_the_next_start(log: CatalogLog, tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    log.append("publish", "bunny", film(1), NOW_MS)
    shutil.copy(folder / "checkpoint", tmp_path / "old")
    log.append("publish", "sintel", film(2), NOW_MS + 1)
    shutil.copy(tmp_path / "old", folder / "checkpoint")
    head = open_note(reopened(folder).checkpoint(), NAME, KEY.key)
    assert (head.size, head.root, head.time_ms) == (2, log.catalog.root, NOW_MS)


def test_a_log_shorter_than_its_published_head_is_refused_and_left_as_it_is(
    log: CatalogLog, tmp_path: Path
) -> None:
    folder = tmp_path / "catalog"
    log.append("publish", "bunny", film(1), NOW_MS)
    log.append("publish", "sintel", film(2), NOW_MS)
    damaged = bytearray((folder / "entries.log").read_bytes())
    damaged[8] ^= 1
    (folder / "entries.log").write_bytes(damaged)
    with pytest.raises(LocalError, match="holds 0 entries, but 2 are published") as caught:
        CatalogLog(folder, KEY, NAME)
    assert caught.value.reason == "rollback"
    assert (folder / "entries.log").read_bytes() == damaged


def test_a_damaged_head_or_beacon_file_is_named(log: CatalogLog, tmp_path: Path) -> None:
    log.tick(NOW_MS, b"\5" * 32)
    folder = tmp_path / "catalog"
    good = (folder / "beacons").read_bytes()
    (folder / "beacons").write_bytes(good[:-1])
    with pytest.raises(LocalError, match="beacons is damaged"):
        CatalogLog(folder, KEY, NAME)
    (folder / "beacons").write_bytes(good)
    (folder / "checkpoint").write_bytes(b"note")
    with pytest.raises(LocalError, match="checkpoint is damaged"):
        CatalogLog(folder, KEY, NAME)


def test_a_title_no_follower_would_accept_is_never_written(log: CatalogLog, tmp_path: Path) -> None:
    with pytest.raises(RemoteError):
        log.append("publish", "No Title", film(1), NOW_MS)
    assert reopened(tmp_path / "catalog").catalog.size == 0


def test_the_head_is_signed_again_hourly_and_never_with_an_earlier_time(log: CatalogLog) -> None:
    log.append("publish", "bunny", film(1), NOW_MS)
    first = log.checkpoint()
    log.tick(NOW_MS + HOUR_MS - 1, b"\5" * 32)
    assert log.checkpoint() == first
    log.tick(NOW_MS + HOUR_MS, b"\5" * 32)
    assert open_note(log.checkpoint(), NAME, KEY.key).time_ms == NOW_MS + HOUR_MS
    log.append("publish", "sintel", film(2), NOW_MS - HOUR_MS)
    assert open_note(log.checkpoint(), NAME, KEY.key).time_ms == NOW_MS + HOUR_MS


def test_each_hour_has_one_beacon_two_days_are_told_and_as_many_kept_as_pulses_may_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEACONS_KEPT", BEACONS_TOLD + 10)
    log = reopened(tmp_path / "catalog")
    first = NOW_MS // HOUR_MS
    hours = BEACONS_TOLD + 13
    for hour in range(hours):
        log.tick(NOW_MS + hour * HOUR_MS, bytes([hour]) * 32)
        log.tick(NOW_MS + hour * HOUR_MS + 60_000, b"\xff" * 32)
    again = reopened(tmp_path / "catalog")
    beacons = [open_beacon(data, KEY.key) for data in again.beacons()]
    assert [beacon.value[0] for beacon in beacons] == list(range(13, hours))
    assert [beacon.number for beacon in beacons] == [first + hour for hour in range(13, hours)]
    newest = again.newest_beacon()
    assert newest is not None
    assert newest.number == first + hours - 1
    assert again.beacon(first + 3) == bytes([3]) * 32
    assert again.beacon(first + hours - 1) == bytes([hours - 1]) * 32
    assert again.beacon(first + 2) is None
    assert again.beacon(first + hours) is None
