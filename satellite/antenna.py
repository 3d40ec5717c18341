"""The antenna: hears the carousel's group and brings what it rebuilds to the store and the catalog."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, LocalError, RemoteError
from ..protocol.generation import Item
from ..protocol.ports import BlockStore, Source, TierName
from ..protocol.symbols import read_ask
from ..protocol.timetable import Timetable, read_timetable
from .fec import Fec, RaptorQ
from .journal import Journal
from .multicast import receiver
from .receiver import STORED_BYTES, Completed, Gap, Receiver
from .recipes import Recipes

QUEUE_PACKETS = 8_192
BATCH_PACKETS = 512
DATAGRAM_LIMIT_BYTES = 2_048
HEARD_S = 30.0
POLL_S = 1.0

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
_Datagram = tuple[bytes, str]


class Coming(NamedTuple):
    """A title that the timetable names: seconds until it begins, and until one who then listens has it."""

    title: str
    begins_in_s: int
    whole_in_s: int


class Sky(NamedTuple):
    """What comes from above; ``rate_bps`` is 0 and ``coming`` empty before the timetable came."""

    heard: bool
    rate_bps: int
    collecting: int
    stored_bytes: int
    coming: list[Coming]


class Antenna:
    """Receives until cancelled.

    ``origin`` is the 8-byte origin id, ``interface`` an IPv4 address or a name; ``catalog_keys``
    returns the keys accepted now. ``on_item(kind, name, data)`` is called on the event loop for
    every item but blocks, in the order sent; nothing in them is verified. Blocks go to ``store``,
    from generations that a catalog key signed; ``on_block(cid, size)`` hears of each that was new.
    Symbols of generations in progress are kept in ``folder``, at most ``stored_bytes`` of them.
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
        folder: Path,
        stored_bytes: int = STORED_BYTES,
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
        self._stored = Gauge(
            "farcast_satellite_stored_bytes", "Symbols kept for generations in progress.", registry=registry
        )
        self._lent = Counter(
            "farcast_satellite_lent_symbols",
            "Symbols given to neighbours who missed them.",
            registry=registry,
        )
        self._journal = Journal(folder)
        self._recipes = Recipes(store.get)
        self._timetable: Timetable | None = None
        self._core = threading.Lock()
        # one thread for all that is large: the C library keeps for each thread what it once took
        self._hand = ThreadPoolExecutor(1, "satellite")
        self._in_progress = (0, 0)
        self._receiver = Receiver(
            origin,
            catalog_keys,
            (fec or RaptorQ()).decode,
            lambda reason: self._rejects.labels(reason).inc(),
            self._journal,
            stored_bytes=stored_bytes,
        )

    def is_heard(self) -> bool:
        """Say whether the origin's carousel was heard in the last 30 s."""
        heard_at = self._receiver.heard_at
        return heard_at is not None and time.monotonic() - heard_at < HEARD_S

    def sky(self) -> Sky:
        """Tell what comes by satellite, and when, as the last timetable had it."""
        timetable = self._timetable
        coming: list[Coming] = []
        if timetable is not None:
            late_s = (self._clock_ms() - timetable.at_ms) // 1_000
            coming = [
                Coming(turn.title, max(turn.begins_s - late_s, 0), turn.whole_s - late_s)
                for turn in timetable.turns
                if turn.whole_s > late_s
            ]
        rate_bps = timetable.rate_bps if timetable is not None else 0
        return Sky(self.is_heard(), rate_bps, *self._in_progress, coming)

    async def gaps(self) -> list[Gap]:
        """Return what is lacking of generations no longer on air, the least first."""
        return await self._by_hand(self._gaps)

    async def given(self, number: int, giver: Source, symbols: Sequence[bytes]) -> None:
        """Take symbols that a neighbour had of a generation in progress."""
        completed = await self._by_hand(self._given, number, f"neighbour {giver.key.hex()}", symbols)
        if completed is not None:
            await self._deliver(completed)

    def lend(self, ask: bytes) -> bytes:
        """Answer a neighbour's ask with FEC ids and symbols, nothing where there are none. Blocking.

        Raises:
            RemoteError: a codec reason where it asks for nothing sensible.

        """
        wish = read_ask(ask)
        with self._core:
            symbols = self._receiver.lend(wish.number, wish.held, wish.most)
            if not symbols:
                now = time.monotonic()
                symbols = self._recipes.symbols(wish.number, wish.symbol_bytes, wish.held, wish.most, now)
        self._lent.inc(len(symbols))
        return b"".join(symbols)

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
            for completed in await self._by_hand(self._restore):
                await self._deliver(completed)
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue:
                    batch, self._queue = self._queue[:BATCH_PACKETS], self._queue[BATCH_PACKETS:]
                    wanted, self._wanted = self._wanted, set()
                    for completed in await self._by_hand(self._digest, batch, wanted):
                        await self._deliver(completed)
        finally:
            loop.remove_reader(sock)
            sock.close()
            await self._by_hand(self._close)

    async def _by_hand(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._hand, partial(work, *args, **kwargs))

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
        completed: list[Completed] = []
        with self._core:
            for cid in wanted:
                self._receiver.want(cid)
            missed = self._receiver.missed
            for data, sender in batch:
                whole = self._receiver.receive(data, sender, time.monotonic(), self._clock_ms())
                if whole is not None:
                    completed.append(whole)
            self._settle()
            self._missed.inc(self._receiver.missed - missed)
        return completed

    def _restore(self) -> list[Completed]:
        """Take back what an earlier run had heard."""
        with self._core:
            try:
                stored = self._journal.load()
            except LocalError as error:
                self._rejects.labels(error.reason).inc()
                log.warning("%s", error)
                return []
            now_ms = self._clock_ms()
            found = [self._receiver.restore(one.sender, one.envelope, one.ids, now_ms) for one in stored]
            self._settle()
            return [whole for whole in found if whole is not None]

    def _settle(self) -> None:
        """Hand to the system what was heard, and tell how much that is."""
        try:
            self._journal.flush()
        except LocalError as error:
            self._rejects.labels(error.reason).inc()
        self._recipes.tidy(time.monotonic())
        self._in_progress = self._receiver.collecting, self._receiver.stored_bytes
        self._collecting.set(self._in_progress[0])
        self._stored.set(self._in_progress[1])

    def _gaps(self) -> list[Gap]:
        with self._core:
            return self._receiver.gaps(time.monotonic())

    def _given(self, number: int, giver: str, symbols: Sequence[bytes]) -> Completed | None:
        with self._core:
            completed = self._receiver.given(number, giver, symbols, time.monotonic())
            self._settle()
            return completed

    def _close(self) -> None:
        with self._core:
            self._journal.close()

    def _collect_again(self, number: int) -> None:
        with self._core:
            self._receiver.forget(number)
            self._settle()

    def _delivered(self, completed: Completed) -> None:
        """Drop the symbols of what is safe, and remember how to make it again for a neighbour."""
        with self._core:
            self._receiver.delivered(completed.number)
            self._recipes.remember(completed.number, completed.items)
            self._settle()

    async def _deliver(self, completed: Completed) -> None:
        self._completed.inc()
        blocks = [item for item in completed.items if item.kind == "block"]
        vouched = self._receiver.is_vouched(completed)
        if vouched or not self._catalog_keys():  # with no key known, the rest is judged by what it says
            for item in completed.items:
                if item.kind == "timetable":
                    self._read_timetable(item.data, vouched=vouched)
                elif item.kind != "block":
                    self._on_item(item.kind, item.name, item.data)
        if not vouched:
            self._rejects.labels("not_vouched").inc(len(blocks))
            await self._by_hand(self._collect_again, completed.number)
            return
        for item in blocks:
            await self._store_block(item)
        await self._by_hand(self._delivered, completed)

    def _read_timetable(self, data: bytes, *, vouched: bool) -> None:
        if vouched:
            with contextlib.suppress(RemoteError):  # of a younger origin; it only tells
                self._timetable = read_timetable(data)

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
