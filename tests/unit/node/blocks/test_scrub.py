from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.scrub import CIRCLE_S, FOLDERS, FOUND, Scrubbed, Scrubber
from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid

SIZE = 1_000


def block(number: int) -> tuple[Cid, bytes]:
    data = bytes([number]) * SIZE
    return Cid.of(RAW, data), data


def place_of(store: DiskStore, cid: Cid) -> Path:
    place = store.path(cid)
    assert place is not None
    return Path(place[0])


def test_rot_is_found_once_and_the_circle_goes_on(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    store = DiskStore(tmp_path, 10**9, registry)
    for number in range(6):
        store.put(*block(number))
    place_of(store, block(3)[0]).write_bytes(b"rot")
    store.keep_note("scrub", FOLDERS - 1)
    scrubber = Scrubber(store, registry)
    assert scrubber.step(10**9) == Scrubbed(6, 6 * SIZE, 1, 0, wrapped=True)
    assert scrubber.folder == FOLDERS - 1
    assert registry.get_sample_value("farcast_node_store_corrupt_blocks_total") == 1
    assert not store.has(block(3)[0])
    assert scrubber.step(10**9) == Scrubbed(5, 5 * SIZE, 0, 0, wrapped=True)
    store.close()


def test_a_step_reads_no_more_than_it_may(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    for number in range(6):
        store.put(*block(number))
    scrubber = Scrubber(store, CollectorRegistry())
    steps = [scrubber.step(2 * SIZE) for _ in range(3)]
    assert [step.blocks for step in steps] == [2, 2, 2]
    assert scrubber.step(2 * SIZE).wrapped
    store.close()


def test_a_lost_index_is_filled_again_from_the_files(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    for number in range(4):
        store.put(*block(number))
    torn = place_of(store, block(0)[0])
    store.close()
    torn.write_bytes(b"torn")
    (torn.parent / "notes.txt").write_text("not ours")
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    registry = CollectorRegistry()
    store = DiskStore(tmp_path, 10**9, registry)
    assert store.cids() == []
    found = Scrubber(store, registry).step(10**9)
    assert (found.blocks, found.adopted) == (4, 3)
    assert {store.get(block(number)[0]) for number in range(4)} == {None, *(block(n)[1] for n in (1, 2, 3))}
    assert not torn.exists()
    assert (torn.parent / "notes.txt").exists()
    assert counted(registry) == {
        "whole": 0,
        "corrupt": 0,
        "adopted": 3,
        "removed": 1,
        "full": 0,
        "foreign": 1,
    }
    store.close()


def test_a_block_whose_file_is_gone_is_found_too(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    store = DiskStore(tmp_path, 10**9, registry)
    for number in range(3):
        store.put(*block(number))
    place_of(store, block(1)[0]).unlink()
    assert Scrubber(store, registry).step(10**9).corrupt == 1
    assert not store.has(block(1)[0])
    assert counted(registry)["whole"] == 2
    assert registry.get_sample_value("farcast_node_store_scrubbed_bytes_total") == 3 * SIZE
    store.close()


def test_it_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    for number in range(20):
        store.put(*block(number))
    first = Scrubber(store, CollectorRegistry())
    read = first.step(8 * SIZE).blocks
    at = first.folder
    assert at > 0
    store.close()
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    again = Scrubber(store, CollectorRegistry())
    assert again.folder == at
    steps: list[Scrubbed] = []
    while not steps or not steps[-1].wrapped:
        steps.append(again.step(8 * SIZE))
    before = {cid for cid in store.cids() if cid.digest[0] < at}
    assert sum(step.blocks for step in steps) >= 20 - len(before) >= 20 - read
    store.close()


def test_a_folder_of_many_blocks_is_read_in_steps(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    same = [data for number in range(3_000) if Cid.of(RAW, data := b"%d" % number).digest[0] == 7]
    assert len(same) > 5
    for data in same:
        store.put(Cid.of(RAW, data), data)
    scrubber = Scrubber(store, CollectorRegistry())
    steps = [scrubber.step(3) for _ in same]
    assert [step.blocks for step in steps] == [1] * len(same)
    assert scrubber.step(3).wrapped
    store.close()


def test_a_small_store_is_read_once_in_a_while_only(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    store.put(*block(1))
    scrubber = Scrubber(store, CollectorRegistry())
    done = scrubber.turn(10**9, 100.0)
    assert done is not None
    assert done.wrapped
    assert scrubber.turn(10**9, 100.0 + CIRCLE_S - 1) is None
    assert scrubber.turn(10**9, 100.0 + CIRCLE_S) == done
    store.close()


def test_a_store_edited_behind_its_back_heals(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    store = DiskStore(tmp_path, 10**9, registry)
    blocks = {way: block(number) for number, way in enumerate(EDITS)}
    for cid, data in blocks.values():
        store.put(cid, data)
    store.sync()
    for way, (cid, data) in blocks.items():
        edit(place_of(store, cid), data, way)
    (tmp_path / "blocks" / "00").mkdir(exist_ok=True)
    (tmp_path / "blocks" / "00" / "notes.txt").write_text("not ours")
    stranger = b"a block nobody put here"
    stray = tmp_path / "blocks" / Cid.of(RAW, stranger).digest[:1].hex() / str(Cid.of(RAW, stranger))
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(stranger)
    found = Scrubber(store, registry).step(10**9)
    bad = len(EDITS) - 1
    assert (found.corrupt, found.adopted) == (bad, 1)
    assert counted(registry) == {
        "whole": 1, "corrupt": bad, "adopted": 1, "removed": 0, "full": 0, "foreign": 1,
    }  # fmt: skip
    assert registry.get_sample_value("farcast_node_store_corrupt_blocks_total") == bad
    for way, (cid, data) in blocks.items():
        assert store.get(cid) == (data if way == "touch" else None)
        assert store.path(cid) is None or way == "touch"
        store.put(cid, data)  # it comes again
        assert store.get(cid) == data
    assert store.get(Cid.of(RAW, stranger)) == stranger
    again = Scrubber(store, CollectorRegistry()).step(10**9)
    assert (again.corrupt, again.adopted, again.blocks) == (0, 0, len(EDITS) + 1)
    assert (tmp_path / "elsewhere").read_bytes() == blocks["link"][1]
    store.close()


def test_an_index_deleted_and_a_quota_lowered_meanwhile_end_in_order(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    for number in range(20):
        store.put(*block(number))
    store.close()
    for path in tmp_path.glob("index.db*"):
        path.unlink()
    registry = CollectorRegistry()
    store = DiskStore(tmp_path, 5 * SIZE, registry)
    assert Scrubber(store, registry).step(10**9).adopted == 20
    assert store.held_bytes == 5 * SIZE
    files = {path.name for path in (tmp_path / "blocks").rglob("*") if path.is_file()}
    assert files == {str(cid) for cid in store.cids()}
    assert all(store.get(cid) for cid in store.cids())
    store.close()


EDITS = ("touch", "delete", "cut", "flip", "grow", "empty", "folder", "link", "loop")


def edit(file: Path, data: bytes, way: str) -> None:
    """Do to a block's file what a person, a program or a bad disk may do."""
    match way:
        case "touch":
            os.utime(file, (1, 1))
        case "cut":
            file.write_bytes(data[:-1])
        case "flip":
            file.write_bytes(data[:-1] + b"!")
        case "grow":
            file.write_bytes(data + b"!")
        case "empty":
            file.write_bytes(b"")
        case _:
            file.unlink()
    elsewhere = file.parents[2] / "elsewhere"
    if way == "folder":
        (file / "inside").mkdir(parents=True)
    elif way == "link":
        elsewhere.write_bytes(data)
        file.symlink_to(elsewhere)
    elif way == "loop":
        file.symlink_to(file)


def counted(registry: CollectorRegistry) -> dict[str, float | None]:
    name = "farcast_node_store_scrubbed_files_total"
    return {found: registry.get_sample_value(name, {"found": found}) for found in FOUND}
