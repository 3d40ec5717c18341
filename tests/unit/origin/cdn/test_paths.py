"""Under which paths a cache may hold a title."""

from __future__ import annotations

from farcast.origin.cdn.paths import title_paths
from farcast.protocol.cid import Cid
from farcast.protocol.unixfs import Entry, FileWriter, directory

BLOCKS: dict[Cid, bytes] = {}


def file(data: bytes) -> Entry:
    writer = FileWriter()
    blocks = writer.push(data)
    rest, entry = writer.finish()
    BLOCKS.update((*blocks, *rest))
    return entry


def folder(entries: dict[str, Entry]) -> Entry:
    cid, block, entry = directory(entries)
    BLOCKS[cid] = block
    return entry


def test_blocks_by_their_cid_and_files_by_their_names_below_all_folders() -> None:
    inner = folder({"seg 1.m4s": file(b"s" * 3_000_000), "index.m3u8": file(b"i")})
    root = folder({"master.m3u8": file(b"m"), "v0": inner, "ü.vtt": file(b"v")})
    some = list(BLOCKS)[:2]
    found = title_paths("film", [root.cid], some, BLOCKS.get)
    assert {path for path in found if path.startswith("/ipfs/")} == {
        f"/ipfs/{cid}?format=raw" for cid in some
    }
    assert {path for path in found if path.startswith("/watch/")} == {
        "/watch/film/master.m3u8",
        "/watch/film/v0/seg%201.m4s",
        "/watch/film/v0/index.m3u8",
        "/watch/film/%C3%BC.vtt",
    }
    assert len(found) == len(set(found))


def test_folders_that_are_gone_leave_the_one_name_that_every_title_has() -> None:
    root = folder({"v0": folder({"a": file(b"a")})})
    assert title_paths("film", [root.cid], [], lambda _: None) == ["/watch/film/master.m3u8"]
    part = {root.cid: BLOCKS[root.cid]}
    assert "/watch/film/master.m3u8" in title_paths("film", [root.cid], [], part.get)
