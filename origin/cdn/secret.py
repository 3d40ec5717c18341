"""A CDN's key: read from a file of its owner's alone or from the environment, shown to nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from ...protocol.errors import UsageError

SECRET_LIMIT_CHARS = 1_024


class Secret:
    """A key that prints as nothing, so that no log or traceback has it by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the key itself, for the one request or signature that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def read_secret(where: str, environ: Mapping[str, str]) -> Secret:
    """Return the key at ``where``: ``$NAME`` is a variable, anything else a file of mode 600.

    Raises:
        UsageError: where it is missing, empty, no single line of ASCII, or a file that others can read.

    """
    if where.startswith("$"):
        what, text = f"the variable {where[1:]}", environ.get(where[1:], "")
        if not text:
            raise UsageError(f"{what} is not set; the settings read a key from it", reason="bad_key")
    else:
        what, text = f"the key file {where}", _read(Path(where))
    text = text.strip()
    if not text or len(text) > SECRET_LIMIT_CHARS or not (text.isascii() and text.isprintable()):
        raise UsageError(f"{what} holds no key: expected one line of printable ASCII", reason="bad_key")
    return Secret(text)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())  # of what is open, so that nobody swaps it in between
            data = file.read(SECRET_LIMIT_CHARS + 2)
    except OSError as error:
        raise UsageError(
            f"the key file {path} cannot be read ({error.strerror})", reason="bad_key"
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        message = f"{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`"
        raise UsageError(message, reason="bad_key")
    return data.decode("ascii", "replace")
