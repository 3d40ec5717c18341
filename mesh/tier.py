"""The mesh as a tier: blocks from whoever is on the link and holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..protocol.cid import Cid
from ..protocol.errors import RefusedError
from ..protocol.ports import Dialer, Source, TierName

BLOCK_LIMIT_BYTES = 2 << 20
FETCH_TIMEOUT_S = 10.0


class MeshTier:
    """Asks a neighbour for a block it already has; nobody fetches anything on a neighbour's behalf."""

    name = TierName.MESH
    metered = False

    def __init__(self, dialer: Dialer, neighbours: Callable[[], Sequence[Source]]) -> None:
        self._dialer = dialer
        self._neighbours = neighbours

    def sources(self) -> Sequence[Source]:
        """Return the neighbours on the link now."""
        return self._neighbours()

    async def fetch(self, source: Source, cid: Cid) -> bytes:
        """Return the block's bytes, not yet verified.

        Raises:
            UnreachableError: no authenticated connection, or silence.
            RefusedError: an answer other than 200.
            RemoteError: ``wrong_key``; ``too_large`` past 2 MiB.

        """
        reply = await self._dialer.request(
            source,
            "GET",
            f"/ipfs/{cid}?format=raw",
            headers={"cache-control": "only-if-cached"},
            limit_bytes=BLOCK_LIMIT_BYTES,
            timeout_s=FETCH_TIMEOUT_S,
        )
        if reply.status != 200:  # noqa: PLR2004 - a block or nothing
            message = f"neighbour {source.name} answered {reply.status} for {cid}"
            retry_after = reply.headers.get("retry-after", "")
            retry_after_s = float(retry_after) if retry_after.isdecimal() else None
            raise RefusedError(message, status=reply.status, retry_after_s=retry_after_s)
        return reply.body
