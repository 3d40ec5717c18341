"""The uplink: puts the programme on air as paced UDP multicast."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.errors import FarcastError
from ..protocol.generation import GenerationDescriptor, Item, describe, seal_descriptor
from ..protocol.identity import Identity
from ..protocol.ports import BlockStore
from ..protocol.timetable import TURNS_LIMIT, Timetable, Turn, pack_timetable
from .carousel import HEAD_SHARE, Carousel, CarouselStatus
from .fec import Fec, RaptorQ
from .multicast import sender
from .programme import GENERATION_BYTES, Part, Programme, Show
from .rota import Feature

DESCRIPTOR_TTL_MS = 86_400_000
RENEW_S = 3_600.0
TIMETABLE_S = 60.0
SLEEP_MIN_S = 0.005
SLEEP_MAX_S = 1.0
RETRY_S = 1.0

R = TypeVar("R")

log = logging.getLogger(__name__)


class Uplink:
    """Sends an endless carousel; ``update`` says of what.

    ``origin`` is the 8-byte origin id; ``identity`` the catalog key that signs generations;
    ``interface`` an IPv4 address or a name; ``rate_bps`` counts UDP payload bits.
    """

    def __init__(
        self,
        *,
        group: str,
        port: int,
        interface: str,
        rate_bps: int,
        planned_loss: float,
        identity: Identity,
        origin: bytes,
        store: BlockStore,
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        ttl: int = 1,
        generation_bytes: int = GENERATION_BYTES,
        head_share: float = HEAD_SHARE,
        fec: Fec | None = None,
    ) -> None:
        self._address = (group, port)
        self._interface = interface
        self._ttl = ttl
        self._identity = identity
        self._origin = origin
        self._clock_ms = clock_ms
        self._fec = fec or RaptorQ()
        self._programme = Programme(store.get, origin, generation_bytes=generation_bytes)
        self._carousel = Carousel(origin, rate_bps, planned_loss, head_share=head_share)
        self._parts: dict[int, Part] = {}
        self._head_parts: list[Part] = []
        self._features: list[Feature] = []
        self._timetable: list[Part] = []
        self._told_at: float | None = None
        self._described: dict[int, GenerationDescriptor] = {}
        self._planning = asyncio.Lock()
        self._hand = ThreadPoolExecutor(1, "carousel")  # as the antenna's: memory is kept for each thread
        self._hungry = asyncio.Event()
        self._changed = asyncio.Event()
        self._bytes = Counter(
            "farcast_satellite_sent_bytes", "UDP payload bytes sent by the carousel.", registry=registry
        )
        self._packets = Counter(
            "farcast_satellite_sent_packets", "Packets sent by the carousel.", registry=registry
        )
        self._failures = Counter(
            "farcast_satellite_send_failures",
            "Packets or generations that could not be sent, by reason.",
            ["reason"],
            registry=registry,
        )
        self._generations = Gauge(
            "farcast_satellite_planned_generations", "Generations in the programme.", registry=registry
        )
        self._missing = Gauge(
            "farcast_satellite_missing_blocks",
            "Blocks of titles on air that the store lacks.",
            registry=registry,
        )

    async def update(self, head: Sequence[Item], titles: Sequence[Show] = ()) -> None:
        """Replace what is on air; what did not change goes on where it was.

        ``head`` are the urgent items in the order a receiver should meet them (trust first,
        manifests as ``block``); the blocks of ``titles`` are read from the store.
        """
        async with self._planning:
            head_parts, (features, title_parts) = await self._by_hand(partial(self._plan, head, titles))
            is_other = features != self._features
            self._head_parts, self._features = head_parts, features
            self._parts = {part.plan.number: part for part in (*self._timetable, *head_parts, *title_parts)}
            self._replace()
            self._generations.set(len(self._parts))
            self._missing.set(self._programme.missing)
            if is_other or self._told_at is None or time.monotonic() - self._told_at >= TIMETABLE_S:
                self._tell()
        self._hungry.set()
        self._changed.set()

    def pause(self) -> None:
        """Stop sending until ``resume``."""
        self._carousel.paused = True

    def resume(self) -> None:
        """Go on where ``pause`` stopped."""
        self._carousel.paused = False
        self._changed.set()

    def set_rate(self, rate_bps: int) -> None:
        """Send at another rate from now on."""
        self._carousel.rate_bps = rate_bps
        self._changed.set()

    @property
    def missing(self) -> int:
        """How many blocks of titles on air the store lacks."""
        return self._programme.missing

    def status(self) -> CarouselStatus:
        """Tell what is on air."""
        return self._carousel.status()

    async def run(self) -> None:
        """Send until cancelled.

        Raises:
            UsageError: where the interface cannot be used.

        """
        sock = sender(self._interface, self._ttl)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._load_forever())
                tasks.create_task(self._renew_forever())
                tasks.create_task(self._send_forever(sock))
        finally:
            sock.close()

    async def _send_forever(self, sock: socket.socket) -> None:
        while True:
            self._changed.clear()
            for packet in self._carousel.take(time.monotonic()):
                await self._send(sock, packet)
            if self._carousel.wanted():
                self._hungry.set()
            due = self._carousel.wake_at
            if due is not None:
                await asyncio.sleep(min(max(due - time.monotonic(), SLEEP_MIN_S), SLEEP_MAX_S))
                continue
            try:
                async with asyncio.timeout(SLEEP_MAX_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _send(self, sock: socket.socket, packet: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendto(sock, packet, self._address)
        except OSError as error:
            self._failures.labels(errno.errorcode.get(error.errno or 0, "EOTHER")).inc()
            await asyncio.sleep(SLEEP_MIN_S if error.errno == errno.ENOBUFS else RETRY_S)
            return
        self._bytes.inc(len(packet))
        self._packets.inc()

    async def _load_forever(self) -> None:
        while True:
            await self._hungry.wait()
            self._hungry.clear()
            for number, window in self._carousel.wanted():
                part = self._parts.get(number)
                if part is None:
                    continue
                try:
                    async with self._planning:
                        symbols, descriptor = await self._by_hand(partial(self._encode, part, window))
                except FarcastError as error:
                    self._failures.labels(error.reason).inc()
                    log.warning("left out of the carousel until the next update: %s", error)
                    self._leave_out(number)
                    continue
                self._described[number] = descriptor
                self._carousel.supply((number, window), symbols, self._sign(descriptor))
                self._changed.set()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            held = self._carousel.loaded()
            self._described = {number: self._described[number] for number in held}
            for number, descriptor in self._described.items():
                self._carousel.renew(number, self._sign(descriptor))

    async def _by_hand(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._hand, work)

    def _replace(self) -> None:
        self._carousel.update([part.plan for part in (*self._timetable, *self._head_parts)], self._features)

    def _tell(self) -> None:
        """Put the timetable on air, as a generation of its own because it changes so often."""
        status = self._carousel.status()
        turns = [
            Turn(one.title, round(one.begins_in_s), round(one.whole_in_s))
            for one in status.titles
            if one.begins_in_s is not None and one.whole_in_s is not None
        ]
        timetable = Timetable(1, self._clock_ms(), self._carousel.rate_bps, turns[:TURNS_LIMIT])
        for part in self._timetable:
            self._parts.pop(part.plan.number, None)
        self._timetable = self._programme.head([Item("timetable", "", pack_timetable(timetable))])
        self._parts |= {part.plan.number: part for part in self._timetable}
        self._told_at = time.monotonic()
        self._replace()

    def _leave_out(self, number: int) -> None:
        self._parts.pop(number, None)
        self._head_parts = [part for part in self._head_parts if part.plan.number != number]
        self._features = [
            one._replace(plans=tuple(plan for plan in one.plans if plan.number != number))
            for one in self._features
        ]
        self._replace()

    def _plan(
        self, head: Sequence[Item], titles: Sequence[Show]
    ) -> tuple[list[Part], tuple[list[Feature], list[Part]]]:
        return self._programme.head(head), self._programme.titles(titles)

    def _encode(self, part: Part, window: int) -> tuple[list[bytes], GenerationDescriptor]:
        bundle = self._programme.bundle(part)
        plan = part.plan
        count = self._carousel.cycle_symbols(plan.symbols)
        symbols = self._fec.encode(bundle, plan.symbol_bytes, count, window * count)
        return symbols, describe(bundle, self._origin, plan.symbol_bytes, 0)

    def _sign(self, descriptor: GenerationDescriptor) -> bytes:
        expires_ms = self._clock_ms() + DESCRIPTOR_TTL_MS
        return seal_descriptor(msgspec.structs.replace(descriptor, expires_ms=expires_ms), self._identity)
