"""A small cinema: an origin, one film and an enrolled viewer's node, to play at with real players."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from farcast.node.demo.troupe import Troupe, clean_environment, free_port, metric
from farcast.tests.wire.street import Street, draw

LOOPBACK = "127.0.0.1"
PULSE_S = 2
SIGNED = "farcast_node_viewed_seconds_total"
PICTURE = (
    "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25",
    "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
    "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", "-ac", "2",
)  # fmt: skip
"""Small, for what is looked at is when it plays."""
TITLE_TIMEOUT_S, TICKET_TIMEOUT_S = 30.0, 30.0


@dataclass(frozen=True)
class Cinema:
    """A running origin and node; ``url`` is the node's loopback address, token included."""

    troupe: Troupe
    folder: Path
    title: str
    url: str
    greeting: dict[str, Any]

    @property
    def hls(self) -> str:
        """The film's multivariant playlist."""
        return f"{self.url}/watch/{self.title}/master.m3u8"

    @property
    def node(self) -> Path:
        """The node's home."""
        return self.folder / "node"

    def signed_s(self) -> float:
        """Return the viewed seconds that pulses were signed for so far."""
        return metric(self.url.rpartition("/")[0] + "/metrics", SIGNED)

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself."""
        with urlopen(f"{self.url}/api/status", timeout=10) as answer:  # noqa: S310 - loopback
            return dict[str, Any](json.load(answer))

    def settled_s(self, timeout_s: float = 3 * PULSE_S + 4.0) -> float:
        """Wait until every counted second is signed for, and return them all."""
        deadline = time.monotonic() + timeout_s
        while True:
            counted_s = sum(one["viewed_ms"] for one in self.status()["sessions"]) / 1000
            if self.signed_s() >= counted_s - 0.05 or time.monotonic() > deadline:
                return self.signed_s()
            time.sleep(0.2)


@contextmanager
def cinema(
    folder: Path,
    film_s: int,
    settings: Mapping[str, str] | None = None,
    *,
    run: tuple[str, ...] = ("run",),
    sealed: str = "",
) -> Generator[Cinema]:
    """Publish a film of ``film_s`` seconds and start a node that may count; ends both afterwards.

    With ``sealed`` the same film is published once more under that title, for ticket holders alone.
    """
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    try:
        port = free_port()
        origin, node, media = folder / "origin", folder / "node", folder / "film.mkv"
        draw(media, *PICTURE, "-t", str(film_s))
        own = {"FARCAST_LISTEN_HOST": LOOPBACK, "FARCAST_MESH_ENABLED": "false"}
        own |= {"FARCAST_SATELLITE_ENABLED": "false", "FARCAST_ADMIN_PORT": "0", "FARCAST_LISTEN_PORT": "0"}
        own |= {"FARCAST_NETWORK_ALLOW_PRIVATE": "true", "FARCAST_HEARTBEAT_INTERVAL_S": str(PULSE_S)}
        must, at = Street(folder).must, ("--home", origin)
        must("origin", "init", "--name", "Cinema", "--endpoint", f"{LOOPBACK}:{port}", *at)
        must("origin", "payee", "add", "ada", *at)
        publish = ("origin", "publish", media, "--payee", "ada", "--preset", "ultrafast")
        must(*publish, "--title", "film", *at)
        if sealed:
            must(*publish, "--title", sealed, "--access", "ticket", *at)
        troupe.box("origin", ["origin", "run"], origin, own | {"FARCAST_LISTEN_PORT": str(port)})
        must("join", must("origin", "account", "add", "viewer", *at)["link"], "--home", node)
        admin = troupe.box("node", [*run, "--json"], node, own | dict(settings or {}))
        greeting = _greeting(folder / "node.log")
        made = Cinema(troupe, folder, "film", str(admin["url"]), greeting)
        deadline = time.monotonic() + TITLE_TIMEOUT_S + TICKET_TIMEOUT_S
        while not made.status()["tickets"] or len(_listed(made)) <= bool(sealed):
            assert time.monotonic() < deadline, made.status()
            time.sleep(0.1)
        yield made
    finally:
        troupe.close()


def _listed(made: Cinema) -> list[Any]:
    with urlopen(f"{made.url}/api/titles", timeout=10) as answer:  # noqa: S310 - loopback
        return list[Any](json.load(answer))


def _greeting(log: Path) -> dict[str, Any]:
    """Read what the node said once it listened, which may be a moment after its admin file is there."""
    deadline = time.monotonic() + 10
    while True:
        text = log.read_text()
        begin, end = text.find("{\n"), text.find("\n}\n")
        if 0 <= begin < end:
            return dict[str, Any](json.loads(text[begin : end + 2]))
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
