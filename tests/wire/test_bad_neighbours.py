"""Neighbours that serve wrong or endless bytes, or never answer; and one whose clock is a year off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh import porter as module
from farcast.mesh.discovery import Discovery
from farcast.mesh.neighbours import Neighbour
from farcast.mesh.porter import Porter
from farcast.mesh.tier import BLOCK_LIMIT_BYTES, MeshTier
from farcast.node.blocks.store import DiskStore
from farcast.node.demo.troupe import free_port
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Answer, Exchange, Handler, Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.ladder.fetch import Fetcher
from farcast.node.pulses.spool import DiskSpool
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import PulseSigner, Viewing
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice
from farcast.tests.wire.services import running, until

LOOPBACK = "127.0.0.1"
BLOCK = bytes(range(256)) * 1_500
PIECE = bytes(64 << 10)
YEAR_MS = 365 * 86_400_000
TICKETS = TicketOffice(Identity(b"t" * 32), b"secret" * 6)


class Endless:
    """A body that never ends; it knows how much of it was taken."""

    def __init__(self) -> None:
        self.sent_bytes = 0

    async def answer(self, exchange: Exchange) -> Answer:
        """Begin."""
        del exchange
        return Answer(200, {"content-type": "application/octet-stream"}, self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            self.sent_bytes += len(PIECE)
            yield PIECE


async def wrong(exchange: Exchange) -> Answer:
    """Answer with bytes of the right length that are not the block."""
    del exchange
    return Answer(200, {"content-type": "application/vnd.ipld.raw"}, BLOCK[::-1])


async def right(exchange: Exchange) -> Answer:
    """Answer with the block."""
    del exchange
    return Answer(200, {"content-type": "application/vnd.ipld.raw"}, BLOCK)


async def silent(exchange: Exchange) -> Answer:
    """Read the request, and never answer."""
    await exchange.read(1 << 20)
    await asyncio.sleep(3_600)
    raise AssertionError


@asynccontextmanager
async def neighbour(seed: int, **handlers: Handler) -> AsyncGenerator[Neighbour]:
    """Be a box on the link whose handlers are these, by the name of what they answer."""
    identity, router = Identity(bytes([seed]) * 32), Router(Hosts())
    for name, handler in handlers.items():
        if name == "block":
            router.route("GET", "/ipfs/{cid}", handler)
        else:
            router.route("POST", f"/v1/{name}", handler)
    metrics = HttpMetrics(CollectorRegistry())
    listener = Listener(router, lambda _: None, identity, metrics, host=LOOPBACK, port=0)
    async with listener:
        yield Neighbour(identity.key, LOOPBACK, listener.port, hops=0, expires_at=1e9)
        await listener.close(0.1)


@pytest.fixture
async def dialer() -> AsyncGenerator[HttpDialer]:
    async with HttpDialer(allow_private=True) as made:
        yield made


async def test_an_endless_block_is_left_at_its_bound(dialer: HttpDialer) -> None:
    endless = Endless()
    async with neighbour(2, block=endless.answer) as box:
        with pytest.raises(RemoteError) as caught:
            await MeshTier(dialer, list).fetch(box.source, Cid.of(RAW, BLOCK))
        assert caught.value.reason == "too_large"
        await asyncio.sleep(0.1)
        before = endless.sent_bytes
        await asyncio.sleep(0.1)
        assert endless.sent_bytes == before < 8 * BLOCK_LIMIT_BYTES, "and nothing more is taken"


async def test_a_neighbour_that_serves_wrong_bytes_is_left_for_one_that_does_not(
    dialer: HttpDialer, tmp_path: Path
) -> None:
    cid, registry = Cid.of(RAW, BLOCK), CollectorRegistry()
    store = DiskStore(tmp_path, 1 << 30, CollectorRegistry())
    async with neighbour(2, block=wrong) as liar, neighbour(3, block=right) as honest:
        known = [liar.source]
        fetcher = Fetcher(store, [MeshTier(dialer, lambda: known)], registry)
        wanted = asyncio.ensure_future(fetcher.block(cid))
        await until(lambda: rejected(registry) == 1)
        assert store.get(cid) is None
        known.append(honest.source)
        async with asyncio.timeout(30):
            assert await wanted == BLOCK
        assert rejected(registry) == 1, "it is not asked for that again"
        assert store.get(cid) == BLOCK
        await fetcher.close()
    store.close()


def a_pulse() -> SpooledPulse:
    """Return a pulse of today, signed under its ticket."""
    session, now_ms = Identity(b"z" * 32), time.time_ns() // 1_000_000
    grant = TICKETS.issue(b"T" * 16, now_ms // DAY_MS, session.key, Holder(b"a" * 16, 0))
    signed = PulseSigner(grant.ticket, grant.key, session).sign(
        now_ms, 1_000, 0, Viewing(2, bytes(32), 0, 0, [], bytes(16))
    )
    return SpooledPulse(b"T" * 16, 1, signed, grant.ticket, now_ms, own=True)


def rejected(registry: CollectorRegistry) -> float:
    """Return how many blocks of neighbours were not what they should be."""
    return registry.get_sample_value("farcast_node_tier_rejected_total", {"tier": "mesh"}) or 0


class Cart:
    """A porter with one pulse to hand over, and its counts."""

    def __init__(self, dialer: HttpDialer, neighbours: list[Neighbour], folder: Path) -> None:
        self.registry = CollectorRegistry()
        self.spool = DiskSpool(folder / "spool.db", CollectorRegistry(), foreign_quota_bytes=1 << 20)
        self.spool.add([a_pulse()])
        self.porter = Porter(
            spool=self.spool,
            dialer=dialer,
            neighbours=lambda: neighbours,
            has_uplink=lambda: False,
            hops=lambda: 1,
            accept_ack=lambda _: 0,
            accept_beacon=lambda _: None,
            clock_ms=lambda: 0,
            registry=self.registry,
        )

    def failures(self) -> set[str]:
        """Return why posts failed."""
        return {
            sample.labels["result"]
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "farcast_mesh_posts_total" and sample.value
        }


@pytest.mark.parametrize(
    ("digests", "reason"), [(silent, "timeout"), (Endless().answer, "too_large"), (wrong, "malformed")]
)
async def test_a_neighbour_that_never_answers_digests_or_answers_rubbish_is_counted_and_nothing_is_lost(
    dialer: HttpDialer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digests: Handler, reason: str
) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 1.0)
    async with neighbour(2, digests=digests) as box:
        cart = Cart(dialer, [box], tmp_path)
        began = time.monotonic()
        await cart.porter.errand()
        assert time.monotonic() - began < 20.0
        assert cart.failures() == {reason}
        assert [item.seq for item in cart.spool.pending(9)] == [1]
        cart.spool.close()


@pytest.mark.parametrize("off_ms", [YEAR_MS, -YEAR_MS])
async def test_a_box_whose_clock_is_a_year_off_is_a_neighbour_like_any_other(off_ms: int) -> None:
    port = free_port()
    clocks = (lambda: time.time_ns() // 1_000_000, lambda: time.time_ns() // 1_000_000 + off_ms)
    boxes = [_voice(seed, port, clock) for seed, clock in enumerate(clocks, start=1)]
    async with running(*(box.run() for box in boxes)):
        await until(lambda: all(len(box.known()) == 1 for box in boxes))


def _voice(seed: int, port: int, clock_ms: Callable[[], int]) -> Discovery:
    return Discovery(
        identity=Identity(bytes([seed]) * 32),
        port=7_433,
        net=b"n" * 8,
        addresses=lambda: [LOOPBACK],
        on_link=lambda host: host.startswith("127."),
        is_active=lambda: True,
        has_uplink=lambda: False,
        clock_ms=clock_ms,
        registry=CollectorRegistry(),
        presence_port=port,
        use_mdns=False,
    )
