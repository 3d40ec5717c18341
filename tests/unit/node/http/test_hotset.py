from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from farcast.node.http.exchange import FilePart
from farcast.node.http.files import FileCache
from farcast.node.http.hotset import ASKED_KEPT, USES, HotSet
from farcast.protocol.cid import RAW, Cid

BLOCK_BYTES = 1_000


def _block(folder: Path, data: bytes | None = None) -> tuple[str, bytes]:
    data = os.urandom(BLOCK_BYTES) if data is None else data
    path = folder / str(Cid.of(RAW, data))
    path.write_bytes(data)
    return str(path), data


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a thread's work has no event
            await asyncio.sleep(0.005)


async def _warm(hot: HotSet, path: str) -> None:
    for _ in range(USES):
        assert hot.find(path) is None
    await _until(lambda: hot.find(path) is not None)


async def test_a_block_is_in_memory_after_a_few_uses_and_counted(tmp_path: Path) -> None:
    hot = HotSet(10 * BLOCK_BYTES)
    path, data = _block(tmp_path)
    await _warm(hot, path)
    hits = hot.hits
    assert hot.find(path) == data
    assert (hot.hits, hot.held_bytes, len(hot)) == (hits + 1, BLOCK_BYTES, 1)
    assert hot.misses >= USES
    await hot.close()
    assert not len(hot)


async def test_a_file_that_is_not_its_block_never_gets_in_and_is_told_of(tmp_path: Path) -> None:
    damaged: list[Cid] = []
    hot = HotSet(10 * BLOCK_BYTES, damaged=damaged.append)
    path, data = _block(tmp_path)
    _write(path, b"x" + data[1:])
    other = str(tmp_path / "no-cid")
    _write(other, data)
    for _ in range(3 * USES):
        assert hot.find(path) is None
        assert hot.find(other) is None
        assert hot.find(str(tmp_path / "gone")) is None
    await _until(lambda: damaged)
    await asyncio.sleep(0.05)
    assert damaged == [Cid.of(RAW, data)]
    assert not len(hot)


async def test_memory_stays_under_its_bound(tmp_path: Path) -> None:
    hot = HotSet(4 * BLOCK_BYTES)
    for _ in range(6):
        path, _ = _block(tmp_path)
        await _warm(hot, path)
        assert hot.held_bytes <= 3 * BLOCK_BYTES
        assert hot.held_bytes == len(hot) * BLOCK_BYTES
    await hot.close()


async def test_what_has_left_the_store_leaves_memory_with_the_next_epoch(tmp_path: Path) -> None:
    hot = HotSet(10 * BLOCK_BYTES)
    kept, gone = _block(tmp_path), _block(tmp_path)
    for path, _ in (kept, gone):
        await _warm(hot, path)
    held = {Cid.of(RAW, kept[1])}
    hot.sweep(held.__contains__, 1)
    assert len(hot) == 1
    assert hot.find(kept[0]) == kept[1]
    held.clear()
    hot.sweep(held.__contains__, 1)
    assert len(hot) == 1
    hot.sweep(held.__contains__, 2)
    assert not len(hot)


async def test_the_names_of_what_was_asked_for_are_bounded(tmp_path: Path) -> None:
    hot = HotSet(10 * BLOCK_BYTES)
    for number in range(3 * ASKED_KEPT):
        hot.find(str(tmp_path / str(number)))
    assert hot.asked <= ASKED_KEPT


async def test_parts_are_streamed_from_memory_where_they_are_in_it(tmp_path: Path) -> None:
    hot = HotSet(10 * BLOCK_BYTES)
    files = FileCache(hot=hot)
    path, data = _block(tmp_path)
    await _warm(hot, path)
    _write(path, b"")  # so that only memory can have it
    chunks = [chunk async for chunk in files.chunks([FilePart(path, 5, 900)], 256)]
    assert b"".join(chunks) == data[5:905]
    assert max(map(len, chunks)) <= 256
