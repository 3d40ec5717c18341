"""Drafts: titles that are packaged and signed, but not in the catalog yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from ...node.blocks.store import DiskStore
from ...node.home import write_whole
from ...protocol.cid import Cid
from ...protocol.errors import LocalError, RemoteError
from ...protocol.identity import Identity
from ...protocol.manifest import Manifest, open_manifest, seal_manifest

NAME_LIMIT_BYTES = 256


class Drafts:
    """One file for each title in ``folder``, which names the draft's manifest; its blocks are pinned."""

    def __init__(self, folder: Path, store: DiskStore) -> None:
        self._folder, self._store = folder, store

    def put(self, title: str, cid: Cid, cids: Iterable[Cid]) -> None:
        """Keep a draft and its blocks; it replaces the title's draft of before."""
        before = self.find(title)
        self._store.pin(_label(title, cid), cids)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._folder / title, str(cid).encode())
        if before is not None and before != cid:
            self._store.unpin(_label(title, before))

    def find(self, title: str) -> Cid | None:
        """Return the CID of a title's draft; raises ``LocalError`` where its file is damaged."""
        path = self._folder / title
        try:
            with path.open("rb") as file:
                return Cid.parse(file.read(NAME_LIMIT_BYTES).decode())
        except FileNotFoundError:
            return None
        except (RemoteError, UnicodeDecodeError) as error:
            raise LocalError(f"{path} is damaged; delete it and publish again", reason="damaged") from error

    def manifest(self, title: str, cid: Cid) -> Manifest:
        """Return a draft's manifest; raises ``LocalError`` where its block is gone."""
        data = self._store.get(cid)
        if data is None:
            message = f"the draft of {title} is gone from the store; publish it again with --draft"
            raise LocalError(message, reason="no_manifest")
        return open_manifest(data)

    def titles(self) -> dict[str, Cid]:
        """Return every draft, by title."""
        names = sorted(path.name for path in self._folder.glob("[a-z0-9]*"))
        return {name: cid for name in names if (cid := self.find(name)) is not None}

    def blocks(self, title: str, cid: Cid) -> list[Cid]:
        """Return the blocks that a draft pins."""
        return list(self._store.pinned().get(_label(title, cid), ()))

    def drop(self, title: str) -> None:
        """Forget a title's draft, if there is one."""
        cid = self.find(title)
        if cid is not None:
            (self._folder / title).unlink()
            self._store.unpin(_label(title, cid))


def follow_up(draft: Manifest, previous: Manifest | None, publisher: Identity) -> tuple[Cid, bytes, Manifest]:
    """Return a draft as the version after ``previous``, sealed: what it was where nothing came between."""
    manifest = msgspec.structs.replace(
        draft,
        version=previous.version + 1 if previous else 1,
        supersedes=seal_manifest(previous, publisher)[0].encode() if previous else b"",
    )
    return (*seal_manifest(manifest, publisher), manifest)


def _label(title: str, cid: Cid) -> str:
    return f"draft:{title}:{cid}"
