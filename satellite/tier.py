"""The satellite as a tier: never asked, only waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..protocol.cid import Cid
from ..protocol.errors import UnreachableError
from ..protocol.ports import Source, TierName
from .antenna import Antenna

WAIT_LIMIT_S = 120.0


class SatelliteTier:
    """One source while the carousel is heard; its ``fetch`` waits for the block to fall from the sky."""

    name = TierName.SATELLITE
    metered = False

    def __init__(self, antenna: Antenna, *, wait_limit_s: float = WAIT_LIMIT_S) -> None:
        self._antenna = antenna
        self._wait_limit_s = wait_limit_s

    def sources(self) -> Sequence[Source]:
        """Return the carousel where it was heard in the last 30 s."""
        if not self._antenna.is_heard():
            return ()
        return (Source(self.name, "carousel", f"{self._antenna.group}:{self._antenna.port}"),)

    async def fetch(self, source: Source, cid: Cid) -> bytes:
        """Return the block once the carousel has brought it.

        Raises:
            UnreachableError: ``not_on_air`` where it did not come within the limit.

        """
        try:
            async with asyncio.timeout(self._wait_limit_s):
                return await self._antenna.wait_for(cid)
        except TimeoutError as error:
            msg = f"{source.name} brought no {cid} in {self._wait_limit_s:g} s"
            raise UnreachableError(msg, reason="not_on_air") from error
