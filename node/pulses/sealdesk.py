"""The seal desk: a carrier asks the origin for the verdicts on tickets whose pulses it knows of, for others.

A box that cannot reach the origin learns this way what of its viewing counts. The records are the
origin's and signed; this box neither reads nor keeps them longer than a minute.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ...protocol.errors import FarcastError, RefusedError
from ...protocol.ports import Dialer, Source
from ..http.exchange import Answer, Exchange, Router
from .spool import DiskSpool

PATH = "/v1/seals/"
TID_BYTES = 16
SEALS_LIMIT_BYTES = 1 << 20
FRESH_MS = 60_000
"""What was asked so lately is not asked again."""
REMEMBERED, REMEMBERED_BYTES = 256, 4 << 20
AT_ONCE = 4
REQUEST_TIMEOUT_S = 5.0
_MEDIA_TYPE = "application/vnd.farcast+msgpack"
_OK, _NONE_YET = 200, 404


class _Known(NamedTuple):
    at_ms: int
    body: bytes


class SealDesk:
    """Answers ``GET /v1/seals/{tid}`` of a relay or neighbour; ``upstream`` is whom it asks in turn."""

    def __init__(
        self,
        spool: DiskSpool,
        dialer: Dialer,
        upstream: Callable[[], Sequence[Source]],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._spool = spool
        self._dialer = dialer
        self._upstream = upstream
        self._clock_ms = clock_ms
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking = 0
        self._answers = Counter(
            "farcast_node_seals_asked", "Verdicts asked for on behalf of others, by result.", ["result"],
            registry=registry,
        )  # fmt: skip

    def add_to(self, router: Router) -> None:
        """Add the route."""
        router.route("GET", PATH + "{tid}", self.handle)

    async def handle(self, exchange: Exchange) -> Answer:
        """Answer with the origin's records as they are; 404 where there are none or none can be."""
        tid = read_tid(exchange.match["tid"])
        if not await asyncio.to_thread(self._spool.acks, [tid]):
            raise RefusedError("nothing of this ticket has passed here", status=404, reason="no_seal")
        known = self._known.get(tid)
        if known is None or self._clock_ms() - known.at_ms >= FRESH_MS:
            known = await self._asked(tid)
        if not known.body:
            raise RefusedError("no session of this ticket is closed yet", status=404, reason="no_seal")
        return Answer(200, {"content-type": _MEDIA_TYPE, "cache-control": "no-store"}, known.body)

    async def _asked(self, tid: bytes) -> _Known:
        if self._asking >= AT_ONCE:
            raise RefusedError("many ask for verdicts", status=429, retry_after_s=5, reason="busy")
        self._asking += 1
        try:
            for source in self._upstream():
                body = await self._ask(source, tid)
                if body is not None:
                    return self._remember(tid, body)
        finally:
            self._asking -= 1
        message = "the origin cannot be asked for verdicts now; try again later"
        raise RefusedError(message, status=503, retry_after_s=60, reason="unreachable")

    async def _ask(self, source: Source, tid: bytes) -> bytes | None:
        """Return what ``source`` has, empty where that is nothing; None where it does not answer."""
        try:
            reply = await self._dialer.request(
                source, "GET", PATH + tid.hex(), limit_bytes=SEALS_LIMIT_BYTES, timeout_s=REQUEST_TIMEOUT_S
            )
        except FarcastError as error:
            self._answers.labels(error.reason).inc()
            return None
        if reply.status not in (_OK, _NONE_YET):
            self._answers.labels("refused").inc()
            return None
        found = reply.body if reply.status == _OK else b""
        self._answers.labels("news" if found else "none_yet").inc()
        return found

    def _remember(self, tid: bytes, body: bytes) -> _Known:
        known = _Known(self._clock_ms(), body)
        self._known.pop(tid, None)
        self._known[tid] = known
        held = sum(len(one.body) for one in self._known.values())
        while len(self._known) > REMEMBERED or (held > REMEMBERED_BYTES and len(self._known) > 1):
            held -= len(self._known.popitem(last=False)[1].body)
        return known


def read_tid(text: str) -> bytes:
    """Return the ticket id that a path names; raises ``RefusedError`` 400."""
    try:
        tid = bytes.fromhex(text)
    except ValueError:
        tid = b""
    if tid.hex() != text or len(tid) != TID_BYTES:
        raise RefusedError("a ticket id is 32 hex digits", status=400, reason="bad_query")
    return tid
