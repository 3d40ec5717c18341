from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.blocks.scrub import FOLDERS, Scrubbed, Scrubber
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
    scrubber = Scrubber(store, folder=FOLDERS - 1)
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
    scrubber = Scrubber(store)
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
    store = DiskStore(tmp_path, 10**9, CollectorRegistry())
    assert store.cids() == []
    found = Scrubber(store).step(10**9)
    assert (found.blocks, found.adopted) == (4, 3)
    assert {store.get(block(number)[0]) for number in range(4)} == {None, *(block(n)[1] for n in (1, 2, 3))}
    assert not torn.exists()
    assert (torn.parent / "notes.txt").exists()
    store.close()
