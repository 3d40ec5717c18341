"""Make ``cids.json``: what a real Kubo says about deterministic files and folders.

Usage: ``.ci/peers.sh kubo && python tests/vectors/make_cids.py``. Needs no Farcast code. The unit
tests compare our writer and reader with the file; the interop test asks Kubo again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcast-peers"

MIB = 1 << 20


class FileCase(NamedTuple):
    """One file: how long, in which chunks, how many links to a node."""

    name: str
    size: int
    chunk: int = MIB
    width: int = 1024


FILES = (
    FileCase("0 B", 0),
    FileCase("1 B", 1),
    FileCase("256 KiB", 256 << 10),
    FileCase("1 MiB", MIB),
    FileCase("1 MiB + 1", MIB + 1),
    FileCase("50 MiB", 50 * MIB),
    FileCase("50 MiB in old chunks", 50 * MIB, 256 << 10, 174),
    FileCase("174 leaves", 174 * 1000, 1000, 174),
    FileCase("175 leaves", 174 * 1000 + 1, 1000, 174),
    FileCase("30277 leaves", 174 * 174 * 10 + 1, 10, 174),
    FileCase("1024 leaves", 1024 * 100, 100),
    FileCase("1025 leaves", 1024 * 100 + 1, 100),
    FileCase("2048 leaves", 2048 * 100, 100),
    FileCase("2049 leaves", 2048 * 100 + 1, 100),
    FileCase("16 leaves by two", 1600, 100, 2),
    FileCase("17 leaves by two", 1601, 100, 2),
)


def stream(seed: str, size: int) -> bytes:
    """Return ``size`` bytes: SHA-256 of seed, NUL and an 8-byte counter, one after the other."""
    head = hashlib.sha256(seed.encode() + b"\0")
    parts: list[bytes] = []
    for counter in range(-(-size // 32)):
        part = head.copy()
        part.update(counter.to_bytes(8, "big"))
        parts.append(part.digest())
    return b"".join(parts)[:size]


ALPHABETS = ("é", "日本", "🎬", "ζ")

SORTED = ("a", "B", "a-b", "a.b", "a0/c", "aa", "é", "z", "Z", "😀", "\uffff")
"""Names whose order by bytes differs from the orders by letter and by UTF-16."""


def folders() -> dict[str, dict[str, bytes | None]]:
    """Return each folder as path to content; None is an empty folder."""
    return {
        "empty": {"": None},
        "one file": {"film.m3u8": b"#EXTM3U\n"},
        "nested": {
            "master.m3u8": b"#EXTM3U\n",
            "v720/init.mp4": stream("init", 700),
            "v720/0.m4s": stream("segment", MIB + 5),
            "v720/deep/er/still.txt": b"",
            "nothing here": None,
            ".hidden": b"seen all the same",
            "ζωή.txt": b"life",
            "日本/映画.txt": b"film",
            "emoji 🎬.txt": b"!",
        },
        "sorted by bytes": {name: name.encode() for name in SORTED},
        "largest plain folder": numbered(4_854),
        "smallest sharded folder": numbered(4_855),
        "sharded folder of 10,000": numbered(10_000),
        "sharded folder of 70,000": numbered(70_000),
        "sharded folder of many alphabets": {
            f"{ALPHABETS[number % 4]}{number} {'x' * (number % 60)}.txt": b"%d" % (number % 7)
            for number in range(5_000)
        },
        "sharded folder in a plain one": {f"all/{name}": data for name, data in numbered(4_900).items()},
    }  # fmt: skip


def numbered(count: int) -> dict[str, bytes | None]:
    """Return a folder of ``count`` empty files with names of ten digits."""
    return {f"{10**9 + number}": b"" for number in range(count)}


SHARDED = {f"leaf {number}": b"" for number in range(60)} | {"ζωή": b"life"}
"""Read only: a sharded folder, with so small a fanout that shards nest."""


class Kubo:
    """The ``ipfs`` program over a repository of its own, offline."""

    def __init__(self, program: str, home: Path) -> None:
        self._program = program
        repo = str(home / "repo")
        self._env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "IPFS_PATH": repo, "IPFS_TELEMETRY": "off"}
        self.run("init", "--profile=test,unixfs-v1-2025")

    @property
    def version(self) -> str:
        """The version number."""
        return self.run("version", "--number").decode().strip()

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run one offline command and return what it prints."""
        command = [self._program, "--offline", *arguments]
        return subprocess.run(
            command, env=self._env, input=stdin, stdout=subprocess.PIPE, timeout=100, check=True
        ).stdout

    def add(self, data: bytes, *options: str) -> str:
        """Add one file and return its CID."""
        return self.run("add", "-Q", *options, stdin=data).decode().strip()

    def add_folder(self, entries: dict[str, bytes | None], *options: str) -> str:
        """Add a folder and return its CID."""
        with tempfile.TemporaryDirectory() as scratch:
            for path, data in entries.items():
                place = Path(scratch, "folder", path)
                (place if data is None else place.parent).mkdir(parents=True, exist_ok=True)
                if data is not None:
                    place.write_bytes(data)
            folder = str(Path(scratch, "folder"))
            return self.run("add", "-Q", "-r", "--hidden", *options, folder).decode().strip()

    def file_cid(self, case: FileCase) -> str:
        """Add the file of ``case``; only hashed, because small chunks make very many files."""
        layout = ("--only-hash", f"--chunker=size-{case.chunk}", f"--max-file-links={case.width}")
        return self.add(stream(case.name, case.size), *layout)

    def car(self, cid: str) -> str:
        """Export a CID as base64 of a CAR."""
        return base64.b64encode(self.run("dag", "export", cid)).decode()


def ask(program: str, home: Path) -> dict[str, Any]:
    """Return the contents of ``cids.json`` as ``program`` makes them today."""
    kubo = Kubo(program, home)
    old = stream("old", 1000)
    layout = ("--chunker=size-100", "--max-file-links=3")
    reads = {
        "sharded folder": kubo.add_folder(dict(SHARDED), "--max-directory-links=8", "--max-hamt-fanout=8"),
        "CIDv0 file": kubo.add(old, "--cid-version=0", "--raw-leaves=false", *layout),
        "trickle file": kubo.add(old, "--trickle", *layout),
        "CIDv1 file with dag-pb leaves": kubo.add(old, "--raw-leaves=false", *layout),
    }
    return {
        "made_by": "tests/vectors/make_cids.py",
        "kubo": kubo.version,
        "profile": "unixfs-v1-2025",
        "content": "SHA-256(name || 0x00 || counter as 8 bytes, big-endian), counter from 0, cut to size",
        "files": [{**case._asdict(), "cid": kubo.file_cid(case)} for case in FILES],
        "folders": {name: kubo.add_folder(entries) for name, entries in folders().items()},
        "reads": {name: {"cid": cid, "car": kubo.car(cid)} for name, cid in reads.items()},
    }  # fmt: skip


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as home:
        made = ask(str(PEERS / "ipfs"), Path(home))
    (HERE / "cids.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
