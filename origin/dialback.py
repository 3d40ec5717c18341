"""Dialling back: can the addresses that a relay publishes be reached, and does it answer there itself?

The origin connects by TLS and by QUIC, checks the key and hangs up; it sends no request, follows
nothing, and never dials a private address unless its settings allow that, so that nobody can use it
to reach into its network.
"""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter

from ..node.http.dial import HttpDialer
from ..node.ladder.tiers import address
from ..node.overlay import is_overlay
from ..protocol.directory import Endpoint, RelayRecord
from ..protocol.enrol import Fault
from ..protocol.errors import RefusedError
from ..protocol.ports import Source, TierName

AT_ONCE = 16
"""Relays dialled at one time; the next wait for their turn, ``WAIT_S`` at most."""
DIAL_S, WAIT_S = 4.0, 3.0
WHY_CHARS = 200


class DialBack:
    """Dials relays back for one origin."""

    def __init__(self, dialer: HttpDialer, registry: CollectorRegistry) -> None:
        self._dialer = dialer
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._dials = Counter(
            "farcast_origin_dialbacks",
            "Endpoints of relays dialled back, by what was lost.",
            ["lost"],
            registry=registry,
        )

    async def faults(self, record: RelayRecord) -> list[Fault] | None:
        """Return what does not come through, an empty list where all does; None where there was no turn."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._turns.acquire()
        except TimeoutError:
            self._dials.labels("untried").inc()
            return None
        try:
            found = await asyncio.gather(*(self._dial(record.relay, each) for each in record.endpoints))
        finally:
            self._turns.release()
        for fault in found:
            self._dials.labels(fault.lost if fault else "nothing").inc()
        return [fault for fault in found if fault]

    async def check(self, key: bytes, host: str, port: int) -> tuple[str, str]:
        """Dial one address for a box that is not enrolled; returns why TLS and QUIC failed, empty if not.

        Raises:
            RefusedError: 429 while too many are being dialled.

        """
        if self._turns.locked():
            message = "the origin is dialling other relays; try again soon"
            raise RefusedError(message, status=429, retry_after_s=5, reason="busy")
        async with self._turns:
            place = address(Endpoint(host, port, web=False))
            source = Source(TierName.RELAY, "relay", place, key)
            tcp, udp = await self._dialer.reach(source, timeout_s=DIAL_S)
            return tcp[:WHY_CHARS], udp[:WHY_CHARS]

    async def _dial(self, key: bytes, endpoint: Endpoint) -> Fault | None:
        place = address(endpoint)
        if endpoint.web:
            why = await self._dialer.reach_web(endpoint.host, endpoint.port, timeout_s=DIAL_S)
            return Fault(place, "both", why[:WHY_CHARS]) if why else None
        if is_overlay(endpoint.host) and not self._dialer.overlay.here:
            return None  # nobody here can tell
        source = Source(TierName.RELAY, "relay", place, key)
        tcp, udp = await self._dialer.reach(source, timeout_s=DIAL_S)
        if tcp and udp:
            return Fault(place, "both", tcp[:WHY_CHARS])
        if tcp or udp:
            return Fault(place, "tcp" if tcp else "udp", (tcp or udp)[:WHY_CHARS])
        return None
