"""The passphrase a command is given: the first line of a file."""

from __future__ import annotations

from pathlib import Path

from ..protocol.errors import UsageError

PASSPHRASE_LIMIT_BYTES = 4_096


def read_passphrase(path: Path | None) -> str | None:
    """Return the first line of a file, None without one; raises ``UsageError``."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            lines = file.read(PASSPHRASE_LIMIT_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the passphrase file {path} cannot be read: {error}") from error
    if not lines or not lines[0].strip():
        raise UsageError(f"the passphrase file {path} is empty")
    return lines[0].strip()
