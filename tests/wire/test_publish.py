"""A film from the file to a player: real ffmpeg in, real blocks, real ffmpeg out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.cidpath import cid_of
from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.publish import Published, publish
from farcast.origin.studio.film import load_film
from farcast.protocol.cid import Cid
from farcast.protocol.identity import Identity
from farcast.protocol.unixfs import content, leaves, listing, parse

PUBLISHER = Identity(b"w" * 32)
FILM_S = 5.0


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskStore]:
    opened = DiskStore(tmp_path_factory.mktemp("home"), 256 << 20, CollectorRegistry())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def encodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encodes")


@pytest.fixture(scope="module")
def published(store: DiskStore, encodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Publish a film with 5.1 sound at an awkward frame rate, as film.toml beside it says."""
    media = tmp_path_factory.mktemp("media") / "film.mkv"
    source = ["-f", "lavfi", "-i", f"testsrc2=s=426x240:r=30000/1001:d={FILM_S}", "-f", "lavfi"]
    source += ["-i", f"aevalsrc='sin(3000*t)|0|0|0|0|0':c=5.1:s=44100:d={FILM_S}"]
    command = [find_ffmpeg(), "-loglevel", "error", *source, "-c:v", "mpeg4", "-c:a", "aac", str(media)]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    media.with_name("film.toml").write_text(
        'title = "wire"\nlanguage = "en"\n[[payees]]\npayee = "anna"\npoints = 10000\n'
    )
    film = load_film(media)
    return publish(media, film, encodes, store, PUBLISHER, None, 1_000, "ultrafast", quiet)


@pytest.fixture(scope="module")
def unpacked(published: Published, store: DiskStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rebuild the folder from nothing but the manifest and the store."""
    folder = tmp_path_factory.mktemp("unpacked")
    _unpack(published.manifest.root_cid, store, folder)
    return folder


def _unpack(root: Cid, store: DiskStore, folder: Path) -> None:
    for name, cid, _ in listing(root, store.get):
        data = store.get(cid)
        assert data is not None
        if parse(cid, data).kind == "directory":
            (folder / name).mkdir()
            _unpack(cid, store, folder / name)
        else:
            parts = [content(leaf, store.get(leaf.cid) or b"") for leaf in leaves(cid, store.get)]
            (folder / name).write_bytes(b"".join(parts))


def test_the_store_gives_back_the_folder_that_was_encoded(published: Published, unpacked: Path) -> None:
    encode = published.folder
    files = {path.relative_to(encode): path.read_bytes() for path in encode.rglob("*") if path.is_file()}
    assert {
        path.relative_to(unpacked): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()
    } == files
    assert sum(map(len, files.values())) == published.manifest.size_bytes
    assert cid_of(unpacked) == published.manifest.root_cid


def test_ffmpeg_plays_every_rendition_of_the_unpacked_film_to_its_end(
    published: Published, unpacked: Path
) -> None:
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "warning", "-xerror"]
    command += ["-i", str(unpacked / "master.m3u8"), "-map", "0", "-progress", "pipe:1", "-f", "null", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60, text=True)
    assert done.stderr == ""
    last = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert int(last["out_time_us"]) / 1e6 == pytest.approx(FILM_S, abs=0.1)
    film_s = published.manifest.duration_ms / 1000
    assert film_s == pytest.approx(FILM_S, abs=0.05)
    assert int(last["frame"]) == round(film_s * 30000 / 1001)
    for one in published.manifest.renditions:
        lines = (unpacked / one.path).read_text().splitlines()
        lengths = [float(line[8:-1]) for line in lines if line.startswith("#EXTINF:")]
        assert len(lengths) == one.segments
        assert sum(lengths) == pytest.approx(film_s, abs=0.05)


def test_kubo_gives_the_folder_the_same_root(
    published: Published, unpacked: Path, tmp_path: Path, need: Callable[..., str]
) -> None:
    ipfs = need("ipfs")
    home = {**os.environ, "IPFS_PATH": str(tmp_path / "ipfs")}
    for arguments in (
        ["init", "--profile=test,unixfs-v1-2025"],
        ["add", "--recursive", "--only-hash", "--quieter", str(unpacked)],
    ):
        done = subprocess.run(
            [ipfs, *arguments], env=home, check=True, capture_output=True, timeout=60, text=True
        )
    assert done.stdout.strip() == str(published.manifest.root_cid)
