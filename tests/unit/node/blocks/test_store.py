# pyright: reportPrivateUsage=false
from __future__ import annotations

import errno
import fcntl
import mmap
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import CollectorRegistry

from farcast.node.blocks.batch import GROUP_BLOCKS
from farcast.node.blocks.blockfiles import BLOCK_LIMIT_BYTES, BlockFiles
from farcast.node.blocks.s3fifo import Queue
from farcast.node.blocks.store import SPARE_BYTES, UNSYNCED_BLOCKS, DiskStore
from farcast.protocol.cid import IDENTITY, RAW, Cid
from farcast.protocol.errors import LocalError, RemoteError, StoreFullError
from farcast.protocol.ports import TierName

KB = 1_000


def block(number: int, size: int = KB) -> tuple[Cid, bytes]:
    data = number.to_bytes(4, "big") + bytes(size - 4)
    return Cid.of(RAW, data), data


def open_store(home: Path, quota_bytes: int = 10 * KB) -> tuple[DiskStore, CollectorRegistry]:
    registry = CollectorRegistry()
    return DiskStore(home, quota_bytes, registry), registry


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    opened, _ = open_store(tmp_path)
    yield opened
    opened.close()


def files_under(home: Path) -> set[str]:
    return {path.name for path in (home / "blocks").rglob("*") if path.is_file()}


def test_a_block_put_is_read_back_and_lies_under_its_digest(store: DiskStore, tmp_path: Path) -> None:
    cid, data = block(1)
    assert not store.has(cid)
    assert store.get(cid) is None
    assert store.put(cid, data, tier=TierName.CDN)
    assert not store.put(cid, data, tier=TierName.RELAY)
    assert store.has(cid)
    assert store.get(cid) == data
    fan = cid.digest.hex()
    assert store.path(cid) == (str(tmp_path / "blocks" / fan[:2] / str(cid)), KB)
    assert (store.held_bytes, store.held_blocks, store.cids()) == (KB, 1, [cid])


def test_wrong_bytes_are_refused_and_leave_nothing(store: DiskStore, tmp_path: Path) -> None:
    cid, data = block(1)
    with pytest.raises(RemoteError) as caught:
        store.put(cid, data[:-1])
    assert caught.value.reason == "hash_mismatch"
    big = bytes(BLOCK_LIMIT_BYTES + 1)
    with pytest.raises(RemoteError) as caught:
        store.put(Cid.of(RAW, big), big)
    assert caught.value.reason == "too_large"
    assert files_under(tmp_path) == set()


def test_an_identity_cid_is_never_stored(store: DiskStore, tmp_path: Path) -> None:
    cid = Cid(RAW, b"inside", IDENTITY)
    assert store.has(cid)
    assert store.get(cid) == b"inside"
    assert store.path(cid) is None
    assert not store.put(cid, b"inside")
    with pytest.raises(RemoteError):
        store.put(cid, b"other")
    assert files_under(tmp_path) == set()


def test_an_empty_block_is_a_block(store: DiskStore) -> None:
    cid = Cid.of(RAW, b"")
    assert store.put(cid, b"")
    assert store.get(cid) == b""
    assert store.path(cid) is not None


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove", "folder", "link"])
def test_a_corrupt_block_is_dropped_counted_and_may_come_again(tmp_path: Path, damage: str) -> None:
    store, registry = open_store(tmp_path)
    cid, data = block(1)
    store.put(cid, data)
    place = store.path(cid)
    assert place is not None
    file = Path(place[0])
    match damage:
        case "flip":
            file.write_bytes(data[:-1] + b"\1")
        case "cut":
            file.write_bytes(data[:-1])
        case "grow":
            file.write_bytes(data + b"\0")
        case "folder":
            file.unlink()
            (file / "inside").mkdir(parents=True)
        case "link":  # to the very bytes, for now
            (tmp_path / "elsewhere").write_bytes(data)
            file.unlink()
            file.symlink_to(tmp_path / "elsewhere")
        case _:
            file.unlink()
    assert store.get(cid) is None
    assert not store.has(cid)
    assert store.held_bytes == 0
    assert registry.get_sample_value("farcast_node_store_corrupt_blocks_total") == 1
    assert store.put(cid, data)
    assert store.get(cid) == data
    assert store.recheck(cid)
    assert files_under(tmp_path) == {str(cid)}
    store.close()


def test_a_folder_in_the_place_of_a_block_to_come_makes_room_for_it(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    cid, data = block(1)
    (tmp_path / "blocks" / cid.digest[:1].hex() / str(cid) / "inside").mkdir(parents=True)
    assert store.put(cid, data)
    assert store.get(cid) == data
    store.close()


def test_a_batch_is_there_when_it_ends_and_durable_after_a_sync(tmp_path: Path) -> None:
    store, registry = open_store(tmp_path, 10_000 * KB)
    store.put(*block(0))
    with store.batch() as batch:
        assert [batch.put(*block(number)) for number in (0, 1, 2, 1)] == [False, True, True, False]
        for number in range(3, 3 + 3 * GROUP_BLOCKS):
            assert batch.put(*block(number), hashed=True)
        with pytest.raises(RemoteError) as caught:
            batch.put(block(500)[0], b"other")
        assert caught.value.reason == "hash_mismatch"
    count = 3 + 3 * GROUP_BLOCKS
    assert all(store.get(block(number)[0]) == block(number)[1] for number in range(count))
    assert store.held_blocks == count
    assert list(store._unsynced) == [block(0)[0].encode()]
    store.sync()
    assert store._index.unsettled() == []
    assert store._reserved == 0
    assert registry.get_sample_value("farcast_node_store_blocks") == count
    store.close()


def test_a_batch_given_up_leaves_no_draft_and_no_room_taken(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)

    def give_up() -> None:
        with store.batch() as batch:
            for number in range(GROUP_BLOCKS + 5):
                batch.put(*block(number))
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert store.held_blocks in (0, GROUP_BLOCKS)
    assert len(files_under(tmp_path)) == store.held_blocks
    assert store._reserved == 0
    store.close()


def test_a_batch_that_finds_no_room_says_so_and_keeps_the_books(tmp_path: Path) -> None:
    store, registry = open_store(tmp_path)
    blocks = [block(number) for number in range(12)]
    store.pin("film", [cid for cid, _ in blocks])

    def put_all() -> None:
        with store.batch() as batch:
            for cid, data in blocks:
                batch.put(cid, data)

    for _ in range(2):  # ten of twelve have landed by then
        with pytest.raises(StoreFullError, match="quota_bytes"):
            put_all()
    assert store._reserved == 0
    assert len(files_under(tmp_path)) == store.held_blocks
    assert store.held_blocks == 10
    assert registry.get_sample_value("farcast_node_store_refused_blocks_total", {"reason": "store_full"}) == 4
    store.close()


def test_a_batch_larger_than_the_quota_evicts_what_it_brought_itself(store: DiskStore) -> None:
    with store.batch() as batch:
        for number in range(30):
            assert batch.put(*block(number))
    assert store.held_bytes == 10 * KB
    assert store.has(block(29)[0])


def test_a_disk_that_fails_to_keep_a_batch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, registry = open_store(tmp_path)

    def fails(fd: int) -> None:
        del fd
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(LocalError, match="does not keep") as caught, store.batch() as batch:
        batch.put(*block(1))
    assert caught.value.reason == "disk_failed"
    assert (
        registry.get_sample_value("farcast_node_store_refused_blocks_total", {"reason": "disk_failed"}) == 1
    )
    assert files_under(tmp_path) == set()
    assert store._reserved == 0
    monkeypatch.undo()
    store.close()


@pytest.mark.parametrize("part", ["file", "folder"])
def test_what_the_disk_fails_to_keep_of_a_batch_is_given_up_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    store, _ = open_store(tmp_path)
    lost = block(2)[0]
    broken = str(lost) if part == "file" else lost.digest[:1].hex()

    def fails(files: BlockFiles, name: str) -> bool:
        del files
        return Path(name).name != broken

    monkeypatch.setattr(BlockFiles, "sync_file", fails)
    batch = store.batch()
    batch.put(*block(1))
    batch.put(*block(2))
    with pytest.raises(LocalError, match="does not keep"), batch:
        pass
    monkeypatch.undo()
    store._index.flush()
    assert store._index.unsettled() == []
    assert (store.cids(), files_under(tmp_path)) == ([block(1)[0]], {str(block(1)[0])})
    assert store.put(*block(2))
    store.close()


def test_a_batch_syncs_before_its_rows_say_whole_and_each_file_and_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)
    sync, synced = BlockFiles.sync_file, list[str]()

    def note(files: BlockFiles, name: str) -> bool:
        assert len(store._index.unsettled()) == 2 * GROUP_BLOCKS
        synced.append(name)
        return sync(files, name)

    monkeypatch.setattr(BlockFiles, "sync_file", note)
    blocks = [block(number) for number in range(2 * GROUP_BLOCKS)]
    with store.batch() as batch:
        for cid, data in blocks:
            assert batch.put(cid, data)
        assert synced == []
    places = [Path(place[0]) for cid, _ in blocks if (place := store.path(cid))]
    assert sorted(synced) == sorted(map(str, {*places, *(place.parent for place in places), store.folder}))
    monkeypatch.undo()
    store.sync()
    assert store._index.unsettled() == []
    store.close()


@pytest.mark.parametrize(
    ("limit", "anchored"), [("ANCHOR_BLOCKS", GROUP_BLOCKS), ("ANCHOR_BYTES", GROUP_BLOCKS * KB)]
)
def test_a_long_batch_is_anchored_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, anchored: int
) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)
    monkeypatch.setattr(f"farcast.node.blocks.batch.{limit}", anchored)
    waiting: list[int] = []
    with store.batch() as batch:
        for number in range(2 * GROUP_BLOCKS + 1):
            batch.put(*block(number))
            waiting.append(len(store._unsynced))
    assert max(waiting) == 0
    assert store.held_blocks == 2 * GROUP_BLOCKS + 1
    assert store._unsynced == {}
    store.close()


def test_a_batch_that_failed_once_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)
    batch = store.batch()

    def fails(files: BlockFiles, draft: str, cid: Cid) -> None:
        del files, draft, cid
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def put_all() -> None:
        with batch:
            for number in range(GROUP_BLOCKS - 1):
                batch.put(*block(number))
            for number in (500, 501):  # the first of them fills a group, whose names find no room
                with pytest.raises(StoreFullError):
                    batch.put(*block(number))

    monkeypatch.setattr(BlockFiles, "admit", fails)
    with pytest.raises(StoreFullError):
        put_all()
    assert store.held_blocks == 0
    assert store._reserved == 0
    assert files_under(tmp_path) == set()
    store.close()


@pytest.mark.parametrize("size_bytes", [0, 1, 4_095, 4_096, 4_097, 1 << 20, (1 << 20) + 1, 2 << 20])
@pytest.mark.parametrize("works", [True, False])
def test_a_look_at_a_buffer_is_written_whole_past_the_cache_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, *, works: bool
) -> None:
    store, _ = open_store(tmp_path, 10 << 20)
    buffer = mmap.mmap(-1, (2 << 20) + mmap.PAGESIZE)
    buffer[:] = os.urandom(len(buffer))
    view = memoryview(buffer)[0 if works else 7 :][:size_bytes]  # no disk takes it from an odd address
    direct: list[int] = []
    control = fcntl.fcntl

    def note(fd: int, command: int, flags: int) -> int:
        direct.append(flags)
        return control(fd, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", note)
    cid = Cid.of(RAW, view)
    with store.batch() as batch:
        assert batch.put(cid, view)
    assert store.get(cid) == bytes(view)
    assert store.size(cid) == size_bytes
    assert direct == ([os.O_DIRECT, 0] if size_bytes >= mmap.PAGESIZE else [])
    store.close()


def use(store: DiskStore, cid: Cid, times: int = 2) -> None:
    for _ in range(times):
        assert store.path(cid)


def test_what_is_used_again_stays_and_what_passes_through_once_leaves(store: DiskStore) -> None:
    blocks = [block(number) for number in range(10)]
    for cid, data in blocks:
        store.put(cid, data)
    use(store, blocks[0][0])
    assert [store.get(blocks[1][0]) for _ in range(2)] == [blocks[1][1]] * 2
    store.path(blocks[2][0], use=False)
    store.path(blocks[2][0])
    for number in range(100, 160):
        cid, data = block(number)
        store.put(cid, data)
        assert store.held_bytes <= 10 * KB
    assert [store.has(cid) for cid, _ in blocks] == [True, True, *[False] * 8]


def test_a_block_that_comes_back_soon_stays(store: DiskStore) -> None:
    for number in range(12):
        store.put(*block(number))
    assert not store.has(block(0)[0])
    store.put(*block(0))
    for number in range(100, 160):
        store.put(*block(number))
    assert store.has(block(0)[0])


def test_queues_uses_and_ghosts_survive_a_restart(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    for number in range(11):
        store.put(*block(number))  # the last evicts the first
    use(store, block(1)[0])
    store.close()
    store, _ = open_store(tmp_path)
    store.put(*block(0))  # known to have left a moment ago
    for number in range(100, 130):
        store.put(*block(number))
    kept = [store.has(block(number)[0]) for number in range(11)]
    assert kept == [True, True, *[False] * 9]
    store.close()
    store, _ = open_store(tmp_path)
    for number in range(200, 230):
        store.put(*block(number))
    assert [store.has(block(number)[0]) for number in range(11)] == kept
    store.close()


def test_after_a_crash_the_queues_are_as_last_written_down(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    for number in range(10):
        store.put(*block(number))
    use(store, block(3)[0])
    store.sync()
    store._index.close()  # as a crash would
    store, _ = open_store(tmp_path)
    for number in range(100, 130):
        store.put(*block(number))
    assert [store.has(block(number)[0]) for number in range(10)] == [number == 3 for number in range(10)]
    store.close()


def test_a_store_of_the_time_before_queues_and_flat_folders_is_taken_over(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    blocks = [block(number) for number in range(10)]
    for cid, data in blocks:
        store.put(cid, data)
    store.pin("film", [blocks[9][0]])
    store.close()
    with closing(sqlite3.connect(tmp_path / "index.db")) as db:
        for statement in (
            "DROP TABLE ghost",
            "DROP TABLE note",
            "ALTER TABLE block DROP COLUMN queue",
            "ALTER TABLE block DROP COLUMN frequency",
            "ALTER TABLE block RENAME COLUMN turn TO last_used",
            "CREATE INDEX block_coldest ON block(last_used) WHERE pins = 0 AND state < 2",
            "CREATE INDEX block_pinned ON block(size) WHERE pins > 0 AND state < 2",
            "DELETE FROM _sqlite_migrations WHERE name = '0002_queues'",
        ):
            db.execute(statement)
        for age, (cid, _) in enumerate(reversed(blocks)):
            db.execute("UPDATE block SET last_used = ? WHERE cid = ?", (age, cid.encode()))
        db.commit()
    for file in [file for file in (tmp_path / "blocks").glob("??/*") if file.is_file()]:
        folder = file.parent / Cid.parse(file.name).digest[1:2].hex()
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    store, _ = open_store(tmp_path)
    assert all(store.get(cid) == data for cid, data in blocks)
    assert {path.parent.name for path in (tmp_path / "blocks").rglob("baf*")} == {
        cid.digest[:1].hex() for cid, _ in blocks
    }
    assert not [folder for folder in (tmp_path / "blocks").glob("??/??") if folder.is_dir()]
    store._used.clear()
    for number in range(100, 103):
        store.put(*block(number))
    # the least recently used that nothing pins make room for a tenth of new ones, then new ones do
    assert [number for number in range(10) if not store.has(blocks[number][0])] == [7, 8]
    store.close()


def test_eviction_finds_victims_when_everything_was_just_used(store: DiskStore) -> None:
    blocks = [block(number) for number in range(10)]
    for cid, data in blocks:
        store.put(cid, data)
    for cid, _ in blocks:
        use(store, cid)
    cid, data = block(100, 5 * KB)
    assert store.put(cid, data)
    assert [store.has(cid) for cid, _ in blocks] == [False] * 5 + [True] * 5


def test_pinned_blocks_stay_until_every_label_is_gone(store: DiskStore) -> None:
    blocks = [block(number) for number in range(10)]
    kept = [cid for cid, _ in blocks[:9]]
    store.pin("film", kept)  # before they are here
    store.pin("other", kept[:1])
    for cid, data in blocks:
        store.put(cid, data)
    for number in range(100, 105):
        cid, data = block(number)
        store.put(cid, data)
    assert all(store.has(cid) for cid in kept)
    assert {label: set(cids) for label, cids in store.pinned().items()} == {
        "film": set(kept),
        "other": set(kept[:1]),
    }
    store.unpin("film")
    for number in range(200, 220):
        cid, data = block(number)
        store.put(cid, data)
    assert [store.has(cid) for cid in kept] == [True, *[False] * 8]


def test_a_store_full_of_pins_refuses_with_a_sentence_and_evicts_nothing(store: DiskStore) -> None:
    blocks = [block(number) for number in range(10)]
    for cid, data in blocks:
        store.put(cid, data)
    store.pin("film", [cid for cid, _ in blocks[:9]])
    cid, data = block(100, 2 * KB)
    with pytest.raises(StoreFullError, match="quota_bytes"):
        store.put(cid, data)
    assert store.held_blocks == 10
    store.drop(blocks[0][0])
    assert store.put(cid, data)
    assert store.held_bytes == 10 * KB


def test_dropping_removes_even_a_pinned_block(store: DiskStore, tmp_path: Path) -> None:
    cid, data = block(1)
    store.put(cid, data)
    store.pin("film", [cid])
    assert store.drop(cid)
    assert not store.drop(cid)
    assert files_under(tmp_path) == set()


def test_a_smaller_quota_is_met_at_the_next_start(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    for number in range(10):
        store.put(*block(number))
    store.close()
    store, registry = open_store(tmp_path, 3 * KB)
    assert store.held_bytes == 3 * KB
    assert len(files_under(tmp_path)) == 3
    assert registry.get_sample_value("farcast_node_store_evicted_blocks_total") == 7
    store.close()


def test_what_each_tier_brought_is_counted_once_and_kept(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    store.put(*block(1), tier=TierName.CDN)
    store.put(*block(1), tier=TierName.MESH)
    store.put(*block(2), tier=TierName.SATELLITE)
    store.put(*block(3))
    store.drop(block(1)[0])
    store.close()
    store, registry = open_store(tmp_path)
    counts = {tier.label: tuple(brought) for tier, brought in store.bytes_by_tier().items()}
    assert counts == {"cdn": (1, KB), "relay": (0, 0), "mesh": (0, 0), "satellite": (1, KB)}
    assert registry.get_sample_value("farcast_node_block_bytes_total", {"tier": "cdn"}) == KB
    assert registry.get_sample_value("farcast_node_store_bytes") == 2 * KB
    assert registry.get_sample_value("farcast_node_store_blocks") == 2
    store.close()


def test_stray_drafts_are_removed_at_the_start(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    store.put(*block(1))
    store.close()
    (tmp_path / "blocks" / ".tmp" / "7").write_bytes(b"half")
    store, _ = open_store(tmp_path)
    assert files_under(tmp_path) == {str(block(1)[0])}
    assert store.put(*block(2))
    store.close()


def test_unsettled_blocks_are_hashed_again_after_a_crash(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)
    old, good, torn, missing = (block(number) for number in range(4))
    store.put(*old)
    store.sync()
    for cid, data in (good, torn, missing):
        store.put(cid, data)
    for cid, data, action in ((old[0], b"bad", "tear"), (*torn, "tear"), (*missing, "remove")):
        place = store.path(cid)
        assert place is not None
        Path(place[0]).unlink()
        if action == "tear":
            Path(place[0]).write_bytes(data[: len(data) // 2])
    again, _ = open_store(tmp_path, 10_000 * KB)  # the first one is left as a crash would
    assert again.has(old[0])  # settled long ago: not read at the start
    assert again.get(old[0]) is None  # but never served
    assert again.get(good[0]) == good[1]
    assert not again.has(torn[0])
    assert not again.has(missing[0])
    assert files_under(tmp_path) == {str(good[0])}
    again.close()


def test_old_arrivals_are_settled_as_new_ones_come(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path, 10_000 * KB)
    for number in range(UNSYNCED_BLOCKS + 20):
        store.put(*block(number))
    assert 0 < len(store._unsynced) <= UNSYNCED_BLOCKS
    store.sync()
    assert store._unsynced == {}
    assert store._index.unsettled() == []
    store.close()


def test_a_half_done_eviction_is_finished_at_the_start(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    cid, data = block(1)
    store.put(cid, data)
    store._index.leave([cid.encode()])  # the process dies before the file goes
    store, _ = open_store(tmp_path)
    assert not store.has(cid)
    assert files_under(tmp_path) == set()
    assert store.put(cid, data)
    assert store.get(cid) == data
    store.close()


def test_a_low_disk_evicts_and_an_empty_store_on_it_refuses(tmp_path: Path) -> None:
    free = 10**12
    store = DiskStore(tmp_path, 10 * KB, CollectorRegistry(), free_bytes=lambda _: free)
    for number in range(10):
        store.put(*block(number))
    free = SPARE_BYTES - KB
    assert store.put(*block(100))
    assert store.held_blocks == 9  # a kilobyte too little, and one for the block
    for cid in store.cids():
        store.drop(cid)
    with pytest.raises(StoreFullError) as caught:
        store.put(*block(101))
    assert caught.value.reason == "disk_full"
    store.close()


def test_a_write_that_finds_the_disk_full_evicts_and_tries_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = open_store(tmp_path)
    for number in range(4):
        store.put(*block(number))
    write, left = BlockFiles.write, [1]

    def full(files: BlockFiles, data: bytes) -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(files, data)

    monkeypatch.setattr(BlockFiles, "write", full)
    assert store.put(*block(100))
    assert store.cids() == [block(100)[0]]
    left[0] = 2
    with pytest.raises(StoreFullError):
        store.put(*block(101))
    assert store.put(*block(102))  # the room kept for the failed one is free again
    assert store._reserved == 0
    assert len(files_under(tmp_path)) == store.held_blocks
    store.close()


def test_a_damaged_index_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"this is no database, only some text" * 100)
    with pytest.raises(LocalError, match=r"index\.db is damaged") as caught:
        open_store(tmp_path)
    assert caught.value.reason == "damaged"


def test_many_threads_agree(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path, 40 * KB)
    blocks = [block(number) for number in range(60)]
    wrong: list[Cid] = []
    new = [0] * 6

    def work(seed: int) -> None:
        for step in range(200):
            cid, data = blocks[(step * (seed + 1) + seed) % len(blocks)]
            new[seed] += store.put(cid, data, tier=TierName.RELAY)
            if store.get(cid) not in (None, data):
                wrong.append(cid)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert store.held_bytes == KB * store.held_blocks <= 40 * KB
    assert store.bytes_by_tier()[TierName.RELAY].blocks == sum(new)
    assert len(files_under(tmp_path)) == store.held_blocks
    store.close()
    again, registry = open_store(tmp_path, 40 * KB)
    assert all(again.get(cid) is not None for cid in again.cids())
    assert registry.get_sample_value("farcast_node_store_corrupt_blocks_total") == 0
    again.close()


class StoreMachine(RuleBasedStateMachine):
    """Any order of puts, reads, drops, pins and restarts keeps the quota, the pins and the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.store, _ = open_store(self.home)
        self.pins: dict[str, set[Cid]] = {}

    @rule(number=st.integers(0, 11), size=st.sampled_from([KB, 2 * KB, 4 * KB]))
    def put(self, number: int, size: int) -> None:
        """Put one block, or find that pins leave no room."""
        cid, data = block(number, size)
        try:
            self.store.put(cid, data)
        except StoreFullError:
            pinned = sum(held for cid, held in self.sizes().items() if cid in self.pinned())
            assert pinned + size > 10 * KB
        else:
            assert self.store.get(cid) == data

    @rule(number=st.integers(0, 11), size=st.sampled_from([KB, 2 * KB, 4 * KB]))
    def drop(self, number: int, size: int) -> None:
        """Drop one block, held or not."""
        self.store.drop(block(number, size)[0])

    @rule(numbers=st.lists(st.integers(0, 11), max_size=5), size=st.sampled_from([KB, 2 * KB]))
    def put_batch(self, numbers: list[int], size: int) -> None:
        """Put blocks in a batch, or find that pins leave no room."""
        try:
            with self.store.batch() as batch:
                for number in numbers:
                    batch.put(*block(number, size))
        except StoreFullError:
            assert self.pins

    @rule(number=st.integers(0, 11), size=st.sampled_from([KB, 2 * KB, 4 * KB]))
    def get(self, number: int, size: int) -> None:
        """Use one block, held or not."""
        cid, data = block(number, size)
        assert self.store.get(cid) == (data if self.store.has(cid) else None)

    @rule(label=st.sampled_from("ab"), number=st.integers(0, 11), size=st.sampled_from([KB, 2 * KB, 4 * KB]))
    def pin(self, label: str, number: int, size: int) -> None:
        """Pin one block, held or not."""
        cid = block(number, size)[0]
        self.store.pin(label, [cid])
        self.pins.setdefault(label, set()).add(cid)

    @rule(label=st.sampled_from("ab"))
    def unpin(self, label: str) -> None:
        """Give up a label."""
        self.store.unpin(label)
        self.pins.pop(label, None)

    @rule(clean=st.booleans())
    def restart(self, *, clean: bool) -> None:
        """Close, or die without closing, and open again."""
        before = set(self.store.cids())
        if clean:
            self.store.close()
        else:
            self.store._index.close()
        self.store, _ = open_store(self.home)
        assert set(self.store.cids()) == before

    def pinned(self) -> set[Cid]:
        """Return every pinned CID of the model."""
        return {cid for cids in self.pins.values() for cid in cids}

    def sizes(self) -> dict[Cid, int]:
        """Return the size of every block held."""
        return {cid: place[1] for cid in self.store.cids() if (place := self.store.path(cid))}

    @invariant()
    def books_agree(self) -> None:
        """Compare memory, files, index and model."""
        sizes = self.sizes()
        assert self.store.held_bytes == sum(sizes.values()) <= 10 * KB
        assert files_under(self.home) == {str(cid) for cid in sizes}
        pinned = sum(size for cid, size in sizes.items() if cid in self.pinned())
        assert self.store._fifo.bytes_in(Queue.PINNED) == pinned
        assert {label: set(cids) for label, cids in self.store.pinned().items()} == self.pins

    def teardown(self) -> None:
        """Remove the home."""
        self.store.close()
        self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
