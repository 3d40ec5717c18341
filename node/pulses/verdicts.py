"""Verdicts: asks what of this box's acked pulses counts, and keeps the origin's signed answers.

An ack means stored; a seal record says what of a closed session counts, and why not all of it. Where
the origin does not answer, relays and neighbours that carried the pulses are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import SealRecord, open_seal
from ...protocol.codec import decode
from ...protocol.errors import FarcastError, RemoteError
from ...protocol.keyring import Keyring
from ...protocol.ports import Dialer, Source
from .sealdesk import PATH, SEALS_LIMIT_BYTES
from .spool import DiskSpool

CLOSED_MS = 480_000
"""A pulse so old is of a session that five minutes of silence may have closed."""
ASK_FIRST_MS, ASK_LAST_MS = 600_000, 6 * 3_600_000
"""Between two questions about one ticket: each time twice as long until there is news."""
ASKED_AT_ONCE = 4
ANSWER_RECORDS = 2_000
REQUEST_TIMEOUT_S = 5.0
_OK, _NONE_YET = 200, 404


class Way(NamedTuple):
    """Somebody to ask, by which dialler; ``origin`` where its no is the last word."""

    dialer: Dialer
    source: Source
    origin: bool


class _Asked(NamedTuple):
    next_ms: int
    wait_ms: int


class Verdicts:
    """One errand at a time; ``ways`` says who may be asked now, the best first."""

    def __init__(
        self,
        spool: DiskSpool,
        ways: Callable[[], Sequence[Way]],
        keyring: Callable[[], Keyring | None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self._spool = spool
        self._ways = ways
        self._keyring = keyring
        self._clock_ms = clock_ms
        self._asked: dict[bytes, _Asked] = {}
        self._results = Counter(
            "farcast_node_seals", "Verdicts of the origin on own sessions, by result.", ["result"],
            registry=registry,
        )  # fmt: skip
        for result in ("news", "none_yet"):
            self._results.labels(result)

    async def errand(self) -> None:
        """Ask about the few tickets whose turn it is; failures are counted and cost a longer wait."""
        ways = self._ways()
        if not ways:
            return
        now_ms = self._clock_ms()
        tids = await asyncio.to_thread(self._spool.unjudged, now_ms - CLOSED_MS)
        self._asked = {tid: asked for tid, asked in self._asked.items() if tid in tids}
        due = [tid for tid in tids if tid not in self._asked or self._asked[tid].next_ms <= now_ms]
        for tid in due[:ASKED_AT_ONCE]:
            news = await self._ask(tid, ways)
            before = self._asked.get(tid)
            wait_ms = ASK_FIRST_MS if news or before is None else min(2 * before.wait_ms, ASK_LAST_MS)
            self._asked[tid] = _Asked(now_ms + wait_ms, wait_ms)

    async def _ask(self, tid: bytes, ways: Sequence[Way]) -> bool:
        """Return whether the first that knows of the ticket had a verdict we lacked."""
        for way in ways:
            try:
                reply = await way.dialer.request(
                    way.source, "GET", PATH + tid.hex(), limit_bytes=SEALS_LIMIT_BYTES,
                    timeout_s=REQUEST_TIMEOUT_S,
                )  # fmt: skip
                if reply.status == _OK:
                    items = decode(list[bytes], reply.body, limit_bytes=SEALS_LIMIT_BYTES)
                    return await self._take(tid, items)
                self._results.labels("none_yet" if reply.status == _NONE_YET else "refused").inc()
                if reply.status == _NONE_YET and way.origin:
                    return False
            except FarcastError as error:
                self._results.labels(error.reason).inc()
        return False

    async def _take(self, tid: bytes, items: list[bytes]) -> bool:
        keyring = self._keyring()
        keys = list(keyring.intake) if keyring else []

        def opened() -> list[tuple[SealRecord, bytes]]:
            found = [(open_seal(data, keys), data) for data in items[:ANSWER_RECORDS]]
            if any(record.tid != tid for record, _ in found):
                raise RemoteError("a seal of another ticket", reason="wrong_ticket")
            return found

        records = await asyncio.to_thread(opened)
        news = await asyncio.to_thread(self._spool.keep_seals, records, self._clock_ms())
        self._results.labels("news" if news else "none_yet").inc()
        return news > 0
