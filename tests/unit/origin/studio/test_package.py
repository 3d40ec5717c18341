from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.cidpath import cid_of
from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.studio.ingest import ingest
from farcast.origin.studio.package import package, read_streams, write_playlists
from farcast.protocol.errors import LocalError, StoreFullError

MIB = 1 << 20


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    opened = DiskStore(tmp_path / "home", 256 * MIB, CollectorRegistry())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real encode of 4.2 s that nobody may change."""
    root = tmp_path_factory.mktemp("encode")
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4.2", "-f", "lavfi", "-i", "sine=d=4.2"]
    command = [find_ffmpeg(), "-loglevel", "error", *source, "-c:v", "mpeg4", str(root / "film.avi")]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return ingest(root / "film.avi", root / "encodes", quiet, preset="ultrafast").folder


@pytest.fixture
def folder(encode: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encode, tmp_path / "folder"))


def test_the_same_segments_make_the_same_root_wherever_they_lie(
    encode: Path, folder: Path, store: DiskStore, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(encode, tmp_path / "other"))
    roots: set[str] = set()
    for copy in (folder, other):
        write_playlists(copy, read_streams(copy), "en")
        roots.add(str(package(copy, store, quiet).root))
    assert roots == {str(cid_of(folder))}


def test_packaging_again_adds_nothing_and_counts_the_same(folder: Path, store: DiskStore) -> None:
    write_playlists(folder, read_streams(folder), "")
    first, second = package(folder, store, quiet), package(folder, store, quiet)
    assert first.new_blocks == first.blocks == store.held_blocks
    assert first.new_bytes == store.held_bytes
    assert (second.root, second.size_bytes, second.blocks) == (first.root, first.size_bytes, first.blocks)
    assert (second.new_blocks, second.new_bytes) == (0, 0)
    assert first.size_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_right_playlists_are_left_alone_and_wrong_ones_mended(folder: Path) -> None:
    streams = read_streams(folder)
    write_playlists(folder, streams, "en")
    master = folder / "master.m3u8"
    text, stamp = master.read_bytes(), master.stat().st_mtime_ns
    write_playlists(folder, streams, "en")
    assert master.stat().st_mtime_ns == stamp
    master.write_bytes(b"#EXTM3U\n")
    write_playlists(folder, streams, "en")
    assert master.read_bytes() == text


def test_progress_reaches_the_end_and_never_goes_back(folder: Path, store: DiskStore) -> None:
    seen: list[float] = []
    size = package(folder, store, lambda _stage, done, _total: seen.append(done)).size_bytes
    assert seen == sorted(seen)
    assert seen[-1] == size


def test_a_store_too_small_for_the_folder_says_which_setting_to_raise(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(6):
        (folder / str(index)).write_bytes(bytes([index]) * MIB)
    small = DiskStore(tmp_path / "home", 4 * MIB, CollectorRegistry())
    try:
        with pytest.raises(StoreFullError, match="quota_bytes"):
            package(folder, small, quiet)
    finally:
        small.close()


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "replaced", "no init"])
def test_a_damaged_encode_is_named_with_the_mend(folder: Path, damage: str) -> None:
    segment = folder / "v64" / "seg-00001.m4s"
    match damage:
        case "cut":
            segment.write_bytes(segment.read_bytes()[:-1])
        case "emptied":
            segment.write_bytes(b"")
        case "removed":
            segment.unlink()
        case "replaced":
            shutil.copy(folder / "v64" / "seg-00000.m4s", segment)
        case _:
            for init in folder.glob("v*/init.mp4"):
                init.unlink()
    with pytest.raises(LocalError, match="delete it and publish again") as caught:
        read_streams(folder)
    assert str(folder) in str(caught.value)
    assert caught.value.reason == "damaged"
