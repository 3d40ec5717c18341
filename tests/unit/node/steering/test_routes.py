"""What players without a node are answered, through the router."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, Handler, Hosts, Router
from farcast.node.http.governor import Governor, Rules
from farcast.node.http.meter import Meter
from farcast.node.steering.health import TIMEOUT_S, WANTED_S, PathwayHealth
from farcast.node.steering.listing import Listing
from farcast.node.steering.pathway import HERE, Pathway, Site
from farcast.node.steering.routes import Map, Steering
from farcast.protocol.directory import Directory, Endpoint, RelayRecord, seal_directory
from farcast.protocol.errors import RefusedError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Reply, Source, TierName

NOW_MS = 1_800_000_000_000
RELAY = Identity(b"r" * 32)
CATALOG = Identity(b"c" * 32)
MASTER = b"""#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=1,STABLE-VARIANT-ID="360p",PATHWAY-ID="."
360p/index.m3u8
"""
CDN, FAR = "https://cdn.example", "https://relay.example"
ORIGIN = "https://films.example"


class Phone:
    """A dialler to whom some addresses answer."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.status = 200
        self.asked: list[str] = []

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Answer, unless this address is silent."""
        assert (method, path, body, headers, timeout_s) == ("GET", "/healthz", b"", None, TIMEOUT_S)
        assert limit_bytes
        self.asked.append(source.address)
        if source.address in self.silent:
            raise UnreachableError("silent", reason="timeout")
        return Reply(self.status, {}, b"")


class Desk:
    """A router with steering on it, and the clocks it goes by."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turn = 3
        self.phone = Phone()
        self.router = Router(Hosts(["films.example", "box:7433"], addresses=False))
        registry = CollectorRegistry()
        self.health = PathwayHealth(self.phone, lambda: self.now, registry)
        key = [b"k" * 32]
        keyring = Keyring(
            1, "Films", b"o" * 32, key, key, key, key, key, [Endpoint("films.example", 443, web=True)], [CDN]
        )
        record = RelayRecord(1, RELAY.key, [Endpoint("relay.example", 443, web=True)], "", NOW_MS, NOW_MS + 1)
        where = Map(
            Site(b"o" * 32, is_origin=True), lambda: keyring, lambda: [record],
            lambda: frozenset({"films.example"}), lambda: NOW_MS,
        )  # fmt: skip
        Steering(self.read, where, self.health, lambda: self.turn, registry).add_to(self.router, self.guard)
        self.registry = registry

    def guard(self, handler: Handler) -> Handler:
        """Refuse one title."""

        async def handle(exchange: Exchange) -> Answer:
            if exchange.match["title"] == "denied":
                raise RefusedError("taken down", status=410, reason="taken_down")
            return await handler(exchange)

        return handle

    async def read(self, title: str, path: str, limit_bytes: int) -> bytes:
        """Return the one master there is."""
        assert limit_bytes == 1 << 20
        if (title, path) != ("film", "master.m3u8"):
            raise RefusedError("no such file", status=404, reason="unknown_file")
        return MASTER

    async def get(self, target: str, host: str = "films.example") -> Answer:
        """Ask as a browser at ``host`` does."""

        async def no_body(_: int) -> bytes:
            return b""

        exchange = Exchange.of("GET", target, {"host": host}, peer="192.0.2.1", secure=False, reader=no_body)
        return await self.router.handle(exchange)

    async def steer(self, target: str = "/v1/steering/film?turn=3") -> dict[str, Any]:
        """Return a steering manifest."""
        answer = await self.get(target)
        assert answer.status == 200
        return dict[str, Any](json.loads(bytes_of(answer)))


def bytes_of(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes)
    return answer.body


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_the_master_names_its_steering_server_and_every_way(desk: Desk) -> None:
    answer = await desk.get("/web/film/master.m3u8")
    text = bytes_of(answer).decode()
    assert answer.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert 'SERVER-URI="/v1/steering/film?turn=3",PATHWAY-ID="cdn-' in text
    uris = [line for line in text.splitlines() if not line.startswith("#")]
    assert uris == [f"{base}/watch/film/360p/index.m3u8" for base in (CDN, FAR, "")]


async def test_the_steering_server_orders_and_says_when_to_come_back(desk: Desk) -> None:
    found = await desk.steer()
    cdn, relay, here = found["PATHWAY-PRIORITY"]
    assert (cdn[:4], relay[:6], here) == ("cdn-", "relay-", HERE)
    assert found["RELOAD-URI"] == "/v1/steering/film?turn=3"
    assert [clone["ID"] for clone in found["PATHWAY-CLONES"]] == [relay]


async def test_players_parameters_do_no_harm(desk: Desk) -> None:
    assert (await desk.steer("/v1/steering/film?turn=3&_HLS_pathway=x&_HLS_throughput=1"))["VERSION"] == 1
    for turn in ("-1", "65536", "x", "9" * 30, "%D9%A3"):
        assert (await desk.get(f"/v1/steering/film?turn={turn}")).status == 400


async def test_what_is_not_there_or_taken_down_is_said(desk: Desk) -> None:
    assert (await desk.get("/web/film/manifest.mpd")).status == 404
    for path in ("/web/{}/master.m3u8", "/v1/steering/{}"):
        assert (await desk.get(path.format("other"))).status == 404
        assert (await desk.get(path.format("denied"))).status == 410


async def test_a_way_that_does_not_answer_comes_last_and_is_back_when_it_does(desk: Desk) -> None:
    before = (await desk.steer())["PATHWAY-PRIORITY"]
    desk.phone.silent = {CDN}
    await desk.health.look()
    assert desk.health.lost == {CDN}
    after = (await desk.steer())["PATHWAY-PRIORITY"]
    assert after == [*before[1:], before[0]]
    master = bytes_of(await desk.get("/web/film/master.m3u8")).decode()
    assert f'PATHWAY-ID="{after[0]}"' in master.split("#EXT-X-CONTENT-STEERING")[1].splitlines()[0]
    desk.phone.silent = set()
    await desk.health.look()
    assert (await desk.steer())["PATHWAY-PRIORITY"] == before


async def test_a_server_that_fails_inside_does_not_answer(desk: Desk) -> None:
    await desk.steer()
    desk.phone.status = 503
    await desk.health.look()
    assert desk.health.lost == {CDN, FAR}
    desk.phone.status = 404
    await desk.health.look()
    assert desk.health.lost == frozenset()


async def test_nobody_is_asked_while_no_player_is_there(desk: Desk) -> None:
    await desk.health.look()
    assert desk.phone.asked == []
    await desk.steer()
    await desk.health.look()
    assert sorted(desk.phone.asked) == [CDN, FAR], "never itself"
    desk.now += WANTED_S
    desk.phone.asked.clear()
    await desk.health.look()
    assert desk.phone.asked == []


async def test_however_many_ways_are_named_few_are_watched(desk: Desk) -> None:
    desk.health.want([Pathway(f"cdn-{at}", f"https://{at}.example", TierName.CDN) for at in range(100)])
    await desk.health.look()
    assert len(desk.phone.asked) == 32


async def test_steering_is_never_told_that_it_asks_too_often(desk: Desk) -> None:
    meter = Meter(Governor(Rules(client_requests_s=1, client_burst=1), processes=1))
    desk.router.admit = meter.admit
    statuses = [(await desk.get("/v1/steering/film")).status for _ in range(4)]
    assert 429 not in statuses
    assert statuses[-1] == 503
    assert (await desk.get("/web/film/master.m3u8")).status == 429


async def test_a_directory_is_opened_again_when_it_is_another() -> None:
    def signed(records: Sequence[bytes]) -> bytes:
        return seal_directory(Directory(1, NOW_MS, NOW_MS + 1, list(records)), CATALOG)

    endpoint = Endpoint("relay.example", 443, web=True)
    record = RelayRecord(1, RELAY.key, [endpoint], "", NOW_MS, NOW_MS + 1)
    now: list[bytes | None] = [None]
    listing = Listing(lambda: now[0], lambda: CATALOG.key)
    await listing.follow()
    assert list(listing.records()) == []
    now[0] = signed([RELAY.seal("record", record)])
    await listing.follow()
    assert list(listing.records()) == [record]
    first = listing.records()
    await listing.follow()
    assert listing.records() is first
    now[0] = signed([])
    await listing.follow()
    assert list(listing.records()) == []
