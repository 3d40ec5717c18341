"""Relays that fill from each other: three real ones, an origin, and a CDN that counts."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import NamedTuple

import msgspec
import pytest

from farcast.node.demo.troupe import free_port
from farcast.protocol.directory import Directory
from farcast.tests.wire.pantry import Meter, Stocked, office, stock
from farcast.tests.wire.street import Box, Street, ask, until

MIB = 1 << 20
PATIENT = {"FARCAST_LADDER_HEDGE_MIN_MS": "2000", "FARCAST_LADDER_HEDGE_MAX_MS": "2000"}
"""On a busy machine too, nothing is asked for twice only because it is slow."""
NAMES: tuple[str, ...] = ("north", "east", "south")
SEGMENTS = 6
LAST = f"v0/seg-{SEGMENTS - 1:05d}.m4s"


class Ring(NamedTuple):
    """Three relays of one origin."""

    street: Street
    meter: Meter
    relays: dict[str, Box]
    settings: dict[str, dict[str, str]]
    film: Stocked
    files: dict[str, bytes]

    def get(self, name: str, path: str) -> bytes:
        """Ask one relay for a file of the film."""
        answer = ask(f"127.0.0.1:{self.relays[name].port}", "GET", f"/watch/film/{path}")
        assert answer.status == 200, answer
        return answer.body


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Generator[Ring]:
    """Bring them up, each knowing the others from the signed directory."""
    street, port, random = Street(tmp_path_factory.mktemp("ring")), free_port(), Random(5)
    meter, home = Meter(port), street.home("origin")
    files = {f"v0/seg-{at:05d}.m4s": b"\0" + random.randbytes(2 * MIB - 1) for at in range(SEGMENTS)}
    try:
        place = f"127.0.0.1:{port}"
        street.must("origin", "init", "--endpoint", place, "--cdn", meter.url, "--home", home)
        books = office(home)
        film = stock(books, "film", files)
        books.close()
        street.start("origin", "origin", "run", settings=_listen(port))
        settings = {name: _listen(free_port()) for name in NAMES}
        with ThreadPoolExecutor(3) as pool:
            started = {name: pool.submit(_relay, street, name, settings[name]) for name in settings}
        relays = {name: job.result() for name, job in started.items()}
        until(lambda: all(_listed(relay) == len(NAMES) for relay in relays.values()))
        yield Ring(street, meter, relays, settings, film, files)
    finally:
        street.close()
        meter.close()


def _listen(port: int) -> dict[str, str]:
    return {
        "FARCAST_LISTEN_PORT": str(port),
        "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}",
        "FARCAST_FILL_AHEAD": "0",
        "FARCAST_FILL_PUSH": "false",
        **PATIENT,
    }


def _relay(street: Street, name: str, settings: dict[str, str]) -> Box:
    link = street.must("origin", "invite", "--relay", "--home", street.home("origin"))["link"]
    ran = street.run("relay", "join", link, "--home", street.home(name), settings=settings)
    assert ran.code == 0, ran
    return street.start(name, "relay", "run", settings=settings)


def _listed(relay: Box) -> int:
    """Return how many relays stand in the directory that a relay has."""
    answer = ask(f"127.0.0.1:{relay.port}", "GET", "/v1/relays")
    if answer.status != 200:
        return 0
    body, _ = msgspec.msgpack.decode(answer.body, type=tuple[bytes, bytes])
    return len(msgspec.msgpack.decode(body, type=Directory).records)


def test_the_source_serves_each_block_about_once_to_three_relays(ring: Ring) -> None:
    def watch(name: str) -> None:
        for path, data in ring.files.items():
            assert path == LAST or ring.get(name, path) == data

    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(watch, name) for name in NAMES]:
            job.result()
    leaves = [cid for path, cids in ring.film.leaves.items() if path != LAST for cid in cids]
    asked = [ring.meter.count(cid) for cid in leaves]
    assert min(asked) == 1, "each had to come once"
    assert sum(asked) < 2 * len(asked), "alone, each relay would ask for each"
    for relay in ring.relays.values():
        assert relay.metric("farcast_node_tier_blocks_total", tier="relay") > 0
        assert relay.metric("farcast_node_tier_blocks_total", tier="cdn") > 0


def test_a_relay_asked_by_a_relay_asks_no_third(ring: Ring) -> None:
    cid = ring.film.leaves[LAST][0]
    for relay in ring.relays.values():
        before = relay.metric("farcast_node_tier_blocks_total", tier="relay")
        answer = ask(
            f"127.0.0.1:{relay.port}", "GET", f"/ipfs/{cid}?format=raw",
            {"farcast-hop": "1", "farcast-title": "film"},
        )  # fmt: skip
        assert answer.body == ring.files[LAST][:MIB]
        assert relay.metric("farcast_node_tier_blocks_total", tier="relay") == before
    assert ring.meter.count(cid) == 3, "each went beyond, though others hold it"


def test_a_dead_relay_costs_a_viewer_little_and_its_blocks_come_from_beyond(ring: Ring) -> None:
    ring.relays["south"].stop()
    for name in ("north", "east"):
        relay = ring.relays[name]
        relay.stop()
        for file in [*(relay.home / "blocks").glob("??/*"), *relay.home.glob("index.db*")]:
            file.unlink()
        ring.relays[name] = ring.street.start(name, "relay", "run", settings=ring.settings[name])
    until(lambda: all(_listed(ring.relays[name]) == len(NAMES) for name in ("north", "east")))
    for path, data in ring.files.items():
        assert ring.get("north", path) == data
    assert ring.relays["north"].metric("farcast_node_tier_failures_total", tier="relay") > 0
