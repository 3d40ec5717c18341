"""The borrower: brings what a generation lacks from neighbours who heard more of it.

It asks only for generations that are no longer on air, so that nothing is carried twice while the sky
still sends it, and only boxes that discovery found on this link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter

from ..protocol.errors import FarcastError, RemoteError
from ..protocol.generation import FEC_ID_BYTES
from ..protocol.ports import Dialer, Source
from ..protocol.symbols import ANSWER_LIMIT_BYTES, ASK_SYMBOLS, PATH, SymbolAsk, pack_ask
from .antenna import Antenna
from .receiver import Gap

GAPS_AT_ONCE = 4
NEIGHBOURS_ASKED = 8
ROUNDS_LIMIT = 64
PAUSE_S = 2.0
"""Between two errands."""
REQUEST_TIMEOUT_S = 5.0
_OK, _NOT_FOUND = 200, 404


class Borrower:
    """One errand at a time; ``neighbours`` returns who is on the link."""

    def __init__(
        self,
        antenna: Antenna,
        dialer: Dialer,
        neighbours: Callable[[], Sequence[Source]],
        registry: CollectorRegistry,
    ) -> None:
        self._antenna = antenna
        self._dialer = dialer
        self._neighbours = neighbours
        self._asks = Counter(
            "farcast_satellite_neighbour_asks",
            "Requests to neighbours for symbols missed, by result.",
            ["result"],
            registry=registry,
        )
        self._borrowed = Counter(
            "farcast_satellite_borrowed_symbols", "Symbols that neighbours gave.", registry=registry
        )

    async def errand(self) -> None:
        """Ask every neighbour once about the generations that lack least."""
        for source in list(self._neighbours())[:NEIGHBOURS_ASKED]:
            for gap in (await self._antenna.gaps())[:GAPS_AT_ONCE]:
                await self._borrow(source, gap)

    async def _borrow(self, source: Source, gap: Gap) -> None:
        """Take from one neighbour what it has of one generation, piece by piece."""
        for _ in range(ROUNDS_LIMIT):
            try:
                symbols = await self._ask(source, gap)
            except FarcastError as error:
                self._asks.labels(error.reason).inc()
                return
            self._asks.labels("given" if symbols else "nothing").inc()
            if not symbols:
                return
            self._borrowed.inc(len(symbols))
            await self._antenna.given(gap.number, source, symbols)
            left = [one for one in await self._antenna.gaps() if one.number == gap.number]
            if not left or left[0].held == gap.held:
                return
            gap = left[0]

    async def _ask(self, source: Source, gap: Gap) -> list[bytes]:
        most = min(gap.lacking, ASK_SYMBOLS)
        ask = SymbolAsk(1, gap.number, gap.symbol_bytes, gap.held, most)
        reply = await self._dialer.request(
            source,
            "POST",
            PATH,
            body=pack_ask(ask),
            limit_bytes=ANSWER_LIMIT_BYTES,
            timeout_s=REQUEST_TIMEOUT_S,
        )
        if reply.status == _NOT_FOUND:
            return []
        size = FEC_ID_BYTES + gap.symbol_bytes
        if reply.status != _OK or len(reply.body) % size or len(reply.body) > most * size:
            message = (
                f"neighbour {source.name} answered {reply.status} and {len(reply.body)} bytes for symbols"
            )
            raise RemoteError(message, reason="bad_symbols")
        return [reply.body[at : at + size] for at in range(0, len(reply.body), size)]
