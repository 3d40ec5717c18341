"""Keeping a relay's port mapped: the first protocol the router speaks, renewed, and given back at the end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import FarcastError, RefusedError, RemoteError
from ..http.address import is_public
from . import upnp
from .lease import LEASE_S, LEAST_S, PORTS, Carrier, Lease, Wish
from .router import Way

log = logging.getLogger(__name__)

RETRY_S = 600.0
"""Between two looks for a router that answers none of the protocols."""
GIVE_BACK_S = 2.0
PORT_TRIES = 4
CARRIER_NAT = ip_network("100.64.0.0/10")
"""Shared address space between a carrier's router and its customers (RFC 6598)."""

State = Literal["looking", "mapped", "carrier_nat", "private", "refused", "no_router"]
STATES: tuple[State, ...] = ("looking", "mapped", "carrier_nat", "private", "refused", "no_router")


class Mapping(NamedTuple):
    """Where the box is reached from outside: ``host`` and ``port``, for TCP and UDP alike."""

    host: str
    port: int


class PortMapper:
    """Maps one port number for TCP and UDP; ``changed`` is called whenever the outside address is another."""

    def __init__(
        self,
        port: Callable[[], int],
        ways: Callable[[], Sequence[Way]],
        changed: Callable[[], None],
        registry: CollectorRegistry,
        *,
        chance: random.Random | None = None,
    ) -> None:
        """``port`` is what the box listens on; ``ways`` are looked up anew, since laptops change networks."""
        self._port = port
        self._ways = ways
        self._changed = changed
        self._chance = chance or random.SystemRandom()
        self._way: Way | None = None
        self._external = 0
        self.mapping: Mapping | None = None
        self.state: State = "looking"
        self.sentence = "looking for a router that maps ports"
        self._gauge = Gauge(
            "farcast_node_portmap_state", "What came of asking the router.", ["state"], registry=registry
        )
        self._failures = Counter(
            "farcast_node_portmap_failures", "Mappings not made, by reason.", ["reason"], registry=registry
        )
        self._tell("looking", self.sentence, None)

    async def run(self) -> None:
        """Keep the port mapped until cancelled, then give the mapping back."""
        try:
            while True:  # every round decides how long the next one waits
                pause_s = await self.refresh()
                await asyncio.sleep(pause_s)
        finally:
            await self._give_back()

    async def refresh(self) -> float:
        """Map or renew once; returns the seconds until the next time."""
        failure: FarcastError | None = None
        ways = [self._way] if self._way is not None else self._ways()
        for way in ways:
            try:
                lease = await self._both(way)
            except RemoteError as error:
                self._failures.labels(error.reason).inc()
                log.info("%s: %s", way.name, error)
                if failure is None or isinstance(error, RefusedError):
                    failure = error
                continue
            self._way, self._external = way, lease.external_port
            self._judge(way, lease)
            return lease.renew_s
        was_mapped, self._way = self._way is not None, None
        refused = isinstance(failure, RefusedError)
        text = str(failure) if failure else "no router on this network is known"
        self._tell("refused" if refused else "no_router", text, None)
        return LEAST_S / 2 if was_mapped else RETRY_S

    async def _both(self, way: Way) -> Lease:
        """Map TCP and UDP to one outside number, for an endpoint has only one."""
        internal = self._port()
        wanted = self._external or internal
        failure = RefusedError("the router gives TCP and UDP different ports", reason="different_ports")
        for _ in range(PORT_TRIES):
            made: list[Wish] = []
            try:
                lease = await way.map(Wish(Carrier.TCP, internal, wanted), LEASE_S)
                made.append(Wish(Carrier.TCP, internal, lease.external_port))
                other = await way.map(Wish(Carrier.UDP, internal, lease.external_port), LEASE_S)
                made.append(Wish(Carrier.UDP, internal, other.external_port))
            except upnp.SoapError as error:
                await self._unmap(way, made)
                if error.code != upnp.CONFLICT:
                    raise
                failure = error
                wanted = self._chance.randrange(49_152, PORTS + 1)  # the dynamic ports (RFC 6335 section 6)
                continue
            if other.external_port == lease.external_port:
                return lease._replace(ttl_s=min(lease.ttl_s, other.ttl_s))
            wanted = other.external_port
            await self._unmap(way, made)
        raise failure

    async def _unmap(self, way: Way, wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            try:
                await way.unmap(wish)
            except FarcastError as error:
                log.info("a mapping was not given back and ends by itself: %s", error)

    def _judge(self, way: Way, lease: Lease) -> None:
        if is_public(lease.host):
            where = f"{lease.host}:{lease.external_port}"
            self._tell("mapped", f"the router maps {where} to this box ({way.name})",
                       Mapping(lease.host, lease.external_port))  # fmt: skip
        elif _behind_carrier(lease.host):
            self._tell(
                "carrier_nat",
                f"the router's own outside address {lease.host} is the carrier's (carrier-grade NAT): nobody "
                "outside reaches this box; ask the provider for a public address, or use IPv6",
                None,
            )
        else:
            self._tell(
                "private",
                f"the router has no public outside address ({lease.host or 'it tells none'}): carrier-grade "
                "NAT or another router stands before it; map the port there too, ask the provider for a "
                "public address, or set [network] announce",
                None,
            )

    async def _give_back(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    await self._unmap(way, [Wish(each, self._port(), self._external) for each in Carrier])

    def _tell(self, state: State, sentence: str, mapping: Mapping | None) -> None:
        moved = mapping != self.mapping
        self.state, self.sentence, self.mapping = state, sentence, mapping
        for each in STATES:
            self._gauge.labels(each).set(each == state)
        if moved:
            self._changed()


def _behind_carrier(host: str) -> bool:
    try:
        return ip_address(host) in CARRIER_NAT
    except ValueError:
        return False
