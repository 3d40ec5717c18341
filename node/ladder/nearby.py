"""Nearby: neighbours who share what they fetch of a title, as the fetcher sees them."""

from __future__ import annotations

from typing import Protocol

from ...protocol.cid import Cid


class Nearby(Protocol):
    """Asked before the tiers, for a block of a title."""

    async def seek(self, title: str, cid: Cid, buffer_s: float | None) -> bool:
        """Return True once the block is in the store; False where this box is to fetch it, then ``found``."""
        ...

    def found(self, title: str, cid: Cid, *, here: bool) -> None:
        """Hear that this box fetched a block itself, or could not."""
        ...
