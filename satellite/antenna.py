"""The antenna: hears the carousel's group and brings what it rebuilds to the store and the catalog."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.cid import Cid
from ..protocol.errors import FarcastError
from ..protocol.generation import Item
from ..protocol.ports import BlockStore, TierName
from .fec import Fec, RaptorQ
from .multicast import receiver
from .receiver import Completed, Receiver

QUEUE_PACKETS = 8_192
BATCH_PACKETS = 512
DATAGRAM_LIMIT_BYTES = 2_048
HEARD_S = 30.0
POLL_S = 1.0

_Datagram = tuple[bytes, str]


class Antenna:
    """Receives until cancelled.

    ``origin`` is the 8-byte origin id, ``interface`` an IPv4 address or a name; ``catalog_keys``
    returns the keys accepted now. ``on_item(kind, name, data)`` is called on the event loop for
    every item but blocks, in the order sent; nothing in them is verified. Blocks go to ``store``,
    from generations that a catalog key signed; ``on_block(cid, size)`` hears of each that was new.
    """

    def __init__(
        self,
        *,
        group: str,
        port: int,
        interface: str,
        origin: bytes,
        catalog_keys: Callable[[], Sequence[bytes]],
        store: BlockStore,
        on_item: Callable[[str, str, bytes], None],
        on_block: Callable[[Cid, int], None],
        clock_ms: Callable[[], int],
        registry: CollectorRegistry,
        fec: Fec | None = None,
    ) -> None:
        self.group, self.port = group, port
        self._interface = interface
        self._store = store
        self._on_item = on_item
        self._on_block = on_block
        self._clock_ms = clock_ms
        self._catalog_keys = catalog_keys
        self._queue: list[_Datagram] = []
        self._arrived = asyncio.Event()
        self._wanted: set[Cid] = set()
        self._waiters: dict[Cid, set[asyncio.Future[bytes]]] = {}
        self._bytes = Counter(
            "farcast_satellite_received_bytes", "UDP payload bytes received on the group.", registry=registry
        )
        self._rejects = Counter(
            "farcast_satellite_rejected_packets",
            "Packets, collections and items refused, by reason.",
            ["reason"],
            registry=registry,
        )
        self._missed = Counter(
            "farcast_satellite_missed_packets",
            "Packets lost on the way, by their numbers.",
            registry=registry,
        )
        self._completed = Counter(
            "farcast_satellite_completed_generations", "Generations rebuilt and true.", registry=registry
        )
        self._blocks = Counter(
            "farcast_satellite_received_blocks",
            "Blocks the carousel brought that were new.",
            registry=registry,
        )
        self._collecting = Gauge(
            "farcast_satellite_collecting_generations", "Generations in progress.", registry=registry
        )
        self._receiver = Receiver(
            origin,
            catalog_keys,
            (fec or RaptorQ()).decoder,
            lambda reason: self._rejects.labels(reason).inc(),
        )

    def is_heard(self) -> bool:
        """Say whether the origin's carousel was heard in the last 30 s."""
        heard_at = self._receiver.heard_at
        return heard_at is not None and time.monotonic() - heard_at < HEARD_S

    async def wait_for(self, cid: Cid) -> bytes:
        """Return the block's bytes once the store has it, however long that takes."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(cid, set()).add(future)
        try:
            data = await asyncio.to_thread(self._store.get, cid)
            if data is not None:
                return data
            self._wanted.add(cid)
            return await future
        finally:
            waiting = self._waiters[cid]
            waiting.discard(future)
            if not waiting:
                del self._waiters[cid]
                self._wanted.discard(cid)

    async def run(self) -> None:
        """Listen until cancelled.

        Raises:
            UsageError: where the interface cannot be used or the port is taken.

        """
        sock = receiver(self.group, self.port, self._interface)
        loop = asyncio.get_running_loop()
        loop.add_reader(sock, self._drain, sock)
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    batch, self._queue = self._queue[:BATCH_PACKETS], self._queue[BATCH_PACKETS:]
                    wanted, self._wanted = self._wanted, set()
                    for completed in await asyncio.to_thread(self._digest, batch, wanted):
                        await self._deliver(completed)
        finally:
            loop.remove_reader(sock)
            sock.close()

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(BATCH_PACKETS):
            try:
                data, (host, port) = sock.recvfrom(DATAGRAM_LIMIT_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._rejects.labels("socket").inc()
                break
            self._bytes.inc(len(data))
            if len(self._queue) >= QUEUE_PACKETS:
                self._rejects.labels("overflow").inc()
                continue
            self._queue.append((data, f"{host}:{port}"))
        self._arrived.set()

    def _digest(self, batch: Sequence[_Datagram], wanted: set[Cid]) -> list[Completed]:
        """Run the core over a batch, in a thread because rebuilding 16 MB takes a quarter second."""
        for cid in wanted:
            self._receiver.want(cid)
        missed = self._receiver.missed
        completed: list[Completed] = []
        for data, sender in batch:
            whole = self._receiver.receive(data, sender, time.monotonic(), self._clock_ms())
            if whole is not None:
                completed.append(whole)
        self._missed.inc(self._receiver.missed - missed)
        self._collecting.set(self._receiver.collecting)
        return completed

    async def _deliver(self, completed: Completed) -> None:
        self._completed.inc()
        blocks = [item for item in completed.items if item.kind == "block"]
        vouched = self._receiver.is_vouched(completed)
        if vouched or not self._catalog_keys():  # with no key known, the rest is judged by what it says
            for item in completed.items:
                if item.kind != "block":
                    self._on_item(item.kind, item.name, item.data)
        if not vouched:
            self._rejects.labels("not_vouched").inc(len(blocks))
            self._receiver.forget(completed.number)
            return
        for item in blocks:
            await self._store_block(item)

    async def _store_block(self, item: Item) -> None:
        try:
            cid = Cid.parse(item.name)
            is_new = await asyncio.to_thread(self._store.put, cid, item.data, tier=TierName.SATELLITE)
        except FarcastError as error:
            self._rejects.labels(error.reason).inc()
            return
        if is_new:
            self._blocks.inc()
            self._on_block(cid, len(item.data))
        for future in self._waiters.get(cid, ()):
            if not future.done():
                future.set_result(item.data)
