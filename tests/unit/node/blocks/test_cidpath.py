from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from farcast.node import cli
from farcast.node.blocks.cidpath import Keep, add, cid_of
from farcast.protocol.cid import RAW, Bytes, Cid
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.unixfs import content, leaves, listing, resolve

MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "none").mkdir()
    (root / "empty").write_bytes(b"")
    (root / "small é").write_bytes(b"small")
    (root / "deep" / "er" / "large").write_bytes(os.urandom(2 * MIB + 5))
    (root / "deep" / "one").write_bytes(bytes(MIB))
    return root


def into(blocks: dict[Cid, bytes]) -> Keep:
    """Return what copies every block into ``blocks``, as a block is only lent."""

    def keep(cid: Cid, data: Bytes) -> None:
        blocks[cid] = bytes(data)

    return keep


def test_one_small_file_is_one_raw_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    assert cid_of(path) == Cid.of(RAW, b"hello")


def test_every_byte_of_a_folder_is_in_the_blocks(folder: Path) -> None:
    blocks: dict[Cid, bytes] = {}
    root = add(folder, into(blocks)).cid
    assert all(cid.matches(data) for cid, data in blocks.items())
    for path in folder.rglob("*"):
        cid = resolve(root, path.relative_to(folder).parts, blocks.get)
        if path.is_file():
            parts = leaves(cid, blocks.get)
            assert b"".join(content(leaf, blocks[leaf.cid]) for leaf in parts) == path.read_bytes()


def test_names_with_a_dot_in_front_are_left_out_but_may_be_asked_for(folder: Path) -> None:
    before = cid_of(folder)
    (folder / ".hidden").write_bytes(b"secret")
    (folder / "deep" / ".draft").write_bytes(b"secret")
    assert cid_of(folder) == before
    assert cid_of(folder / ".hidden") == Cid.of(RAW, b"secret")


def test_the_cid_is_the_one_kubo_gives(folder: Path, tmp_path: Path, need: Callable[..., str]) -> None:
    ipfs = need("ipfs")
    home = {**os.environ, "IPFS_PATH": str(tmp_path / "ipfs")}
    subprocess.run(
        [ipfs, "init", "--profile=test,unixfs-v1-2025"], env=home, check=True, capture_output=True, timeout=60
    )
    done = subprocess.run(
        [ipfs, "add", "--recursive", "--only-hash", "--quieter", str(folder)],
        env=home,
        check=True,
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert str(cid_of(folder)) == done.stdout.strip()


@pytest.mark.parametrize("name", ["smallest sharded folder", "sharded folder of many alphabets"])
def test_a_folder_too_large_for_one_block_is_sharded_as_kubo_does(
    name: str,
    tmp_path: Path,
    vectors: Callable[[str], Any],
    vector_script: Callable[[str], ModuleType],
) -> None:
    files = vector_script("make_cids").folders()[name]
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    blocks: dict[Cid, bytes] = {}
    root = add(tmp_path, into(blocks)).cid
    assert str(root) == vectors("cids")["folders"][name]
    assert {link.name for link in listing(root, blocks.get)} == files.keys()
    done = CliRunner().invoke(cli.app, ["cid", str(tmp_path), "--json"])
    assert json.loads(done.stdout)["cid"] == str(root)


def test_nothing_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing does not exist"):
        cid_of(tmp_path / "nothing")


def test_links_and_devices_are_refused_by_name(folder: Path) -> None:
    (folder / "deep" / "link").symlink_to("/etc/passwd")
    with pytest.raises(LocalError, match="deep/link is neither a file nor a folder"):
        cid_of(folder)
    (folder / "deep" / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(LocalError, match="pipe is neither a file nor a folder"):
        cid_of(folder)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9").write_bytes(b"")
    with pytest.raises(LocalError, match="not printable text"):
        cid_of(tmp_path)


def test_a_folder_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "/".join(["d"] * 33)).mkdir(parents=True)
    with pytest.raises(LocalError, match="32 folders deep"):
        cid_of(tmp_path)


def test_an_error_in_one_file_stops_the_others(folder: Path) -> None:
    seen = threading.Event()

    def refuse(_cid: Cid, _data: Bytes) -> None:
        seen.set()
        raise LocalError("no room", reason="full")

    with pytest.raises(LocalError, match="no room"):
        add(folder, refuse)
    assert seen.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("add")]
