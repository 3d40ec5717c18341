"""The relays of a signed directory, opened again only when it is another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ...protocol.directory import RelayRecord, open_directory


class Listing:
    """Follows the directory that ``directory`` returns, signed by the catalog key that ``key`` returns."""

    def __init__(self, directory: Callable[[], bytes | None], key: Callable[[], bytes]) -> None:
        self._directory = directory
        self._key = key
        self._seen: bytes | None = None
        self._records: Sequence[RelayRecord] = ()

    def records(self) -> Sequence[RelayRecord]:
        """Return the relays as last followed."""
        return self._records

    async def follow(self) -> None:
        """Open the directory if it has changed: every record is verified, so this is for a thread."""
        data = self._directory()
        if data and data != self._seen:
            _, self._records = await asyncio.to_thread(open_directory, data, self._key())
            self._seen = data
