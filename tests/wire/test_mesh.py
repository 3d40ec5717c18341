"""The mesh over real sockets on loopback: discovery, blocks, pulses and acks."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.mesh import carry, mdns
from farcast.mesh.discovery import Discovery
from farcast.mesh.link import GROUP_IPV4
from farcast.mesh.porter import Porter
from farcast.mesh.tier import MeshTier
from farcast.node.blocks.store import DiskStore
from farcast.node.demo.troupe import free_port
from farcast.node.http.dial import HttpDialer
from farcast.node.http.exchange import Answer, Exchange, Handler, Hosts, Router
from farcast.node.http.listener import Listener
from farcast.node.http.tally import HttpMetrics
from farcast.node.pulses.reception import Reception
from farcast.node.pulses.spool import DiskSpool
from farcast.protocol.batch import Ack, TidAck, open_ack
from farcast.protocol.beacon import Beacon, open_beacon, seal_beacon
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.errors import RefusedError, RemoteError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Source, SpooledPulse, TierName
from farcast.protocol.pulse import PulseSigner, Viewing
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice
from farcast.tests.wire.services import running, until

LOOPBACK = "127.0.0.1"
NET = b"n" * 8
TICKETS, INTAKE, CATALOG = (Identity(letter * 32) for letter in (b"t", b"i", b"c"))
KEYRING = Keyring(
    1, "o", b"o" * 32, [CATALOG.key], [TICKETS.key], [INTAKE.key], [b"s" * 32], [b"p" * 32], [], []
)


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Voice:
    """One box's discovery and what it counts."""

    def __init__(self, seed: int, presence_port: int, *, port: int = 7_433, use_mdns: bool = False) -> None:
        self.identity = Identity(bytes([seed]) * 32)
        self.registry = CollectorRegistry()
        self.uplink = False
        self.discovery = Discovery(
            identity=self.identity,
            port=port,
            net=NET,
            addresses=lambda: [LOOPBACK],
            on_link=lambda host: host.startswith("127."),
            is_active=lambda: True,
            has_uplink=lambda: self.uplink,
            clock_ms=clock_ms,
            registry=self.registry,
            presence_port=presence_port,
            use_mdns=use_mdns,
        )

    def sees(self, *others: Voice) -> bool:
        """Say whether exactly ``others`` are known."""
        known = {neighbour.key for neighbour in self.discovery.known()}
        return known == {other.identity.key for other in others}

    def count(self, name: str, **labels: str) -> float:
        """Read one counter."""
        return self.registry.get_sample_value(f"farcast_mesh_{name}_total", labels) or 0.0


async def test_boxes_find_each_other_at_once_and_notice_leaving_at_once() -> None:
    port = free_port()
    first, second, third = (Voice(seed, port) for seed in (1, 2, 3))
    async with running(first.discovery.run(), second.discovery.run()):
        await until(lambda: first.sees(second) and second.sees(first))
        async with running(third.discovery.run()):
            took = await until(
                lambda: third.sees(first, second) and first.sees(second, third) and second.sees(first, third)
            )
            assert took < 1.0
            [source, _] = third.discovery.neighbours()
            assert source.tier is TierName.MESH
            assert source.address == "127.0.0.1:7433"
        assert await until(lambda: first.sees(second)) < 1.0
        assert first.registry.get_sample_value("farcast_mesh_neighbours") == 1.0


async def test_a_change_of_uplink_is_told_before_the_interval_ends() -> None:
    port = free_port()
    first, second = Voice(1, port), Voice(2, port)
    async with running(first.discovery.run(), second.discovery.run()):
        await until(lambda: first.sees(second))
        await asyncio.sleep(1.1)
        assert not first.discovery.known()[0].uplink
        second.uplink = True
        assert await until(lambda: first.discovery.known()[0].uplink) < 1.2


async def test_noise_on_the_group_is_counted_and_harmless() -> None:
    port = free_port()
    first, second = Voice(1, port), Voice(2, port)
    async with running(first.discovery.run()):
        await until(lambda: first.count("received_presences") > 0)  # its own: the sockets are open
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            for data in (b"", b"x", bytes(160), bytes(1_400)):
                sock.sendto(data, (GROUP_IPV4, port))
        async with running(second.discovery.run()):
            await until(lambda: first.sees(second))
        assert first.count("rejected_presences", reason="malformed") == 3
        assert first.count("rejected_presences", reason="too_large") == 1


async def test_where_the_presence_group_is_filtered_mdns_still_brings_boxes_together() -> None:
    first, second = Voice(1, free_port(), use_mdns=True), Voice(2, free_port(), use_mdns=True)
    async with running(first.discovery.run(), second.discovery.run()):
        await until(lambda: first.sees(second) and second.sees(first), 20)
        assert first.count("failures", what="mdns") == 0


async def test_an_mdns_label_says_nothing_but_a_hash() -> None:
    assert len(mdns.label(b"k" * 32)) == 16
    assert int(mdns.label(b"k" * 32), 16) >= 0


@contextmanager
def disks(folder: Path) -> Generator[tuple[DiskStore, DiskSpool]]:
    folder.mkdir()
    store = DiskStore(folder, 1 << 30, CollectorRegistry())
    spool = DiskSpool(folder / "spool.db", CollectorRegistry())
    try:
        yield store, spool
    finally:
        spool.close()
        store.close()


class Home:
    """A neighbour's listener over a real store and spool."""

    def __init__(self, store: DiskStore, spool: DiskSpool, identity: Identity) -> None:
        self.store, self.spool = store, spool
        self.identity = identity
        self.beacons: list[bytes] = []
        self.requests: list[str] = []

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[int]:
        """Serve while the block runs; yields the port."""
        registry = CollectorRegistry()
        router = Router(Hosts([]))
        router.route("GET", "/ipfs/{cid}", self._block)
        reception = Reception(self.spool, self.identity, lambda: KEYRING, clock_ms, registry)
        router.route("POST", "/v1/pulses", reception.handle)
        router.route("POST", "/v1/digests", self._count(reception.compare))
        router.route("GET", "/v1/beacons", self._beacons)
        listener = Listener(
            router, lambda _: None, self.identity, HttpMetrics(registry), host=LOOPBACK, port=0
        )
        async with listener:
            yield listener.port

    async def _block(self, exchange: Exchange) -> Answer:
        assert exchange.headers["cache-control"] == "only-if-cached"
        data = self.store.get(Cid.parse(exchange.match["cid"]))
        if data is None:
            raise RefusedError("not held", status=412)
        return Answer(200, {"content-type": "application/vnd.ipld.raw"}, data)

    def _count(self, handler: Handler) -> Handler:
        async def handle(exchange: Exchange) -> Answer:
            self.requests.append(exchange.path)
            return await handler(exchange)

        return handle

    async def _beacons(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer(200, {}, encode(self.beacons))


async def test_a_block_comes_from_a_neighbour_that_was_discovered(tmp_path: Path) -> None:
    presence_port, data = free_port(), bytes(range(256)) * 2_000
    cid = Cid.of(RAW, data)
    with disks(tmp_path / "neighbour") as (store, spool):
        store.put(cid, data)
        home = Home(store, spool, Identity(b"\x02" * 32))
        async with home.listening() as port:
            viewer, neighbour = Voice(1, presence_port), Voice(2, presence_port, port=port)
            dialer = HttpDialer(allow_private=True)
            tier = MeshTier(dialer, viewer.discovery.neighbours)
            assert list(tier.sources()) == []
            async with running(viewer.discovery.run(), neighbour.discovery.run()):
                await until(lambda: viewer.sees(neighbour))
                [source] = tier.sources()
                assert await tier.fetch(source, cid) == data
                with pytest.raises(RefusedError) as caught:
                    await tier.fetch(source, Cid.of(RAW, b"other"))
                assert caught.value.status == 412
                with pytest.raises(RemoteError):
                    await tier.fetch(source._replace(key=Identity(b"e" * 32).key), cid)
            await dialer.close()


def a_days_pulses(count: int) -> list[SpooledPulse]:
    session = Identity(b"z" * 32)
    now_ms = clock_ms()
    office = TicketOffice(TICKETS, b"secret" * 6)
    grant = office.issue(b"T" * 16, now_ms // DAY_MS, session.key, Holder(b"a" * 16, 0))
    signer = PulseSigner(grant.ticket, grant.key, session)
    viewing = Viewing(2, bytes(32), 0, 0, [], bytes(16))
    return [
        SpooledPulse(b"T" * 16, seq, signer.sign(now_ms, 1_000, 0, viewing), grant.ticket, now_ms, own=True)
        for seq in range(1, count + 1)
    ]


async def test_pulses_go_to_a_neighbour_and_the_ack_comes_back_and_prunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "NEWS_S", 0.0)
    presence_port = free_port()
    with disks(tmp_path / "viewer") as (_, mine), disks(tmp_path / "neighbour") as (store, theirs):
        home = Home(store, theirs, Identity(b"\x02" * 32))
        beacon = seal_beacon(clock_ms(), bytes(32), CATALOG)
        home.beacons = [beacon, seal_beacon(clock_ms(), bytes(32), INTAKE)]
        mine.add(a_days_pulses(5))
        beacons: list[Beacon] = []

        def accept_ack(data: bytes) -> int:
            open_ack(data, [INTAKE.key])
            return mine.settle(data)

        def accept_beacon(data: bytes) -> None:
            beacons.append(open_beacon(data, CATALOG.key))

        async with home.listening() as port:
            viewer, neighbour = Voice(1, presence_port), Voice(2, presence_port, port=port)
            neighbour.uplink = True
            dialer = HttpDialer(allow_private=True)
            porter = Porter(
                spool=mine,
                dialer=dialer,
                neighbours=viewer.discovery.known,
                has_uplink=lambda: viewer.uplink,
                hops=viewer.discovery.look,
                accept_ack=accept_ack,
                accept_beacon=accept_beacon,
                clock_ms=lambda: 0,
                registry=viewer.registry,
            )
            async with running(viewer.discovery.run(), neighbour.discovery.run()):
                await until(lambda: viewer.sees(neighbour))
                await porter.errand()
                await porter.errand()
                assert [item.pulse for item in theirs.pending(9)] == [item.pulse for item in mine.pending(9)]
                assert not any(item.own for item in theirs.pending(9))
                assert viewer.count("handed_pulses") == 5
                assert viewer.count("posts", result="ok") == 1
                assert [item.value for item in beacons] == [bytes(32)]
                assert viewer.count("fetched_messages", kind="beacon", result="bad_signature") == 1

                ack = Ack(1, bytes(32), [TidAck(b"T" * 16, 4, [], [])], "s", 0, 1, bytes(32), clock_ms())
                theirs.settle(INTAKE.seal("ack", ack))
                [more] = a_days_pulses(6)[5:]
                mine.add([more])
                await porter.errand()
                assert [item.seq for item in mine.pending(9)] == [5, 6]
                assert [item.seq for item in theirs.pending(9)] == [5, 6]
                assert home.requests == ["/v1/digests"] * 2

                viewer.uplink = True
                await porter.errand()
                assert len(home.requests) == 2
            await dialer.close()


async def test_a_neighbour_that_takes_nothing_or_lies_is_counted_and_asked_again(tmp_path: Path) -> None:
    presence_port = free_port()
    with disks(tmp_path / "viewer") as (_, mine), disks(tmp_path / "neighbour") as (store, theirs):
        mine.add(a_days_pulses(2))
        liar = Home(store, theirs, Identity(b"\x02" * 32))
        async with liar.listening() as port:
            viewer, neighbour = Voice(1, presence_port), Voice(3, presence_port, port=port)
            neighbour.uplink = True
            dialer = HttpDialer(allow_private=True)
            porter = Porter(
                spool=mine,
                dialer=dialer,
                neighbours=viewer.discovery.known,
                has_uplink=lambda: False,
                hops=lambda: 1,
                accept_ack=lambda _: 0,
                accept_beacon=lambda _: None,
                clock_ms=lambda: 0,
                registry=viewer.registry,
            )
            async with running(viewer.discovery.run(), neighbour.discovery.run()):
                await until(lambda: viewer.sees(neighbour))
                await porter.errand()
                assert viewer.count("posts", result="ok") == 0
                failed = {
                    sample.labels["result"]
                    for metric in viewer.registry.collect()
                    for sample in metric.samples
                    if sample.name == "farcast_mesh_posts_total"
                }
                assert failed == {"wrong_key"}
                assert theirs.pending(9) == []
            await dialer.close()


async def test_a_neighbour_that_is_gone_is_unreachable() -> None:
    dialer = HttpDialer(allow_private=True)
    source = Source(TierName.MESH, "gone", f"127.0.0.1:{free_port()}", Identity(b"g" * 32).key)
    with pytest.raises(UnreachableError):
        await MeshTier(dialer, list).fetch(source, Cid.of(RAW, b"x"))
    await dialer.close()
