from __future__ import annotations

from pathlib import Path

import pytest

from farcast.origin.studio.contentkeys import ContentKeys
from farcast.origin.studio.sealing import FILE_LIMIT_BYTES, Sealer
from farcast.protocol.errors import LocalError
from farcast.protocol.protection import open_file

KEYS = ContentKeys(b"s" * 32)
PLAYLIST = b'#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:2.0,\nseg-00000.m4s\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "v0").mkdir()
    for name, data in {
        "master.m3u8": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/index.m3u8\n",
        "poster.jpg": b"poster",
        "v0/index.m3u8": PLAYLIST,
        "v0/init.mp4": b"init",
        "v0/seg-00000.m4s": b"segment" * 100,
        ".draft": b"left over",
    }.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_segments_leave_sealed_and_what_tells_nothing_in_the_clear(folder: Path) -> None:
    sealer = Sealer(folder, "film", {"poster.jpg"}, KEYS)
    sealed = sealer.read(folder / "v0/seg-00000.m4s")
    assert b"segment" not in sealed
    key_id = sealer.protection.key_ids[0]
    assert open_file(KEYS.key(key_id), key_id, "v0/seg-00000.m4s", sealed) == b"segment" * 100
    for name in ("master.m3u8", "poster.jpg", "v0/init.mp4"):
        assert sealer.read(folder / name) == (folder / name).read_bytes()
    assert f"/v1/keys/{key_id.hex()}".encode() in sealer.read(folder / "v0/index.m3u8")


def test_the_key_holds_while_the_segments_do(folder: Path) -> None:
    first = Sealer(folder, "film", {"poster.jpg"}, KEYS).key_id
    (folder / "poster.jpg").write_bytes(b"another poster")
    (folder / ".draft").unlink()
    (folder / "master.m3u8").write_bytes(b"#EXTM3U\n")
    assert Sealer(folder, "film", {"poster.jpg"}, KEYS).key_id == first
    assert Sealer(folder, "other", {"poster.jpg"}, KEYS).key_id != first
    (folder / "v0/seg-00000.m4s").write_bytes(b"Segment" * 100)
    assert Sealer(folder, "film", {"poster.jpg"}, KEYS).key_id != first


def test_a_playlist_that_does_not_go_with_it_is_named(folder: Path) -> None:
    (folder / "v0/index.m3u8").write_bytes(PLAYLIST.replace(b"#EXTINF", b"#EXT-X-BYTERANGE:5@0\n#EXTINF"))
    sealer = Sealer(folder, "film", (), KEYS)
    with pytest.raises(LocalError, match=r"v0/index\.m3u8 cannot be protected: .*EXT-X-BYTERANGE"):
        sealer.read(folder / "v0/index.m3u8")


def test_a_file_too_large_for_memory_is_refused(folder: Path) -> None:
    with (folder / "v0/seg-00000.m4s").open("ab") as file:
        file.truncate(FILE_LIMIT_BYTES + 1)
    with pytest.raises(LocalError, match="at most 64 MiB"):
        Sealer(folder, "film", (), KEYS).read(folder / "v0/seg-00000.m4s")
