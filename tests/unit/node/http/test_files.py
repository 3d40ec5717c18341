from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farcast.node.http import files as files_module
from farcast.node.http.exchange import Answer, FilePart
from farcast.node.http.files import CHUNK_BYTES, FileCache
from farcast.protocol.errors import LocalError


def _file(folder: Path, name: str, size: int) -> tuple[str, bytes]:
    data = os.urandom(size)
    (folder / name).write_bytes(data)
    return str(folder / name), data


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_file_is_opened_once_while_it_is_cached(tmp_path: Path) -> None:
    path, _ = _file(tmp_path, "a", 10)
    files = FileCache()
    first = files.take(FilePart(path, 0, 10))
    second = files.take(FilePart(path, 5, 5))
    assert first is second
    files.release(first)
    files.release(second)
    assert _is_open(first.fd)
    files.close()
    assert first.fd == -1


def test_the_file_used_longest_ago_is_closed_once_nobody_uses_it(tmp_path: Path) -> None:
    paths = [_file(tmp_path, str(at), 1)[0] for at in range(3)]
    files = FileCache(limit=2)
    used, kept, _ = (files.take(FilePart(path, 0, 1)) for path in paths)
    assert len(files) == 2
    fd = used.fd
    assert _is_open(fd)
    files.release(used)
    assert used.fd == -1
    files.release(kept)
    assert kept.fd >= 0
    files.close()


def test_a_deleted_file_is_let_go(tmp_path: Path) -> None:
    path, _ = _file(tmp_path, "a", 1)
    files = FileCache()
    files.release(files.take(FilePart(path, 0, 1)))
    files.prune()
    assert len(files) == 1
    Path(path).unlink()
    files.prune()
    assert len(files) == 0


def test_a_part_past_the_end_is_truncated_and_the_file_opened_anew(tmp_path: Path) -> None:
    path, _ = _file(tmp_path, "a", 10)
    files = FileCache()
    with pytest.raises(LocalError) as caught:
        files.take(FilePart(path, 5, 6))
    assert caught.value.reason == "truncated"
    _file(tmp_path, "a", 11)
    files.release(files.take(FilePart(path, 5, 6)))
    files.close()


@pytest.mark.parametrize("nowait", [True, False])
async def test_parts_are_read_in_order_with_or_without_the_page_cache(
    tmp_path: Path,
    nowait: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not nowait:
        monkeypatch.setattr(files_module, "_NOWAIT", 0)
    path, data = _file(tmp_path, "a", CHUNK_BYTES * 2 + 7)
    files = FileCache()
    parts = [FilePart(path, 3, CHUNK_BYTES + 1), FilePart(path, 0, 5)]
    chunks = [chunk async for chunk in files.chunks(parts)]
    assert b"".join(chunks) == data[3 : CHUNK_BYTES + 4] + data[:5]
    assert max(map(len, chunks)) <= CHUNK_BYTES
    files.close()


async def test_a_file_cut_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path, data = _file(tmp_path, "a", CHUNK_BYTES * 3)
    files = FileCache()
    chunks = files.chunks([FilePart(path, 0, len(data))])
    assert await anext(chunks) == data[:CHUNK_BYTES]
    os.truncate(path, CHUNK_BYTES)
    with pytest.raises(LocalError, match="cut short"):
        await anext(chunks)
    with pytest.raises(LocalError, match="cannot be read"):
        await anext(files.chunks([FilePart(str(tmp_path / "none"), 0, 1)]))
    files.close()


async def test_any_body_is_streamed_in_bounded_chunks(tmp_path: Path) -> None:
    async def big() -> AsyncIterator[bytes]:
        yield b"a" * (CHUNK_BYTES + 1)
        yield b"b"

    files = FileCache()
    for body, size in ((big(), CHUNK_BYTES + 2), (b"c" * (CHUNK_BYTES + 1), CHUNK_BYTES + 1), (b"", 0)):
        chunks = [chunk async for chunk in files.stream(Answer(200, {}, body))]
        assert sum(map(len, chunks)) == size
        assert all(len(chunk) <= CHUNK_BYTES for chunk in chunks)
    path, data = _file(tmp_path, "a", 9)
    assert [chunk async for chunk in files.stream(Answer(200, {}, [FilePart(path, 0, 9)]))] == [data]
    files.close()


@pytest.mark.parametrize("declared", ["4", "6"])
async def test_an_iterator_of_another_length_than_declared_is_an_error(declared: str) -> None:
    closed: list[bool] = []

    async def five() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            yield b"de"
        finally:
            closed.append(True)

    answer = Answer(200, {"content-length": declared}, five())
    sent: list[bytes] = []

    async def drain() -> None:
        async for chunk in FileCache().stream(answer):
            sent.append(chunk)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(LocalError) as caught:
        await drain()
    assert caught.value.reason == "wrong_length"
    assert len(b"".join(sent)) <= int(declared)
    assert closed == [True]


def test_a_link_put_in_a_blocks_place_is_not_followed(tmp_path: Path) -> None:
    path, _ = _file(tmp_path, "elsewhere", 10)
    link = tmp_path / "block"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        FileCache().take(FilePart(str(link), 0, 10))
