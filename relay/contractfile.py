"""What a contract must not forget, in one small file: the month's volume and whether it is paused."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..node.home import write_whole
from ..protocol.errors import UsageError
from .volume import Usage

FILE = "contract.json"


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content; ``paused_ms`` is when the operator paused the relay, 0 while it is not."""

    paused_ms: int = 0
    usage: Usage | None = None


class ContractFile:
    """Reads and replaces the file of one home; both block."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def read(self) -> Kept:
        """Return what was kept last, nothing on the first start.

        Raises:
            UsageError: where the file cannot be read; counting from 0 could cost the operator money.

        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.MsgspecError) as error:
            remedy = "mend it, or remove it to count the month from 0"
            message = f"{self._path} cannot be read ({error}); {remedy}"
            raise UsageError(message, reason="bad_contract") from error

    def write(self, kept: Kept) -> None:
        """Keep it durably: after a crash the file is this one or the one before."""
        write_whole(self._path, msgspec.json.encode(kept) + b"\n")
