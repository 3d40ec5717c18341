"""Running boxes among liars: what is broken is dropped, counted by its reason, and never served."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farcast.node.http.dial import HttpDialer
from farcast.protocol.cid import Cid
from farcast.protocol.identity import parse_peer_id
from farcast.protocol.ports import Source, TierName
from farcast.tests.wire.conftest import Town
from farcast.tests.wire.street import VIEWER, Box, ask, until

NOISE = 5_000
GROWTH_KIB = 64 << 10
"""What a box may grow by under noise: the sessions a gate lets in before it asks for proof, and slack."""


def grown(box: Box, name: str, before: float, **labels: str) -> Callable[[], bool]:
    """Return whether a counter has grown."""
    return lambda: box.metric(name, **labels) > before


@contextmanager
def counted(box: Box, name: str, **labels: str) -> Generator[None]:
    """Assert that a counter of ``box`` grows."""
    before = box.metric(name, **labels)
    yield
    until(grown(box, name, before, **labels))


@pytest.fixture(scope="module")
def guest(town: Town) -> Generator[Box]:
    """Start a viewer's node that has CDN and relay alone."""
    town.street.must("join", town.invite(), "--home", town.street.home("guest"))
    alone = {"FARCAST_SATELLITE_ENABLED": "false", "FARCAST_MESH_ENABLED": "false"}
    guest = town.street.start("guest", "run", settings=alone)
    until(lambda: guest.api("/api/status")["verdict"] == "Ready")
    yield guest
    assert guest.stop() == 0


def watched(viewer: Box, file: str) -> bytes:
    """Return a file of the film as a player gets it."""
    answer = ask(viewer.local, "GET", f"/{viewer.token}/watch/film/{file}")
    assert answer.status == 200, answer
    return answer.body


def published(town: Town, file: str) -> bytes:
    """Return a file of the film as it was published."""
    return (Path(town.published["folder"]) / file).read_bytes()


def files(town: Town) -> list[str]:
    """Return the film's files."""
    folder = Path(town.published["folder"])
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def block(box: Box, data: bytes) -> Path:
    """Return the file in which ``box`` holds the raw block ``data``."""
    cid = Cid.of(0x55, data)
    return box.home / "blocks" / cid.digest[:1].hex() / str(cid)


# -- blocks and manifests


def test_a_cdn_that_cuts_and_spoils_blocks_is_found_out_and_the_film_plays(town: Town, guest: Box) -> None:
    segments = [file for file in files(town) if file.endswith(".m4s")]
    for way, reason in (("cut", "truncated"), ("spoil", "hash_mismatch")):
        town.liar.way = way
        try:
            while not guest.metric("farcast_node_tier_failures_total", tier="cdn", reason=reason):
                file = segments.pop()
                assert watched(guest, file) == published(town, file)
                time.sleep(1.1)  # a source that failed is asked again after a while
        finally:
            town.liar.way = ""
    assert guest.metric("farcast_node_tier_bytes_total", tier="cdn") == 0


@pytest.mark.parametrize("way", ["flipped", "cut", "gone"])
def test_a_block_that_rots_on_disk_is_fetched_again_and_never_served(town: Town, way: str) -> None:
    file = {"flipped": "master.m3u8", "cut": "poster.jpg", "gone": "audio/init.mp4"}[way]
    want = published(town, file)
    assert watched(town.viewer, file) == want
    path = block(town.viewer, want)
    until(path.exists)
    with counted(town.viewer, "farcast_node_store_corrupt_blocks_total"):
        _spoil(path, way)
        assert watched(town.viewer, file) == want
    until(path.exists)
    assert path.read_bytes() == want


@pytest.mark.parametrize("way", ["cut", "gone"])
def test_a_relay_mends_a_block_that_rots_before_it_answers(town: Town, way: str) -> None:
    file = {"cut": "v36/init.mp4", "gone": "v72/init.mp4"}[way]
    want = published(town, file)
    path, place = block(town.relay, want), f"127.0.0.1:{town.relay.port}"
    target, title = f"/ipfs/{path.name}?format=raw", {"farcast-title": "film"}
    assert ask(place, "GET", target, title).body == want
    until(path.exists)
    time.sleep(0.1)
    _spoil(path, way)

    def mended() -> bool:
        try:
            answer = ask(place, "GET", target, title)
        except OSError:
            return False  # cut short in the middle: an error, and no bytes that pass for a block
        assert answer.status != 200 or answer.body == want
        return answer.status == 200 and path.exists()

    until(mended)
    assert path.read_bytes() == want


def _spoil(path: Path, way: str) -> None:
    data = bytearray(path.read_bytes())
    if way == "gone":
        path.unlink()
    elif way == "cut":
        os.truncate(path, len(data) // 2)
    else:
        data[len(data) // 2] ^= 1
        with path.open("r+b") as file:
            file.write(data)


def test_a_manifest_by_a_stranger_or_of_another_title_is_never_played(town: Town) -> None:
    for box, path in ((town.viewer, f"/{town.viewer.token}/watch"), (town.relay, "/watch")):
        place = box.local if box is town.viewer else f"127.0.0.1:{box.port}"
        assert ask(place, "GET", f"{path}/film/master.m3u8").status == 200
        for title, reason in (("forged", "unknown_publisher"), ("mislabelled", "bad_manifest")):
            with counted(box, "farcast_node_http_refusals_total", reason=reason):
                answer = ask(place, "GET", f"{path}/{title}/master.m3u8")
                assert (answer.status, answer.reason) == (502, reason)
    listed = town.street.must("list", "--home", town.viewer.home)
    assert "film" in (titles := [row["title"] for row in listed])
    assert not {"forged", "mislabelled"} & {*titles}
    kept = town.street.run("keep", "forged", "--home", town.viewer.home)
    kept.refused(1, "no publisher of this origin")


# -- HTTP


def _taken(box: Box) -> float:
    """Return how many pulses a relay or an origin has stored."""
    names = ("farcast_node_pulses_taken_total", "farcast_origin_pulses_accepted_total")
    return sum(box.metric(name) for name in names)


def test_a_body_cut_short_is_dropped_and_counted(town: Town) -> None:
    head = b"POST /v1/pulses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5000\r\n\r\n"
    for box in (town.origin, town.relay):
        before = _taken(box)
        with counted(box, "farcast_node_http_refusals_total", reason="client_gone"):
            assert not _send(box.port, head + b"\x93\x01").startswith(b"HTTP/1.1 2")
        assert _taken(box) == before
        assert ask(f"127.0.0.1:{box.port}", "GET", "/healthz").status == 200


def test_bytes_that_are_no_request_get_an_error_or_nothing(town: Town) -> None:
    random_, post = random.Random(1), b"POST /v1/pulses HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    requests = [
        b"",
        b"\r\n\r\n",
        random_.randbytes(4_000),
        b"\x16\x03\x01" + random_.randbytes(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
        post + b"content-length: -1\r\n\r\n",
        post + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx",
        post + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        post + b"content-length: 99999999999\r\n\r\n",
        b"GET /ipfs/../../identity.key HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /v1/trust/..%2f..%2fidentity.key HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /watch/film/..%2f..%2f..%2fidentity.key HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ]
    for box in (town.origin, town.viewer):
        key = (box.home / "identity.key").read_bytes()
        ports = (box.port, int(box.local.rpartition(":")[2]))
        for port in ports:
            refused = box.metric("farcast_node_http_refusals_total", reason="bad_request")
            for request in requests:
                answer = _send(port, request)
                assert not answer.startswith(b"HTTP/1.1 2"), (request[:60], answer[:200])
                assert not answer.startswith(b"HTTP/1.1 500"), (request[:60], answer[:400])
                assert key not in answer
            assert box.metric("farcast_node_http_refusals_total", reason="bad_request") >= refused + 6
            assert ask(f"127.0.0.1:{port}", "GET", "/healthz").status == 200
        assert VIEWER not in box.log.read_text()


def _send(port: int, data: bytes) -> bytes:
    """Send ``data`` and no more; return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(VIEWER, 0)) as sock:
        answer = b""
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65_536):
                answer += part
        except ConnectionError:
            pass  # a reset is an answer too
        return answer


def test_an_unknown_host_another_site_and_a_wrong_token_reach_no_handler(town: Town) -> None:
    viewer, off = town.viewer, json.dumps({"on": False}).encode()
    path = f"/{viewer.token}/api/pulses"
    site = {"sec-fetch-site": "cross-site"}
    wrong = "A" * len(viewer.token)
    attempts: list[tuple[int, str, str, dict[str, str]]] = [
        (421, "unknown_host", path, {"host": "evil.example"}),
        (421, "unknown_host", path, {"host": f"evil.example:{viewer.local.rpartition(':')[2]}"}),
        (421, "unknown_host", path, {"host": "127.0.0.1:1"}),
        (403, "cross_site", path, site),
        (404, "no_route", "/api/pulses", {}),
        (404, "no_route", f"/{wrong}/api/pulses", {}),
        (404, "no_route", f"/{viewer.token[:-1]}/api/pulses", {}),
        (404, "no_route", f"/{viewer.token}x/api/pulses", {}),
        (404, "no_route", f"//{viewer.token}/api/pulses", {}),
    ]
    for status, reason, target, headers in attempts:
        with counted(viewer, "farcast_node_http_refusals_total", reason=reason):
            answer = ask(viewer.local, "POST", target, headers, off)
        assert (answer.status, answer.reason) == (status, reason), (target, headers, answer)
        assert viewer.token.encode() not in answer.body
    assert viewer.api("/api/pulses")["on"] is True
    for box in (town.origin, town.relay, viewer):
        for target in ("/healthz", "/v1/relays", "/ipfs/bafkqaaa?format=raw", "/watch/film/master.m3u8"):
            answer = ask(f"127.0.0.1:{box.port}", "GET", target, {"host": "evil.example"})
            assert (answer.status, answer.reason) == (421, "unknown_host"), target
        assert ask(f"127.0.0.1:{box.port}", "GET", f"/{box.token}/api/status").status in (403, 404)
        assert ask(f"127.0.0.1:{box.port}", "GET", "/metrics").status in (403, 404)


# -- datagrams


def noise(seed: bytes, genuine: list[bytes]) -> Generator[bytes]:
    """Yield datagrams: random, empty, huge, and genuine ones cut, lengthened or with a bit turned."""
    rng = random.Random(seed)
    for number in range(NOISE):
        match number % 5:
            case 0:
                yield rng.randbytes(rng.choice((0, 1, 7, 64, 160, 1_200, 1_306, 1_472)))
            case 1:
                yield rng.randbytes(rng.choice((9_000, 65_507))) if number % 100 == 1 else b""
            case 2:
                yield seed + rng.randbytes(8) + b"\x08" + rng.randbytes(8) + b"\0" + rng.randbytes(1_180)
            case _:
                data = bytearray(rng.choice(genuine))
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                ends = (rng.randrange(len(data)), len(data), len(data))
                yield bytes(data[: ends[number % 3]] + (data[:9] if number % 4 == 0 else b""))


def flood(box: Box, target: tuple[str, int], datagrams: Generator[bytes]) -> None:
    """Send all of it; the box goes on and grows by no more than it may."""
    before = box.rss_kib
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for number, data in enumerate(datagrams):
            sock.sendto(data, target)
            if number % 50 == 0:
                time.sleep(0.005)  # the kernel drops what comes faster than it is read
    assert box.process.poll() is None
    assert ask(box.local, "GET", "/healthz").status == 200
    assert box.rss_kib - before < GROWTH_KIB


def heard(group: str, port: int, count: int) -> list[bytes]:
    """Return genuine datagrams of a multicast group."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((group, port))
        joined = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        sock.settimeout(20)
        return [sock.recv(65_535) for _ in range(count)]


def test_noise_on_the_presence_port_is_dropped_by_reason(town: Town) -> None:
    place = ("239.255.74.34", int(town.street.settings["FARCAST_MESH_PORT"]))
    genuine, neighbours = heard(*place, 1), town.viewer.metric("farcast_mesh_neighbours")
    with counted(town.viewer, "farcast_mesh_rejected_presences_total", reason="bad_signature"):
        flood(town.viewer, place, noise(b"\x92", genuine))
    rejected = "farcast_mesh_rejected_presences_total"  # the kernel drops what a busy box does not read
    until(lambda: town.viewer.metric(rejected) > NOISE / 2)
    until(lambda: town.viewer.metric("farcast_mesh_neighbours") == neighbours)


def test_noise_on_the_carousel_port_is_dropped_by_reason(town: Town) -> None:
    place = ("239.255.74.35", int(town.street.settings["FARCAST_SATELLITE_PORT"]))
    genuine = heard(*place, 200)
    before = town.viewer.metric("farcast_satellite_rejected_packets_total")
    flood(town.viewer, place, noise(genuine[0][:10], genuine))
    until(lambda: town.viewer.metric("farcast_satellite_rejected_packets_total") - before > NOISE / 4)
    with counted(town.viewer, "farcast_satellite_completed_generations_total"):  # what is new still comes
        town.street.must(
            "origin", "publish", town.film, "--title", "second-show", "--preset", "ultrafast",
            "--home", town.origin.home,
        )  # fmt: skip


def test_noise_on_the_quic_port_is_dropped_by_reason_and_callers_are_answered(town: Town) -> None:
    refusals = "farcast_node_http_refusals_total"
    first = b"\xc3\x00\x00\x00\x01\x08"
    before = town.relay.metric(refusals)
    flood(town.relay, ("127.0.0.1", town.relay.port), noise(first, [first + bytes(1_200)]))
    until(lambda: town.relay.metric(refusals) - before > NOISE / 2)
    for reason in ("malformed_datagram", "stray_datagram", "too_many_handshakes"):
        assert town.relay.metric(refusals, reason=reason) > 0, (reason, town.relay.refusals())
    answers = "farcast_node_http_requests_total"
    with counted(town.relay, answers):  # by TLS at once, for the noise came from this very address
        asyncio.run(_call(town.relay))
    had = town.relay.metric(answers, carrier="quic")

    def by_quic() -> bool:
        asyncio.run(_call(town.relay))
        return town.relay.metric(answers, carrier="quic") > had

    until(by_quic, 30)  # as soon as the false handshakes are given up


async def _call(box: Box) -> None:
    key = box.api("/api/status")["peer_id"]
    source = Source(TierName.RELAY, "relay", f"127.0.0.1:{box.port}", parse_peer_id(key))
    async with HttpDialer(allow_private=True) as dialer:
        for _ in range(20):
            reply = await dialer.request(source, "GET", "/healthz", limit_bytes=100)
            assert reply.status == 200
            await asyncio.sleep(0.1)
