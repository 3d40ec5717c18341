"""Sealing: an encode's folder as a protected title has it, file by file, on the way into the store.

The clear files stay in the encode, which never leaves the publisher's box; no encrypted copy is
written beside them, because the blocks are that copy.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import file_digest, sha256
from pathlib import Path

from ...protocol.errors import LocalError, RemoteError
from ...protocol.manifest import Protection
from ...protocol.protection import is_playlist, is_sealed, lock_playlist, seal_file
from .contentkeys import ContentKeys

FILE_LIMIT_BYTES = 64 << 20
"""A file is encrypted in one piece, in memory; a node that opens it has the same limit."""


class Sealer:
    """Reads the files of one encode as they go into blocks."""

    def __init__(self, folder: Path, title: str, posters: Collection[str], keys: ContentKeys) -> None:
        """Choose the key; reads every file that is to be encrypted once. ``posters`` stay clear.

        Raises:
            LocalError: a file cannot be read.

        """
        self._folder = folder
        self._posters = posters
        self.key_id = keys.key_id(title, self._content())
        self._key = keys.key(self.key_id)

    @property
    def protection(self) -> Protection:
        """What the manifest says of it."""
        return Protection("aes-128", [self.key_id])

    def read(self, path: Path) -> bytes:
        """Return one file as the folder is to have it. Blocking, and safe from several threads.

        Raises:
            LocalError: it is too large, or a playlist that encryption does not go with.

        """
        name = path.relative_to(self._folder).as_posix()
        size_bytes = path.stat().st_size
        if size_bytes > FILE_LIMIT_BYTES:
            message = f"{path} has {size_bytes} bytes; a file of a protected title has at most 64 MiB"
            raise LocalError(message, reason="too_large")
        data = path.read_bytes()
        if is_sealed(name, self._posters):
            return seal_file(self._key, self.key_id, name, data)
        if not is_playlist(name) or not name.endswith(".m3u8"):
            return data
        try:
            return lock_playlist(data.decode(), name, self.key_id).encode()
        except (RemoteError, UnicodeDecodeError) as error:
            raise LocalError(f"{path} cannot be protected: {error}", reason="bad_playlist") from error

    def _content(self) -> bytes:
        """Hash names and bytes of all that will be encrypted."""
        digest = sha256()
        try:
            for path in sorted(self._folder.rglob("*")):
                inside = path.relative_to(self._folder)
                hidden = any(part.startswith(".") for part in inside.parts)
                if hidden or not path.is_file() or not is_sealed(inside.as_posix(), self._posters):
                    continue
                with path.open("rb") as file:
                    held = file_digest(file, "sha256").digest()
                digest.update(sha256(inside.as_posix().encode()).digest() + held)
        except OSError as error:
            message = f"{self._folder} cannot be read: {error.strerror}"
            raise LocalError(message, reason="unreadable") from error
        return digest.digest()
