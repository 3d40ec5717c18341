"""The lender: gives neighbours the symbols they missed of what the satellite sends."""

from __future__ import annotations

import asyncio

from ..protocol.errors import RefusedError, RemoteError
from ..protocol.symbols import ASK_LIMIT_BYTES, PATH
from ..satellite.antenna import Antenna
from .http.exchange import Answer, Exchange, Router

AT_ONCE = 2
"""Each may make a generation again in memory; who comes third waits for a moment and asks again."""
RETRY_S = 2


class Lender:
    """Answers ``POST /v1/symbols``; the public port of a viewer's node serves its own links alone."""

    def __init__(self, antenna: Antenna) -> None:
        self._antenna = antenna
        self._busy = 0

    def add_to(self, router: Router) -> None:
        """Add the route."""
        router.route("POST", PATH, self.lend)

    async def lend(self, exchange: Exchange) -> Answer:
        """Answer with FEC ids and symbols one after the other; 404 where there is none of them."""
        ask = await exchange.read(ASK_LIMIT_BYTES)
        if self._busy >= AT_ONCE:
            message = "others are being given symbols"
            raise RefusedError(message, status=429, retry_after_s=RETRY_S, reason="busy")
        self._busy += 1
        try:
            symbols = await asyncio.to_thread(self._antenna.lend, ask)
        except RemoteError as error:
            raise RefusedError(f"no ask for symbols: {error}", status=400, reason="bad_ask") from None
        finally:
            self._busy -= 1
        if not symbols:
            raise RefusedError("no symbols of this generation here", status=404, reason="not_held")
        return Answer(200, {"content-type": "application/octet-stream", "cache-control": "no-store"}, symbols)
