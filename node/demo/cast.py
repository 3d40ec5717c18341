"""The cast: who plays in the demo, set up with the commands a person would type."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from ...protocol.errors import FarcastError, LocalError, UsageError
from ..admin import call_admin
from .board import Board
from .film import draw_film
from .troupe import Troupe, free_port, metric

FILM_S = 48
SHORTEST_S = 40
HEARTBEAT_S = 5
READY_TIMEOUT_S = 60.0
PATIENT_BATCH_S = 600
"""A relay that is to die with pulses in its spool must not have sent them just before."""
GENERATION_BYTES = 19_000_000
"""The largest: the carousel then brings most films as a whole."""
RELAYS = ("relay-1", "relay-2")
VIEWERS = ("neighbour", "node")
AT_ONCE = 3
PAYEES = (("ada", 6_000), ("ben", 4_000))


class Film(NamedTuple):
    """What is published: the media file, its name, and how long to draw it where it is not there yet."""

    media: Path
    name: str
    draw_s: int = 0


class Cast:
    """Starts everybody and answers where they are; ``published`` is what the origin said of the film."""

    def __init__(self, troupe: Troupe, folder: Path, board: Board, film: Film, *, speed: float) -> None:
        self.troupe = troupe
        self.folder = folder
        self.board = board
        self.film = film
        self.speed = speed
        self.published: dict[str, Any] = {}
        self.admin: dict[str, dict[str, Any]] = {}
        self.cdn_port = free_port()
        self._ports = {name: free_port() for name in ("origin", *RELAYS, *VIEWERS)}
        self._shared = {
            "FARCAST_NETWORK_ALLOW_PRIVATE": "true",
            "FARCAST_NETWORK_INTERFACES": "127.0.0.1",
            "FARCAST_LISTEN_HOST": "127.0.0.1",
            "FARCAST_ADMIN_PORT": "0",
            "FARCAST_MESH_PORT": str(free_port()),
            "FARCAST_MESH_SHARE": "false",  # else a neighbour that has the film leaves nothing to the others
            "FARCAST_SATELLITE_PORT": str(free_port()),
            "FARCAST_SATELLITE_INTERFACE": "127.0.0.1",
            "FARCAST_HEARTBEAT_INTERVAL_S": str(HEARTBEAT_S),
            "FARCAST_CATALOG_POLL_S": "2",
            "FARCAST_CATALOG_IDLE_POLL_S": "2",
            "FARCAST_UPLINK_ENABLED": "true",
            "FARCAST_UPLINK_GENERATION_BYTES": str(GENERATION_BYTES),
        }

    @property
    def title(self) -> str:
        """The published title's id."""
        return str(self.published["title"])

    def home(self, name: str) -> Path:
        """Return the home folder of a box."""
        return self.folder / name

    def settings(self, name: str) -> dict[str, str]:
        """Return the environment of one box."""
        port = self._ports[name]
        return {
            **self._shared,
            "FARCAST_LISTEN_PORT": str(port),
            "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}",
        }

    def assemble(self, *, carousel: bool) -> None:
        """Bring everybody up: origin, CDN, relays, neighbour with the film kept, viewer's node.

        Raises:
            LocalError: where one does not start, with its own sentence.

        """
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            drawing = pool.submit(self._draw)
            try:
                self._found_origin(carousel=carousel)
                jobs = [pool.submit(self._publish_drawn, drawing)]
                jobs += [pool.submit(self._add_relay, name) for name in RELAYS]
                jobs += [pool.submit(self._add_viewer, name) for name in VIEWERS]
                for job in jobs:
                    job.result()
            except BaseException:
                self.troupe.close()  # the pool waits for what runs: let that end now
                raise
        self._until("the node sees the film", lambda: self._listed("node") and self._listed("neighbour"))
        self.command("keep", self.title, "--home", str(self.home("neighbour")))
        self._until("the node finds both relays and the neighbour", self._all_found)
        self._until("the carousel has the film", self._on_air)

    def command(self, *arguments: str, name: str = "node") -> Any:  # noqa: ANN401 - JSON
        """Run one command as the person who owns box ``name``."""
        return self.troupe.command(arguments, self.settings(name))

    def call(self, name: str, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call a box's admin API."""
        return call_admin(self.home(name), method, path, body)

    def metrics_url(self, name: str) -> str:
        """Return where a box's metrics are."""
        base = str(self.admin[name]["url"])
        return base.rsplit("/", 1)[0] + "/metrics"

    def sent_bytes(self, *names: str) -> int:
        """Return what the named senders say they sent; ``cdn`` counts on its own page."""
        total = 0.0
        for name in names:
            if name == "cdn":
                total += metric(
                    f"http://127.0.0.1:{self.cdn_port}/cdn-metrics", "farcast_cdn_sent_bytes_total"
                )
            elif name == "satellite":
                total += metric(self.metrics_url("origin"), "farcast_satellite_sent_bytes_total")
            else:
                total += metric(
                    self.metrics_url(name), "farcast_node_http_sent_bytes_total", without='carrier="local"'
                )
        return int(total)

    def start_relay(self, name: str, *, batch_s: int = PATIENT_BATCH_S) -> None:
        """Start (or start again) a relay that sends a batch every ``batch_s``."""
        settings = {**self.settings(name), "FARCAST_BATCH_INTERVAL_S": str(batch_s)}
        self.admin[name] = self.troupe.box(name, ["relay", "run"], self.home(name), settings)

    def book(self, kind: str, cents: int) -> None:
        """Book the month's ``revenue`` or a hub ``cost``."""
        home = str(self.home("origin"))
        self.command("origin", "book", kind, str(cents), "--home", home, name="origin")

    def save_root(self, path: Path) -> None:
        """Save the origin's root.json as anybody can fetch it."""
        with urlopen(f"http://127.0.0.1:{self._ports['origin']}/v1/trust/root.json", timeout=5) as response:
            path.write_bytes(response.read())

    def encoded(self) -> dict[str, bytes]:
        """Return the SHA-256 of every file of the film as the origin packaged it, by path."""
        folder = Path(self.published["folder"])
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
            for path in folder.rglob("*")
            if path.is_file()
        }

    def addresses(self) -> dict[str, Any]:
        """Return what ``--serve`` prints: every address and process id."""
        found = self.command("play", self.title, "--home", str(self.home("node")))
        boxes = ("origin", *RELAYS, *VIEWERS)
        return {
            "film": self.film_facts(),
            "tiers": None,
            "failovers": None,
            "playback": None,
            "pulses": None,
            "settlement": None,
            "verify": None,
            "wall_s": None,
            "urls": {
                "player": found["player"],
                "watch_hls": found["watch_hls"],
                "watch_dash": found["watch_dash"],
                "gateways": [str(self.admin["node"]["url"])],
                "metrics": [self.metrics_url(name) for name in boxes]
                + [f"http://127.0.0.1:{self.cdn_port}/cdn-metrics"],
                "origin": f"http://127.0.0.1:{self._ports['origin']}",
                "relays": [f"http://127.0.0.1:{self._ports[name]}" for name in RELAYS],
                "pages": [str(self.admin[name]["url"]) + "/" for name in boxes],
            },
            "homes": {name: str(self.home(name)) for name in boxes},
            "pids": {
                "origin": self.troupe.pid("origin"),
                "cdn": self.troupe.pid("cdn"),
                "relays": [self.troupe.pid(name) for name in RELAYS],
                "neighbour": self.troupe.pid("neighbour"),
                "node": self.troupe.pid("node"),
            },
        }

    def film_facts(self) -> dict[str, Any]:
        """Return the ``film`` part of the result."""
        return {
            "title": self.published["title"],
            "root_cid": self.published["root_cid"],
            "duration_s": self.published["duration_s"],
            "segments": self.published["playback_segments"],
            "bytes": self.published["bytes"],
        }

    def _found_origin(self, *, carousel: bool) -> None:
        port = self._ports["origin"]
        home = str(self.home("origin"))
        self.troupe.start(
            "cdn", ["-m", "farcast.node.demo.cdn", str(self.cdn_port), f"http://127.0.0.1:{port}"]
        )
        self.command(
            "origin", "init", "--name", "Farcast demo", "--endpoint", f"127.0.0.1:{port}",
            "--cdn", f"http://127.0.0.1:{self.cdn_port}", "--home", home, name="origin",
        )  # fmt: skip
        self.admin["origin"] = self.troupe.box(
            "origin", ["origin", "run"], self.home("origin"), self.settings("origin")
        )
        if not carousel:  # the stage puts it on air when the film starts
            self.call("origin", "POST", "/api/origin/uplink", {"on": False})
        self._until("the CDN answers", lambda: _answers(f"http://127.0.0.1:{self.cdn_port}/cdn-metrics"))

    def _draw(self) -> None:
        if self.film.draw_s:
            self.board.note(f"making a film of {self.film.draw_s} s")
            draw_film(self.film.media, self.film.draw_s)

    def _add_payees(self) -> None:
        home = str(self.home("origin"))
        for payee, _ in PAYEES:
            self.command("origin", "payee", "add", payee, "--home", home, name="origin")

    def _publish_drawn(self, drawing: Future[None]) -> None:
        self._add_payees()
        drawing.result()
        self._publish()

    def _publish(self) -> None:
        self.board.note(f"publishing {self.film.name}")
        home = str(self.home("origin"))
        self.published = self.command(
            "origin", "publish", str(self.film.media), "--loop-to", str(SHORTEST_S), "--preset", "ultrafast",
            "--home", home, name="origin",
        )  # fmt: skip

    def _add_relay(self, name: str) -> None:
        home = str(self.home("origin"))
        link = self.command("origin", "invite", "--relay", "--home", home, name="origin")["link"]
        self.command("relay", "join", link, "--payee", "", "--home", str(self.home(name)), name=name)
        self.start_relay(name)

    def _add_viewer(self, name: str) -> None:
        home = str(self.home("origin"))
        link = self.command("origin", "account", "add", name, "--home", home, name="origin")["link"]
        self.command("join", link, "--home", str(self.home(name)), name=name)
        self.admin[name] = self.troupe.box(name, ["run"], self.home(name), self.settings(name))

    def _listed(self, name: str) -> bool:
        return any(row["title"] == self.title for row in self.call(name, "GET", "/api/titles"))

    def _all_found(self) -> bool:
        status = self.call("node", "GET", "/api/status")
        sources = {tier["name"]: tier["sources"] for tier in status["tiers"]}
        enough = sources["cdn"] >= 1 and sources["relay"] >= len(RELAYS) and sources["mesh"] >= 1
        return bool(enough and status["tickets"])

    def _on_air(self) -> bool:
        planned = self.call("origin", "GET", "/api/origin/uplink")["generations"]
        return any(row["lane"] == "title" for row in planned)

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        trouble = ""
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except FarcastError as error:
                trouble = f": {error}"
            time.sleep(0.1)
        raise LocalError(f"waited {READY_TIMEOUT_S:.0f} s until {what}{trouble}", reason="demo_timeout")


def choose_film(media: Path | None, folder: Path) -> Film:
    """Say what is published: a film drawn on the spot, or somebody's own; shorter ones are looped.

    Raises:
        UsageError: where there is no such file.

    """
    if media is not None:
        if not media.is_file():
            raise UsageError(f"{media}: no such file")
        copy = folder / "film" / media.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(media.resolve())
        write_film_toml(copy, media.stem)
        return Film(copy, media.stem)
    path = folder / "film" / "farcast-evening.mkv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_film_toml(path, "Farcast evening")
    return Film(path, "Farcast evening", FILM_S)


def write_film_toml(media: Path, name: str) -> None:
    """Write the film.toml beside the media: its name and who is paid."""
    lines = [f"name = {json.dumps(name)}", 'language = "en"']
    for payee, points in PAYEES:
        lines += ["", "[[payees]]", f'payee = "{payee}"', f"points = {points}"]
    media.with_name("film.toml").write_text("\n".join(lines) + "\n")


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)  # noqa: PLR2004 - up
    except (URLError, OSError):
        return False
