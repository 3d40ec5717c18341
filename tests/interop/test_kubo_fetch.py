"""A real Kubo gets a title from a relay it finds by routing: over its plain port and shipped fronts."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from farcast.origin.provider import GATEWAY
from farcast.protocol.batch import BATCH_LIMIT_BYTES
from farcast.tests.interop.coast import Coast
from farcast.tests.interop.front import FRONTS
from farcast.tests.interop.kubo import Daemon
from farcast.tests.interop.signpost import Signpost
from farcast.tests.wire.street import ask as http_ask

HEADERS_LIMIT_BYTES = 1_536
"""Kubo refuses answers with more than 2 KiB of headers."""

PUBLIC = (
    "/v1/catalog/checkpoint", "/watch/film/master.m3u8", "/readyz", "/v1/steering/film", "/web/",
    "/web/film", "/web/film/master.m3u8",
)  # fmt: skip

Need = Callable[..., str]


@contextmanager
def kubo_beside(
    program: str, home: Path, coast: Coast, port: int, settings: dict[str, str] | None = None
) -> Generator[Daemon]:
    """Run a Kubo that can reach the film through ``port`` alone."""
    post = Signpost(coast.routing, port)
    daemon = Daemon(program, home, {"IPFS_HTTP_ROUTERS": post.url, **(settings or {})})
    try:
        yield daemon
    finally:
        daemon.stop()
        post.close()


@pytest.fixture(params=FRONTS)
def front_port(request: pytest.FixtureRequest, need: Need, coast: Coast) -> int:
    """Return the port of one of the shipped fronts."""
    name = str(request.param)
    need(name)
    return coast.fronts[name]


def ask(coast: Coast, cid: str, query: str = "", **headers: str) -> tuple[bytes, dict[str, str]]:
    address = f"{coast.routing}/routing/v1/providers/{cid}{query}"
    with urlopen(Request(address, headers=headers), timeout=10) as answer:  # noqa: S310 - the test's own box
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def get(connection: http.client.HTTPConnection, path: str, **headers: str) -> http.client.HTTPResponse:
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def weight(answer: http.client.HTTPResponse) -> int:
    """Return how many bytes the headers of an answer take on the wire of HTTP/1.1."""
    return sum(len(name) + len(value) + 4 for name, value in answer.getheaders())


def test_the_origin_names_relay_and_itself_for_what_its_catalog_reaches(coast: Coast) -> None:
    tls = [f"/dns4/localhost/tcp/{port}/tls/http" for port in coast.fronts.values()]
    root, file = map(str, coast.bulk)
    for cid in (coast.film["root_cid"], coast.film["manifest_cid"], root, file):
        body, headers = ask(coast, cid)
        providers = json.loads(body)["Providers"]
        # a file asked for by itself is surely known to the origin alone
        relay, origin = reversed(providers) if cid == file else providers
        assert relay["Addrs"] == [f"/ip4/127.0.0.1/tcp/{coast.relay.port}/http", *tls]
        assert origin["Addrs"] == [f"/ip4/127.0.0.1/tcp/{coast.origin.port}/http"]
        assert {relay["Schema"], origin["Schema"]} == {"peer"}
        assert relay["Protocols"] == origin["Protocols"] == [GATEWAY]
        assert relay["ID"] == coast.relay.api("/api/status")["peer_id"]
        assert headers["content-type"] == "application/json"
        assert "max-age=300" in headers["cache-control"]
    lines, headers = ask(coast, root, "?filter-addrs=tls", Accept="application/x-ndjson")
    [line] = lines.splitlines()
    assert json.loads(line)["Addrs"] == tls
    assert headers["content-type"] == "application/x-ndjson"
    nobody, headers = ask(coast, "bafkqaaa")
    assert (json.loads(nobody), headers["cache-control"]) == ({"Providers": []}, "public, max-age=15")
    assert coast.origin.metric("farcast_origin_routing_answers_total", result="found") >= 4
    assert coast.origin.metric("farcast_origin_routing_blocks") > 50


def test_the_router_answers_under_every_name_that_the_origin_announces(coast: Coast) -> None:
    own, path = f"127.0.0.1:{coast.origin.port}", "/routing/v1/providers/bafkqaaa"

    def status(host: str) -> int:
        return http_ask(own, "GET", path, {"host": host}).status

    assert [status(own), status("films.example:7433")] == [200, 421]
    announce = ("origin", "announce", own, "--home", coast.origin.home)
    coast.street.must(*announce[:3], "Films.example:7433", *announce[3:])
    try:
        assert [status("films.example:7433"), status("FILMS.example"), status("film.example")] == [
            200,
            200,
            421,
        ]
    finally:
        coast.street.must(*announce)


def test_kubo_gets_a_whole_title_by_its_root_over_plain_http(
    coast: Coast, need: Need, tmp_path: Path
) -> None:
    files = coast.files()
    with kubo_beside(need("ipfs"), tmp_path / "kubo", coast, coast.relay.port) as kubo:
        assert kubo.get(coast.film["root_cid"], tmp_path / "film") == files
        held = coast.relay.api("/api/status")["store"]["bytes"]
        assert held >= sum(map(len, files.values()))
        part = kubo.run(
            "cat", "--offset=1500", "--length=1000", f"/ipfs/{coast.film['root_cid']}/master.m3u8"
        )
        assert part == files["master.m3u8"][1500:2500]


def test_the_shipped_front_speaks_http_2(coast: Coast, front_port: int) -> None:
    trust = ssl.create_default_context(cafile=str(coast.authority.path))
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("localhost", front_port), 10) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        assert secure.version() in ("TLSv1.2", "TLSv1.3")


def test_kubo_gets_a_whole_title_over_the_shipped_front(
    coast: Coast, need: Need, front_port: int, tmp_path: Path
) -> None:
    trust = {"SSL_CERT_FILE": str(coast.authority.path)}
    with kubo_beside(need("ipfs"), tmp_path / "kubo", coast, front_port, trust) as kubo:
        assert kubo.get(coast.film["root_cid"], tmp_path / "film") == coast.files()


def test_the_shipped_front_serves_what_is_public_and_nothing_else(coast: Coast, front_port: int) -> None:
    trust = ssl.create_default_context(cafile=str(coast.authority.path))
    plain = http.client.HTTPConnection("127.0.0.1", coast.relay.port, timeout=15)
    secure = http.client.HTTPSConnection("localhost", front_port, timeout=15, context=trust)
    try:
        block = f"/ipfs/{coast.film['root_cid']}?format=raw"
        for connection in (plain, secure):
            for path in (*PUBLIC, block):
                answer = get(connection, path)
                assert answer.status == 200, (path, answer.read())
                assert weight(answer) < HEADERS_LIMIT_BYTES
                answer.read()
            part = get(connection, "/watch/film/master.m3u8", Range="bytes=7-16")
            assert (part.status, len(part.read())) == (206, 10)
        assert fields(plain, block).items() <= fields(secure, block).items()
        told = json.loads(get(secure, "/web/film/film.json").read())
        assert {urlsplit(str(source["url"])).scheme for source in told["sources"]} <= {"https", ""}
        large = get(secure, "/watch/bulk/film.bin")
        assert hashlib.file_digest(large, "sha256").hexdigest() == coast.bulk_sha256
        spilled = (path for path in coast.street.folder.glob("*/proxy/**/*") if path.is_file())
        assert not list(spilled)  # a body goes through memory, whatever its size
        for path in ("/metrics", "/", "/api/status", f"/{coast.relay.token}/", "/v1", "/v1/trustX"):
            answer = get(secure, path)
            assert answer.status == 404, path
            answer.read()
        key = "/v1/keys/" + "0" * 32  # a relay has none, and says so itself
        assert get(secure, key).read() == get(plain, key).read() != b""
        assert post(secure, "/v1/pulses", b"x" * 100) == 400
        assert post(secure, "/ipfs/bafkqaaa", b"x") in (403, 404)
        assert post(secure, "/v1/pulses", bytes(BATCH_LIMIT_BYTES + 1)) in (413, 0)
    finally:
        plain.close()
        secure.close()


def fields(connection: http.client.HTTPConnection, path: str) -> dict[str, str]:
    """Return an answer's headers but those of the connection itself."""
    answer = get(connection, path)
    answer.read()
    own = ("connection", "date", "keep-alive", "server")
    return {name.lower(): value for name, value in answer.getheaders() if name.lower() not in own}


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    """Return the status of a post, 0 where the server cut it off before it had said one."""
    connection.close()  # a refused body ends a connection
    try:
        connection.request("POST", path, body=body)
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return 0
    return answer.status
