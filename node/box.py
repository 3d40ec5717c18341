"""The box: one process that owns a home's store, spool and listeners, whatever its duty.

A role (viewer's node, relay, origin) builds on a ``Box``: it adds its routes, its periodic work and
the carriers, then runs until told to stop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..protocol.errors import FarcastError
from ..protocol.identity import Identity
from .blocks.scrub import Scrubber
from .blocks.store import DiskStore
from .catalog.pace import Pace
from .heap import trim
from .home import Home
from .http.binding import raise_descriptors
from .http.bytes import DEFAULTS
from .http.dial import HttpDialer
from .http.exchange import Answer, Exchange, Hosts, Router
from .http.governor import Governor, Rules
from .http.head import Head
from .http.hotset import HotSet
from .http.listener import Listener
from .http.locallistener import LocalListener
from .http.tally import HttpMetrics, Tally
from .links import Links
from .metered.dialer import MeteredDialer
from .metered.ration import Ration
from .pulses.spool import DiskSpool
from .settings import Settings

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_LAST_S = 1.0, 60.0
DRAIN_S = 2.0
CONNECTIONS = 1 << 17
"""What a process can bear at all; how many there may be says the contract."""
SYNC_S, EXPIRE_S, SCRUB_S, TRIM_S, HOT_S = 60.0, 3_600.0, 10.0, 120.0, 1.0
USE_S = 5.0
SCRUB_BYTES = 10 << 20
"""Hashed again every ten seconds at most: a 20 GB store is through in five hours."""


def clock_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Box:
    """The shared parts of every role; use as ``async with Box(...) as box``."""

    def __init__(self, home: Home, settings: Settings, *, identity: Identity | None = None) -> None:
        self.home = home
        self.settings = settings
        self.identity = identity or home.identity
        self.listens_as = self.identity
        disable_created_metrics()  # type: ignore[no-untyped-call] # a process restarts all its counters at once
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.links, self.trusted = _links(settings)
        self.store = DiskStore(home.path, settings.store.quota_bytes, self.registry)
        self.spool = DiskSpool(
            home.path / "spool.db", self.registry, foreign_quota_bytes=settings.spool.foreign_quota_bytes
        )
        daily_bytes = settings.metered.daily_bytes if home.role == "node" else 0
        self.ration = (
            Ration(home.path / "metered.json", daily_bytes, clock_ms, self.registry) if daily_bytes else None
        )
        dialer: Callable[..., HttpDialer] = HttpDialer
        if self.ration is not None:
            dialer = partial(MeteredDialer, self.ration)
        self.dialer = dialer(
            allow_private=settings.network.allow_private,
            plain_blocks=settings.network.plain_blocks,
            network=self.links.name,
            registry=self.registry,
        )
        self.dialer.overlay.ask_at(settings.network.yggdrasil, self.registry)
        self.token = settings.admin.token or stored_token(home.path / "token")
        self.http_metrics = HttpMetrics(self.registry)
        self.public = Router(Hosts(_names(settings.network.announce)))
        self.local = Router(Hosts(), token=self.token)
        self.lookup: Callable[[Head], Answer | None] = lambda _: None
        self.epoch: Callable[[], object] = object
        self.streams: dict[str, Callable[[Callable[[], None]], asyncio.BaseProtocol]] = {}
        contract = settings.contract
        rules = Rules(
            connections=contract.connections,
            client_connections=contract.client_connections or None,
            client_requests_s=contract.client_requests_s or None,
            client_burst=contract.client_requests_s or Rules().client_burst,
        )
        self.governor = Governor(rules, processes=settings.listen.workers)
        ram_bytes = settings.store.ram_bytes
        self.hot = HotSet(ram_bytes, damaged=self.store.recheck) if ram_bytes else None
        self.listener: Listener | None = None
        self.local_listener: LocalListener | None = None
        self._failures = Counter(
            "farcast_node_task_failures",
            "Periodic work that failed, by task and reason.",
            ["task", "reason"],
            registry=self.registry,
        )
        self._work: list[tuple[str, Callable[[], Awaitable[object]], float | Callable[[], float]]] = []
        self._services: list[tuple[str, Callable[[], Coroutine[object, object, None]]]] = []
        self._wakes: dict[str, asyncio.Event] = {}
        self._openers: list[Callable[[], Awaitable[object]]] = []
        self._closers: list[Callable[[], Awaitable[object]]] = []
        self.every("sync", SYNC_S, lambda: asyncio.to_thread(self.store.sync))
        self.every("expire", EXPIRE_S, lambda: asyncio.to_thread(self.spool.expire, clock_ms()))
        if self.hot is not None:
            self.every("hot", HOT_S, self._sweep_hot)
        if self.ration is not None:
            self.every("ration", SYNC_S, self.ration.keep)
        self.every("trim", TRIM_S, lambda: asyncio.to_thread(trim))
        scrubber = Scrubber(self.store, self.registry)
        self.every("scrub", SCRUB_S, lambda: asyncio.to_thread(scrubber.turn, SCRUB_BYTES, time.monotonic()))
        self.local.route("GET", "/metrics", self._metrics, open=True)
        self.local.route("GET", "/healthz", self._health, open=True)

    def every(
        self, name: str, seconds: float | Callable[[], float], work: Callable[[], Awaitable[object]]
    ) -> None:
        """Do ``work`` now and every ``seconds`` while the box runs; a failure is counted, not fatal.

        Where ``seconds`` is a function, it is asked after each round.
        """
        self._work.append((name, work, seconds))
        self._wakes[name] = asyncio.Event()

    def wake(self, name: str) -> None:
        """Do the periodic work ``name`` again at once."""
        self._wakes[name].set()

    def follow(self, refresh: Callable[[], Awaitable[bool]], uses: Callable[[], int]) -> None:
        """Look for news of the origin by ``refresh``: often while ``uses`` grows, else seldom."""
        pace = Pace(self.settings.catalog.poll_s, self.settings.catalog.idle_poll_s)

        async def look() -> None:
            pace.looked(time.monotonic(), found=await refresh())

        async def notice() -> None:
            if pace.saw(uses(), time.monotonic()):
                self.wake("follow")

        self.every("follow", lambda: pace.pause_s(time.monotonic()), look)
        self.every("use", USE_S, notice)

    def serve(self, name: str, service: Callable[[], Coroutine[object, object, None]]) -> None:
        """Run a long-lived ``service`` while the box runs; it is cancelled at the end."""
        self._services.append((name, service))

    def on_listen(self, opener: Callable[[], Awaitable[object]]) -> None:
        """Await ``opener`` once the box listens: a listener of a role's own."""
        self._openers.append(opener)

    def on_close(self, closer: Callable[[], Awaitable[object]]) -> None:
        """Await ``closer`` at the end, after the listeners and before spool and store are closed."""
        self._closers.append(closer)

    def tally(self, carrier: str) -> Tally:
        """Return the counts of a carrier: ``tcp``, ``tls``, ``quic`` or ``local``."""
        return self.http_metrics.carrier(carrier)

    @property
    def local_url(self) -> str:
        """The base URL of page, gateway and admin calls, token included."""
        assert self.local_listener is not None
        host = self.settings.admin.host
        return f"http://{host}:{self.local_listener.port}/{self.token}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus scrapes this box."""
        return f"{self.local_url.rpartition('/')[0]}/metrics"

    async def run(self, started: Callable[[], None] | None = None) -> None:
        """Listen and work until SIGINT or SIGTERM, then let go of everything in order."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        try:
            await self._listen()
            self._tell_where()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._repeat(name, work, seconds), name=name)
                    for name, work, seconds in self._work
                ]
                running += [
                    tasks.create_task(self._keep(name, service), name=name)
                    for name, service in self._services
                ]
                if started is not None:
                    started()
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            await self._close()

    def abandon(self) -> None:
        """Let go of a box that will not run."""
        self.spool.close()
        self.store.close()
        self.home.close()

    async def _sweep_hot(self) -> None:
        """Free the memory of blocks that have left the store; nothing names them any more."""
        if self.hot is not None:
            self.hot.sweep(self.store.has, self.store.losses)

    async def _listen(self) -> None:
        listen, admin = self.settings.listen, self.settings.admin
        self.listener = Listener(
            self.public,
            self.lookup,
            self.listens_as,
            self.http_metrics,
            host=listen.host,
            port=listen.port,
            limits=DEFAULTS._replace(connections=CONNECTIONS),
            epoch=self.epoch,
            governor=self.governor,
            hot=self.hot,
            workers=listen.workers,
            streams=self.streams,
        )
        raise_descriptors(self.settings.contract.connections)
        await self.listener.__aenter__()
        self.local_listener = LocalListener(self.local, self.http_metrics, host=admin.host, port=admin.port)
        await self.local_listener.__aenter__()
        for opener in self._openers:
            await opener()

    async def _close(self) -> None:
        (self.home.path / "admin.json").unlink(missing_ok=True)
        for part in (self.local_listener, self.listener):
            if part is not None:
                await part.close(DRAIN_S)
        if self.hot is not None:
            await self.hot.close()
        for closer in [*self._closers, self.dialer.close]:
            await closer()
        if self.ration is not None:
            await self.ration.close()
        await asyncio.to_thread(self.spool.close)
        await asyncio.to_thread(self.store.close)
        self.home.close()

    async def _repeat(
        self, name: str, work: Callable[[], Awaitable[object]], seconds: float | Callable[[], float]
    ) -> None:
        wake, retry_s = self._wakes[name], RETRY_FIRST_S
        while True:
            wake.clear()
            failed_s: float | None = None
            try:
                await work()
                retry_s = RETRY_FIRST_S
            except Exception as error:  # noqa: BLE001 - one task's trouble must not end the box
                self._note(name, error)
                failed_s, retry_s = retry_s, min(retry_s * 2, RETRY_LAST_S)
            pause_s = seconds() if callable(seconds) else seconds
            pause_s = pause_s if failed_s is None else min(pause_s, failed_s)
            try:
                async with asyncio.timeout(pause_s):
                    await wake.wait()
            except TimeoutError:
                continue

    async def _keep(self, name: str, service: Callable[[], Coroutine[object, object, None]]) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            try:
                await service()
            except Exception as error:  # noqa: BLE001 - likewise
                self._note(name, error)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_LAST_S)

    def _note(self, task: str, error: Exception) -> None:
        if isinstance(error, FarcastError):
            self._failures.labels(task, error.reason).inc()
            log.info("%s: %s", task, error)
        else:
            self._failures.labels(task, "bug").inc()
            log.error("%s failed", task, exc_info=error)

    def _tell_where(self) -> None:
        """Leave the admin address where this home's commands look for it, readable by its owner only."""
        assert self.listener is not None
        path = self.home.path / "admin.json"
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"url": self.local_url, "port": self.listener.port, "pid": os.getpid()}, file)
        temporary.replace(path)

    async def _metrics(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(self.registry))

    async def _health(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(200, {"content-type": "text/plain; charset=utf-8"}, b"ok\n")


def stored_token(path: Path) -> str:
    """Return the path token in a file, made once: 128 random bits that only the file's owner reads."""
    if path.is_file():
        text = path.read_text().strip()
        if text:
            return text
    text = secrets.token_urlsafe(16)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    return text


def _links(settings: Settings) -> tuple[Links, Links]:
    """Return the networks this box is on, and those of its neighbours."""
    own = settings.network.interfaces
    return Links(own), Links(own, settings.mesh.networks, tunnels=False)


def _names(announced: Sequence[str]) -> list[str]:
    """Return the host names this box publishes: the Host values of its public listener besides addresses."""
    names = [text.removeprefix("https://").lower() for text in announced]
    return [name.rpartition(":")[0] or name for name in names]
