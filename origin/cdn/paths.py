"""The paths under which a cache may hold a title: its blocks, and its files by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import quote

from ...protocol.cid import DAG_PB, Cid
from ...protocol.errors import RemoteError
from ...protocol.unixfs import Load, MissingError, listing, parse

FILES_LIMIT = 400_000
DEPTH_LIMIT = 32


def block_path(cid: Cid) -> str:
    """Return how every Farcast box asks for a block."""
    return f"/ipfs/{cid}?format=raw"


def title_paths(title: str, roots: Iterable[Cid], blocks: Iterable[Cid], load: Load) -> list[str]:
    """Return the paths of ``blocks`` and of each file below ``roots``, as far as the folders are here."""
    found = dict.fromkeys(block_path(cid) for cid in sorted(blocks))
    for root in roots:
        for name in _files(root, load):
            found[f"/watch/{title}/{quote(name)}"] = None
    found[f"/watch/{title}/master.m3u8"] = None
    return list(found)


def _files(root: Cid, load: Load) -> Iterator[str]:
    waiting, told = [(root, "", 0)], 0
    while waiting and told < FILES_LIMIT:
        folder, prefix, depth = waiting.pop()
        try:
            links = listing(folder, load)
        except (MissingError, RemoteError):
            continue  # its blocks are gone already, or it is none of ours
        for link in links:
            name = f"{prefix}{link.name}"
            if link.cid.codec == DAG_PB and depth < DEPTH_LIMIT and _is_folder(link.cid, load):
                waiting.append((link.cid, f"{name}/", depth + 1))
            else:
                told += 1
                yield name


def _is_folder(cid: Cid, load: Load) -> bool:
    data = load(cid)
    try:
        return data is not None and parse(cid, data).kind in ("directory", "hamt")
    except RemoteError:
        return False
