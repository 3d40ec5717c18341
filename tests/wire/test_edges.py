"""An origin behind real caching proxies: what they keep, what poisons them, and how they are emptied."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from random import Random
from urllib.parse import unquote

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.demo.troupe import free_port
from farcast.node.http.dial import HttpDialer
from farcast.node.ladder.fetch import Fetcher
from farcast.node.ladder.tiers import WebTier, pull_zones
from farcast.origin.cdn.edges import Edges
from farcast.origin.cdn.sweep import Swept
from farcast.protocol.cid import Cid
from farcast.protocol.errors import RefusedError
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import Source, TierName
from farcast.tests.conftest import Need
from farcast.tests.wire.edges import Api, Edge, Gate, Spoiler, fetch, nginx, varnish
from farcast.tests.wire.pantry import Stocked, office, stock
from farcast.tests.wire.street import Box, Ran, Street, ask, until

MIB = 1 << 20
WAYS = ("wrong", "page", "short", "long", "gzip", "missing", "broken", "moved", "cut")
STATES = ("serving", "caching", "troubled")
SERVED_WITHIN_S = 0.4
"""A missing segment's deadline, from the request to its last byte."""


@dataclass
class Front:
    """An origin, what stands before it, and what it has."""

    street: Street
    origin: Box
    keyring: Keyring
    varnish: Edge
    nginx: Edge
    spoiler: Spoiler
    gate: Gate
    api: Api
    film: Stocked
    gone: dict[str, Stocked]


def zones(*lines: str) -> dict[str, str]:
    """Return the setting of ``[cdn] zones``."""
    return {"FARCAST_CDN_ZONES": ",".join(lines)}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Generator[Front]:
    """Bring everybody up: Varnish is a Bunny zone, told over the API, nginx one by its address alone."""
    programs = need("varnishd"), need("nginx")
    folder = tmp_path_factory.mktemp("front")
    street, port, random = Street(folder), free_port(), Random(5)
    keys, home = folder / "bunny.key", street.home("origin")
    keys.write_text(Api.KEY + "\n")
    keys.chmod(0o600)
    with ExitStack() as closing:
        closing.callback(street.close)
        spoiler = Spoiler(port)
        closing.callback(spoiler.close)
        edges = varnish(programs[0], folder / "varnish", spoiler.port)
        closing.callback(edges.stop)
        plain = nginx(programs[1], folder / "nginx", spoiler.port)
        closing.callback(plain.stop)
        api = Api(edges.port)
        closing.callback(api.close)
        gate = Gate("bunny", "a-token-key", edges.port)
        closing.callback(gate.close)
        told = [word for edge in (edges, plain) for word in ("--cdn", edge.url)]
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", *told, "--home", home)
        books = office(home)
        keyring = books.keys.keyring
        shared = b"\0" + random.randbytes(MIB - 1)
        segments: dict[str, bytes] = {}
        for at in range(23):
            segments[f"v0/seg-{at:05d}.m4s"] = b"\0" + random.randbytes(MIB - 1)
        film = stock(books, "film", {**segments, "v0/seg-00023.m4s": shared})
        gone: dict[str, Stocked] = {}
        for title in ("one", "two", "three"):
            files = {"master.m3u8": f"#EXTM3U\n# {title}\n".encode()}
            files |= {"v0/seg-00000.m4s": b"\0" + random.randbytes(3 * MIB - 1), "v0/seg-00001.m4s": shared}
            gone[title] = stock(books, title, files)
        books.close()
        lines = zones(
            f"{edges.url} kind=bunny zone=12 key={keys} api={api.url}",
            plain.url,
            f"{gate.url} kind=bunny token=$GATE_KEY",
        )
        settings = {"FARCAST_LISTEN_PORT": str(port), "GATE_KEY": gate.key, **lines}
        origin = street.start("origin", "origin", "run", settings=settings)
        until(lambda: "cdn-tag" in fetch(port, "HEAD", block(film.root))[1])
        yield Front(street, origin, keyring, edges, plain, spoiler, gate, api, film, gone)


@pytest.fixture(params=["varnish", "nginx"])
def edge(front: Front, request: pytest.FixtureRequest) -> Edge:
    found: Edge = getattr(front, request.param)
    front.spoiler.way = ""
    return found


def passed(front: Front, path: str) -> int:
    """Return how often the origin was asked for a path."""
    return front.spoiler.passed.count(path)


def block(cid: Cid) -> str:
    return f"/ipfs/{cid}?format=raw"


# -- what a cache keeps


def test_a_block_reaches_the_origin_once_and_a_range_or_a_part_of_it_not_at_all(
    front: Front, edge: Edge
) -> None:
    cid = front.film.leaves["v0/seg-00000.m4s"][0]
    before = passed(front, block(cid))
    answers = [fetch(edge.port, "GET", block(cid)) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200, 200, 200]
    assert all(cid.matches(body) for _, _, body in answers)
    assert "immutable" in answers[2][1]["cache-control"]
    status, headers, part = fetch(edge.port, "GET", block(cid), {"range": "bytes=0-99"})
    assert (status, part, headers["content-range"]) == (206, answers[0][2][:100], f"bytes 0-99/{MIB}")
    status, _, none = fetch(edge.port, "GET", block(cid), {"if-none-match": answers[0][1]["etag"]})
    assert (status, none) == (304, b"")
    assert passed(front, block(cid)) - before == 1


def test_forms_of_one_block_are_never_taken_for_each_other(front: Front, edge: Edge) -> None:
    root = front.film.root
    raw = fetch(edge.port, "GET", block(root))[2]
    car = fetch(edge.port, "GET", f"/ipfs/{root}?format=car&dag-scope=block")
    by_accept = fetch(edge.port, "GET", f"/ipfs/{root}", {"accept": "application/vnd.ipld.raw"})
    other = fetch(edge.port, "GET", f"/ipfs/{root}?dag-scope=block", {"accept": "application/vnd.ipld.car"})
    assert root.matches(raw)
    assert by_accept[2] == raw
    assert car[2] == other[2] != raw
    assert by_accept[1]["cdn-cache-control"] == "no-store"
    assert "cdn-cache-control" not in car[1]


def test_what_is_not_there_is_remembered_for_a_moment_only(edge: Edge) -> None:
    late = bytes(edge.port % 251 for _ in range(5_000))
    cid = Cid.of(0x55, late)
    status, headers, _ = fetch(edge.port, "GET", block(cid))
    assert (status, headers["cache-control"]) == (404, "public, max-age=5")


def test_errors_are_not_kept(front: Front, edge: Edge) -> None:
    other = f"/ipfs/{front.film.root}?format=dag-json"
    for path, wanted in ((other, 406), ("/ipfs/nonsense?format=raw", 400)):
        before = passed(front, path)
        for _ in range(2):
            status, headers, _ = fetch(edge.port, "GET", path)
            assert (status, headers["cache-control"]) == (wanted, "no-store")
        assert passed(front, path) - before == 2


def test_a_range_beyond_the_end_does_not_stay_in_the_place_of_the_whole(front: Front, edge: Edge) -> None:
    cid = front.film.leaves["v0/seg-00001.m4s"][0]
    beyond = {"range": f"bytes={9 * MIB}-"}
    direct = fetch(front.origin.port, "GET", block(cid), beyond)
    assert (direct[0], direct[1]["cache-control"]) == (416, "no-store")
    assert fetch(edge.port, "GET", block(cid), beyond)[0] in (416, 200)  # nginx may send the whole
    assert cid.matches(fetch(edge.port, "GET", block(cid))[2])


def test_files_are_kept_a_minute_and_asked_about_by_their_tag(front: Front, edge: Edge) -> None:
    path = "/watch/film/v0/seg-00002.m4s"
    status, headers, body = fetch(edge.port, "GET", path)
    assert (status, len(body)) == (200, MIB)
    assert "s-maxage=60" in headers["cache-control"]
    assert "max-age=5," in headers["cache-control"]
    assert fetch(edge.port, "GET", path)[2] == body
    assert passed(front, path) <= 2  # one for each edge
    assert fetch(front.origin.port, "GET", path, {"if-none-match": headers["etag"]})[0] == 304


def test_what_the_log_has_said_stays_and_what_it_says_now_does_not(front: Front) -> None:
    def caching(path: str) -> str:
        status, headers, _ = fetch(front.origin.port, "GET", path)
        assert status == 200
        return headers["cache-control"]

    size = len(front.gone) + 1
    assert caching(f"/v1/catalog/entries?start=0&end={size}") == "public, max-age=3600"
    assert caching(f"/v1/catalog/proof?index=0&size={size}") == "public, max-age=3600"
    for path in (
        "/v1/catalog/entries?start=0", f"/v1/catalog/entries?start=0&end={size + 9}",
        "/v1/catalog/proof?index=0", "/v1/catalog/checkpoint", "/v1/beacons", "/v1/trust/timestamp.json",
    ):  # fmt: skip
        assert caching(path).startswith("public, max-age=5,"), path
    assert caching("/readyz") == "no-store"


def test_blocks_and_files_carry_their_titles_tag(front: Front) -> None:
    film = front.film
    for path in (block(film.leaves["v0/seg-00003.m4s"][0]), block(film.root), "/watch/film/v0/seg-00003.m4s"):
        for _ in range(2):  # by the handler, and by the fast path
            assert fetch(front.origin.port, "GET", path)[1]["cdn-tag"] == "farcast-film", path
    assert "cdn-tag" not in fetch(front.origin.port, "GET", "/v1/catalog/checkpoint")[1]
    assert "cdn-tag" not in fetch(front.origin.port, "GET", "/watch/film/nothing")[1]


# -- what a node does about a poisoned edge


@pytest.mark.parametrize("way", WAYS)
def test_a_poisoned_edge_costs_one_refetch_and_no_stall(
    front: Front, edge: Edge, way: str, tmp_path: Path
) -> None:
    leaves = front.film.leaves
    at = 4 + WAYS.index(way)
    cid = leaves[f"v0/seg-{at:05d}.m4s"][0]
    calm = leaves[f"v0/seg-{at + len(WAYS):05d}.m4s"][0]
    before = passed(front, block(cid))
    front.spoiler.way = way
    fetch_quietly(edge.port, block(cid))
    front.spoiler.way = ""

    async def play() -> tuple[float, int, int]:
        registry = CollectorRegistry()
        store = DiskStore(tmp_path, 100_000_000, registry)
        relay = Source(TierName.RELAY, "relay", f"127.0.0.1:{front.origin.port}", front.keyring.box)
        zone = next(one for one in pull_zones(front.keyring) if one.address == edge.url)
        async with HttpDialer(allow_private=True) as dialer:
            tiers = [
                WebTier(TierName.CDN, dialer, lambda: [zone]),
                WebTier(TierName.RELAY, dialer, lambda: [relay]),
            ]
            fetcher = Fetcher(store, tiers, registry)
            try:
                await fetcher.block(front.film.root, title="film")
                await dialer.get_block(relay, front.film.root)  # both ways are known by now
                began = time.monotonic()
                data = await fetcher.block(cid, title="film")
                took_s = time.monotonic() - began
                assert cid.matches(data)
                assert calm.matches(await fetcher.block(calm, title="film"))
                return took_s, fetcher.supply.blocks[TierName.RELAY], fetcher.supply.blocks[TierName.CDN]
            finally:
                await fetcher.close()
                store.close()

    took_s, from_relay, from_cdn = asyncio.run(play())
    assert took_s <= SERVED_WITHIN_S, way
    mended = way == "cut" or (way in ("gzip", "broken") and edge is front.varnish)
    if mended:  # no cache keeps what ended early; Varnish keeps no 503, and unpacks for who wants it so
        assert from_cdn >= 1
        return
    assert from_relay >= 1  # the poisoned one; on a busy machine another may be hedged as well
    assert from_relay + from_cdn == 3
    assert passed(front, block(cid)) - before == 1, "the edge was not poisoned"


def test_a_viewers_node_plays_through_the_gate_and_past_a_poisoned_segment(front: Front) -> None:
    street, home, port = front.street, front.street.home("origin"), free_port()
    zones = [word for edge in (front.varnish, front.nginx) for word in ("--cdn", edge.url)]
    listen = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    front.spoiler.way = ""
    shown = street.must("origin", "announce", "--cdn", front.gate.url, "--home", home)
    try:
        assert shown["cdn"] == [front.gate.url]
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        joined = street.run("relay", "join", link, "--home", street.home("relay"), settings=listen)
        assert joined.code == 0, joined
        street.start("relay", "relay", "run", settings=listen)
        link = street.must("origin", "invite", "--home", home)["link"]
        street.must("join", link, "--home", street.home("node"))
        node = street.start("node", "run")
        until(lambda: all(row["sources"] for row in node.api("/api/status")["tiers"][:2]), 30)

        def segment(at: int) -> float:
            (cid,) = front.film.leaves[f"v0/seg-{at:05d}.m4s"]
            began = time.monotonic()
            found = ask(node.local, "GET", f"/{node.token}/watch/film/v0/seg-{at:05d}.m4s")
            took_s = time.monotonic() - began
            assert found.status == 200
            assert cid.matches(found.body)
            return took_s

        segment(0)
        assert node.metric("farcast_node_tier_blocks_total", tier="cdn") >= 1
        (poisoned,) = front.film.leaves["v0/seg-00003.m4s"]
        fetch(front.varnish.port, "PURGE", block(poisoned))
        front.spoiler.way = "wrong"
        fetch(front.varnish.port, "GET", block(poisoned))
        front.spoiler.way = ""
        assert segment(3) <= SERVED_WITHIN_S
        assert node.metric("farcast_node_tier_rejected_total", tier="cdn") == 1
        assert node.metric("farcast_node_tier_blocks_total", tier="relay") >= 1
        segment(2)
        assert node.metric("farcast_node_tier_rejected_total", tier="cdn") == 1
    finally:
        street.must("origin", "announce", *zones, "--home", home)
        fetch(front.varnish.port, "BAN", "/")


def fetch_quietly(port: int, path: str) -> None:
    """Let an edge take what the spoiler gives, however that ends."""
    try:
        fetch(port, "GET", path)
    except (OSError, HTTPException):
        return


# -- how a title leaves


def test_a_purge_empties_the_zones_it_can_and_says_how_long_each_took(front: Front) -> None:
    film = warm(front, "one")
    assert passed(front, block(film.root)) >= 1
    ran = withdraw(front, "deny", "one")
    rows = {row["name"]: row for row in ran.json["tiers"]}
    bunny, plain = rows[front.varnish.url], rows[front.nginx.url]
    assert (ran.code, ran.json["failed"], ran.json["running"]) == (0, [], True)
    assert (bunny["tier"], bunny["state"]) == ("cdn", "gone")
    assert 0 < bunny["seconds"] < 20
    assert (plain["state"], plain["seconds"]) == ("cached", None)
    assert plain["until"] > "2027"
    (shared,) = film.leaves["v0/seg-00001.m4s"]
    own = film.cids - {film.manifest, shared}
    for path in (*map(block, own), "/watch/one/master.m3u8", "/watch/one/v0/seg-00000.m4s"):
        assert fetch(front.varnish.port, "GET", path)[0] in (404, 410), path
    targets = [(one.method, unquote(one.target)) for one in front.api.told]
    assert targets[0] == ("POST", "/pullzone/12/purgeCache")
    assert json.loads(front.api.told[0].body) == {"CacheTag": "farcast-one"}
    assert ("POST", f"/purge?url={front.varnish.url}/watch/one/") in targets
    wanted = {("POST", f"/purge?url={front.varnish.url}{block(cid)}") for cid in (*own, film.manifest)}
    assert wanted <= set(targets)
    assert fetch(front.varnish.port, "GET", block(shared))[0] == 200  # another film still needs it
    assert {one.headers["accesskey"] for one in front.api.told} == {Api.KEY}


def test_a_purge_that_fails_is_told_by_zone_exits_1_and_is_taken_up_again(front: Front) -> None:
    film = warm(front, "two")
    front.api.refusals[:] = [500] * 100
    try:
        ran = withdraw(front, "deny", "two")
    finally:
        front.api.refusals.clear()
    rows = {row["name"]: row for row in ran.json["tiers"]}
    bunny = rows[front.varnish.url]
    assert (ran.code, ran.json["failed"]) == (1, [front.varnish.url])
    assert bunny["state"] == "not purged: it answered 500: Too many requests"
    assert (bunny["seconds"], bunny["until"] > "2027") == (None, True)
    assert f"not purged at {front.varnish.url}; `farcast origin purge two` takes up what is left" in ran.err
    leaf = film.leaves["v0/seg-00000.m4s"][1]
    assert fetch(front.varnish.port, "GET", block(leaf))[0] == 200
    here = {"kind": "bunny"}
    assert front.origin.metric("farcast_origin_cdn_purge_left_paths", **here) >= len(film.cids) - 1
    again = withdraw(front, "purge", "two")  # its folders are gone by now; the worklist knows
    assert (again.code, again.json["failed"]) == (0, [])
    assert fetch(front.varnish.port, "GET", block(leaf))[0] in (404, 410)
    assert front.origin.metric("farcast_origin_cdn_purges_total", result="status_500", **here) == 1
    assert front.origin.metric("farcast_origin_cdn_purge_left_paths", **here) == 0
    third = withdraw(front, "purge", "two")
    assert (third.code, third.json["failed"]) == (0, [])


def test_a_busy_api_is_given_the_time_it_asks_for(front: Front) -> None:
    warm(front, "three")
    front.api.refusals[:] = [429, 503]
    began = time.monotonic()
    ran = withdraw(front, "deny", "three")
    assert (ran.code, ran.json["failed"]) == (0, [])
    assert 1 <= time.monotonic() - began < 25


@pytest.mark.parametrize("kind", ["generic", "bunny", "cloudflare"])
def test_each_kind_empties_a_real_cache_over_its_own_api(front: Front, kind: str, tmp_path: Path) -> None:
    api, edge = front.api, front.varnish
    words = {
        "generic": f"api={edge.url}",
        "bunny": f"key=$CDN_KEY api={api.url}",
        "cloudflare": f"zone={api.ZONE} key=$CDN_KEY api={api.url}/client/v4",
    }[kind]
    registry = CollectorRegistry()
    edges = Edges([f"{edge.url} kind={kind} {words}"], tmp_path, {"CDN_KEY": api.KEY}, registry)
    paths = [block(front.film.root), block(front.film.leaves["v0/seg-00022.m4s"][0])]
    paths.append("/watch/film/v0/seg-00022.m4s")
    front.spoiler.way = ""
    for path in paths:
        assert fetch(edge.port, "GET", path)[0] == 200
    api.told.clear()
    edges.remember("film", [edge.url], paths)

    async def purge() -> Swept:
        async with HttpDialer(allow_private=True) as dialer:
            end = asyncio.get_running_loop().time() + 30
            return await edges.purge("film", edge.url, dialer, end=end, progress=lambda _done, _total: None)

    assert asyncio.run(purge()) == Swept("", "", ())
    for path in paths:
        assert fetch(edge.port, "GET", path)[1]["x-cache"] == "MISS", path
    done = {"kind": kind, "result": "done"}
    assert registry.get_sample_value("farcast_origin_cdn_purges_total", done) == 1
    if kind == "cloudflare":
        target = f"/client/v4/zones/{api.ZONE}/purge_cache"
        assert [(one.method, one.target) for one in api.told] == [("POST", target)] * 2
        assert [json.loads(one.body) for one in api.told] == [
            {"tags": ["farcast-film"]},
            {"files": [edge.url + path for path in paths]},
        ]
        assert {one.headers["content-type"] for one in api.told} == {"application/json"}
        assert {one.headers["authorization"] for one in api.told} == {f"Bearer {api.KEY}"}


@pytest.mark.parametrize("kind", ["bunny", "cloudflare"])
def test_a_node_comes_in_with_the_token_of_the_keyring_and_nobody_without(front: Front, kind: str) -> None:
    gate = Gate(kind, "a-token-key", front.varnish.port)
    cid, now_s = front.film.leaves["v0/seg-00022.m4s"][0], int(time.time())
    line = f"{gate.url} kind={kind} token=$CDN_TOKEN_KEY"
    edges = Edges([line], Path("unused"), {"CDN_TOKEN_KEY": gate.key}, CollectorRegistry())
    front.spoiler.way = ""

    async def get(bases: list[str]) -> bytes:
        (zone,) = pull_zones(msgspec.structs.replace(front.keyring, cdn=bases))
        async with HttpDialer(allow_private=True) as dialer:
            return await dialer.get_block(zone, cid)

    try:
        for issued_s in (now_s, now_s - 43_000):
            assert cid.matches(asyncio.run(get(edges.signed([gate.url], issued_s))))
        for bases in ([gate.url], edges.signed([gate.url], now_s - 2 * 86_400)):
            with pytest.raises(RefusedError) as caught:
                asyncio.run(get(bases))
            assert caught.value.status == 403
        assert f"/ipfs/{cid}?format=raw" in front.spoiler.passed
        assert not any("token" in path or "verify" in path for path in front.spoiler.passed)
    finally:
        gate.close()


def test_the_key_is_in_no_log_no_answer_and_no_command_line(front: Front) -> None:
    status = front.street.must("origin", "status", "--home", front.street.home("origin"))
    texts = [front.origin.log.read_text(), front.origin.out.read_text(), json.dumps(status)]
    texts.append(Path(f"/proc/{front.origin.process.pid}/cmdline").read_text())
    texts.append(json.dumps(front.street.must("config", "show", "--home", front.street.home("origin"))))
    assert not any(Api.KEY in text for text in texts)


def test_status_and_doctor_say_whether_each_zone_answers_and_caches(front: Front) -> None:
    home = front.street.home("origin")
    status = front.street.must("origin", "status", "--home", home)
    assert status["edges"] == [
        {"name": front.varnish.place, "trouble": "", "caches": "yes"},
        {"name": front.nginx.place, "trouble": "", "caches": "yes"},
    ]
    seen = {state: front.origin.metric("farcast_origin_cdn_zones", state=state) for state in STATES}
    assert seen == {"serving": 2, "caching": 2, "troubled": 0}
    ran = front.street.run("doctor", "--home", home, "--json")
    cdn = next(one for one in ran.json["checks"] if one["name"] == "cdn")
    assert cdn["state"] == "ok"
    assert f"{front.varnish.place} answers and caches" in cdn["sentence"]


def test_a_key_that_others_can_read_keeps_the_origin_from_starting(front: Front, tmp_path: Path) -> None:
    street, home = Street(tmp_path), tmp_path / "origin"
    loose = tmp_path / "bunny.key"
    loose.write_text("secret\n")
    loose.chmod(0o644)
    shutil.copytree(front.street.home("origin"), home, ignore=shutil.ignore_patterns("blocks", "*.json.*"))
    ran = street.run(
        "origin", "run", "--home", home,
        settings=zones(f"{front.varnish.url} kind=bunny key={loose}"),
    )  # fmt: skip
    ran.refused(2, str(loose), "chmod 600")


def warm(front: Front, title: str) -> Stocked:
    """Have both edges keep all of a title."""
    film, front.spoiler.way = front.gone[title], ""
    front.api.told.clear()
    paths = [*map(block, film.cids), f"/watch/{title}/master.m3u8", f"/watch/{title}/v0/seg-00000.m4s"]
    for edge in (front.varnish, front.nginx):
        for path in paths:
            assert fetch(edge.port, "GET", path)[0] == 200, path
    return film


def withdraw(front: Front, action: str, title: str) -> Ran:
    """Run a withdrawal against the running origin."""
    return front.street.run("origin", action, title, "--home", front.street.home("origin"), "--json")
