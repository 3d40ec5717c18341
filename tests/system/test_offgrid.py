"""A node with nothing but root.json: the carousel alone brings trust, catalog and film, through 20 % loss."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from farcast.node.admin import call_admin
from farcast.node.demo.film import draw_film
from farcast.node.demo.player import Player
from farcast.node.demo.troupe import Troupe, clean_environment, free_port, metric
from farcast.satellite.multicast import receiver, sender

GROUP, LOOPBACK = "239.255.74.35", "127.0.0.1"
LOSS = 0.2
FILM_S = 8
RATE_BPS = 12_000_000
DATAGRAM_BYTES = 2_048
SENT = "farcast_node_http_sent_bytes_total"
TITLE_TIMEOUT_S, FILM_TIMEOUT_S = 30.0, 30.0


class Sky:
    """Carries the carousel from one port to another, losing one packet in five; nothing goes back."""

    def __init__(self) -> None:
        self.up, self.down = free_port(), free_port()
        self.carried = self.lost = 0
        self._rng = random.Random(20)
        self._hears = receiver(GROUP, self.up, LOOPBACK)
        self._hears.setblocking(True)
        self._hears.settimeout(0.2)
        self._tells = sender(LOOPBACK, 1)
        self._tells.setblocking(True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="sky")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._hears.close()
        self._tells.close()

    def _carry(self) -> None:
        while not self._over.is_set():
            try:
                packet = self._hears.recv(DATAGRAM_BYTES)
            except TimeoutError:
                continue
            if self._rng.random() < LOSS:
                self.lost += 1
            else:
                self.carried += 1
                self._tells.sendto(packet, (GROUP, self.down))


def settings(satellite_port: int, **more: str) -> dict[str, str]:
    return {
        "FARCAST_LISTEN_HOST": LOOPBACK,
        "FARCAST_LISTEN_PORT": "0",
        "FARCAST_ADMIN_PORT": "0",
        "FARCAST_MESH_ENABLED": "false",
        "FARCAST_SATELLITE_PORT": str(satellite_port),
        "FARCAST_SATELLITE_INTERFACE": LOOPBACK,
        **more,
    }


@contextmanager
def troupe_in(folder: Path) -> Generator[Troupe]:
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    try:
        yield troupe
    finally:
        troupe.close()


def on_air(troupe: Troupe, folder: Path, sky: Sky) -> tuple[Path, dict[str, Any], str]:
    """Put an origin on air with one film; returns its root.json, what ``publish`` said, and its metrics."""
    port = free_port()
    home, media = folder / "origin", folder / "film.mkv"
    draw_film(media, FILM_S)
    at = ["--home", str(home)]
    made = troupe.command(["origin", "init", "--name", "Far away", "--endpoint", f"{LOOPBACK}:{port}", *at])
    troupe.command(["origin", "payee", "add", "ada", *at])
    film = troupe.command(
        [
            "origin",
            "publish",
            str(media),
            "--payee",
            "ada",
            "--preset",
            "ultrafast",
            "--title",
            "far-film",
            *at,
        ]
    )
    air = {"FARCAST_UPLINK_ENABLED": "true", "FARCAST_UPLINK_RATE_BPS": str(RATE_BPS)}
    env = settings(sky.up, **air) | {"FARCAST_LISTEN_PORT": str(port)}
    admin = troupe.box("origin", ["origin", "run"], home, env)
    return Path(made["root"]), film, str(admin["url"]).rsplit("/", 1)[0] + "/metrics"


def until(home: Path, held_percent: int, timeout_s: float) -> None:
    """Wait until the running node lists the film and holds so much of it."""
    deadline = time.monotonic() + timeout_s
    rows: list[dict[str, Any]] = []
    while not rows or rows[0]["held_percent"] < held_percent:
        assert time.monotonic() < deadline, f"after {timeout_s:.0f} s the node's titles are {rows}"
        time.sleep(0.1)
        rows = call_admin(home, "GET", "/api/titles")


def digests(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*.m4s")
    }


@pytest.mark.timeout(180)
def test_a_node_with_only_root_json_lists_the_catalog_and_plays_the_film_byte_for_byte(
    tmp_path: Path,
) -> None:
    with Sky() as sky, troupe_in(tmp_path) as troupe:
        root, film, origin_metrics = on_air(troupe, tmp_path, sky)
        home = tmp_path / "node"
        joined = troupe.command(["join", str(root), "--home", str(home)], settings(sky.down))
        assert (joined["name"], joined["online"], joined["enrolled"]) == ("Far away", False, False)
        troupe.box("node", ["run"], home, settings(sky.down))
        until(home, 0, TITLE_TIMEOUT_S)
        (row,) = troupe.command(["list", "--home", str(home)])
        assert (row["title"], row["root_cid"]) == ("far-film", film["root_cid"])
        found = troupe.command(["play", "far-film", "--home", str(home)])
        player = Player(found["watch_hls"], found["cmcd"], title="far-film", speed=2.0)
        playback = asyncio.run(player.play())
        expected = digests(Path(film["folder"]))
        played = {path: digest for path, digest in playback.digests.items() if path.endswith(".m4s")}
        assert len(played) == film["playback_segments"]
        assert played == {path: expected[path] for path in played}
        until(home, 100, FILM_TIMEOUT_S)
        status = troupe.command(["status", "--home", str(home)])
        assert metric(origin_metrics, SENT, without='carrier="local"') == 0, "somebody dialled the origin"
        assert metric(origin_metrics, SENT) > 0
    blocks = {tier["name"]: tier["blocks"] for tier in status["tiers"]}
    assert blocks == {"cdn": 0, "relay": 0, "mesh": 0, "satellite": blocks["satellite"]}
    assert blocks["satellite"] >= film["blocks"]
    assert 0.1 < sky.lost / (sky.lost + sky.carried) < 0.3
