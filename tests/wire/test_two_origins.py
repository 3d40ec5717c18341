"""Two origins' boxes on one LAN and under one sky: each hears the other, counts it, and has none of it."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from farcast.node.demo.troupe import free_port
from farcast.protocol.cid import Cid
from farcast.tests.wire import street as module
from farcast.tests.wire.pantry import Stocked, office, stock
from farcast.tests.wire.street import Box, Street, ask, until

SEGMENTS, SEGMENT_BYTES = 4, 200_000
WAIT_S = 60.0
PLAYLISTS = {"v0/index.m3u8": b"#EXTM3U\n", "master.m3u8": b"#EXTM3U\n"}


class House:
    """An origin on the air, and one viewer of it; every house has a title of the same name."""

    def __init__(self, street: Street, name: str, seed: int) -> None:
        self.name = name
        random = Random(seed)
        self.film = {f"v0/seg-{at:05d}.m4s": random.randbytes(SEGMENT_BYTES) for at in range(SEGMENTS)}
        home, port = street.home(f"{name}-origin"), free_port()
        street.must(
            "origin", "init", "--name", name, "--endpoint", f"127.0.0.1:{port}",
            "--cdn", f"http://127.0.0.1:{port}", "--home", home,
        )  # fmt: skip
        books = office(home)
        self.stocked: Stocked = stock(books, "show", {**self.film, **PLAYLISTS})
        books.close()
        link = street.must("origin", "account", "add", "ada", "--home", home)["link"]
        settings = {
            "FARCAST_LISTEN_PORT": str(port),
            "FARCAST_UPLINK_ENABLED": "true",
            "FARCAST_UPLINK_RATE_BPS": "4000000",
        }
        self.origin = street.start(f"{name}-origin", "origin", "run", settings=settings)
        street.must("join", link, "--home", street.home(name))
        self.viewer: Box = street.start(name, "run")

    def segments(self) -> list[Cid]:
        """Return the blocks of its film that no other film has."""
        return [cid for path in self.film for cid in self.stocked.leaves[path]]

    def get(self, path: str) -> bytes:
        """Return a file of the film as a player gets it."""
        answer = ask(self.viewer.local, "GET", f"/{self.viewer.token}/watch/show/{path}")
        assert answer.status == 200, answer
        return answer.body

    def play(self, number: int) -> None:
        """Say what a player says while it plays."""
        line = f'cid="show",e=ps,sid="s1",sn={number},sta=p,ts={time.time_ns() // 1_000_000},v=2\n'
        words = {"content-type": "application/cmcd"}
        path = f"/{self.viewer.token}/v1/cmcd"
        assert ask(self.viewer.local, "POST", path, headers=words, body=line.encode()).status < 300

    def pulses(self) -> dict[str, Any]:
        """Return what the viewer says of its pulses."""
        found: dict[str, Any] = self.viewer.api("/api/status")["pulses"]
        return found

    def has_tickets(self) -> bool:
        """Whether what is watched can be signed for."""
        return self.viewer.metric("farcast_node_tickets") > 0

    def counts(self, name: str, reason: str) -> bool:
        """Whether the viewer has refused something for ``reason``."""
        return self.viewer.metric(name, reason=reason) > 0

    def is_told(self) -> bool:
        """Whether the origin has all that was watched."""
        told = self.pulses()
        return told["signed"] > 0 and not told["waiting"]

    def has(self, cid: Cid) -> bool:
        """Whether the viewer holds a block."""
        answer = ask(self.viewer.local, "GET", f"/{self.viewer.token}/ipfs/{cid}?format=raw")
        return answer.status == 200


@pytest.mark.timeout(300)
def test_two_origins_on_one_lan_share_nothing_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_TIMEOUT_S", WAIT_S)  # four boxes at once
    street = Street(tmp_path)
    street.settings["FARCAST_HEARTBEAT_INTERVAL_S"] = "1"
    try:
        houses = [House(street, "north", 1), House(street, "south", 2)]
        for house in houses:
            until(house.has_tickets, WAIT_S)
        for house in houses:
            until(partial(house.counts, "farcast_mesh_rejected_presences_total", "foreign_net"), WAIT_S)
            until(partial(house.counts, "farcast_satellite_rejected_packets_total", "foreign_origin"), WAIT_S)
        for number in range(1, 4):
            for house in houses:
                house.play(number)
            time.sleep(0.1)
        for house in houses:
            for path, data in house.film.items():
                assert house.get(path) == data
        for house in houses:
            until(house.is_told, WAIT_S)
        for house, other in (houses, houses[::-1]):
            viewer = house.viewer
            assert viewer.metric("farcast_mesh_neighbours") == 0
            assert viewer.metric("farcast_mesh_shared_bytes_total") == 0
            assert viewer.metric("farcast_node_tier_bytes_total", tier="mesh") == 0
            assert all(map(house.has, house.segments()))
            assert not any(map(house.has, other.segments()))
            taken = house.origin.metric("farcast_origin_pulses_accepted_total")
            assert taken >= house.pulses()["signed"] > 0
            assert house.origin.metric("farcast_origin_pulses_rejected_total") == 0
    finally:
        street.close()
