"""The house: the demo's cast, with a line between the viewer's node and every box it can ask."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from farcast.node.demo.board import Board
from farcast.node.demo.cast import PAYEES, READY_TIMEOUT_S, RELAYS, Cast, Film, write_film_toml
from farcast.node.demo.troupe import Troupe, free_port, metric
from farcast.node.ffmpeg import find_ffmpeg
from farcast.protocol.errors import FarcastError, LocalError
from farcast.tests.browser.line import Place
from farcast.tests.browser.patchbay import PatchBay
from farcast.tests.wire.street import Street

FILM_S = 40
NEXT_DOOR = "127.0.0.3"
"""Where the neighbour really listens: presence names the same port at 127.0.0.1, and there its line is."""
UPLINK_SHARE = 0.75
"""Of the carousel's rate, what brings blocks: the rest is trust and catalog, and what wraps them."""
HEDGED = "farcast_node_hedged_bytes_total"
FETCH_TIMEOUT_S = 20.0
POLL_S = 0.05


class House(Cast):
    """Starts everybody with the commands of the demo; the node meets them only through ``bay``."""

    def __init__(self, troupe: Troupe, folder: Path, bay: PatchBay) -> None:
        super().__init__(troupe, folder, Board(StringIO()), draw_film(folder), speed=1.0)
        self.bay = bay
        self._street = Street(folder)
        self._own = {name: free_port() for name in ("cdn", "origin", *RELAYS)}
        self._shared["FARCAST_MESH_ZEROCONF"] = "false"
        for name in ("cdn", "origin", *RELAYS):
            bay.lay(name, self.seen_port(name), Place("127.0.0.1", self._own[name]))
        bay.lay("neighbour", self._ports["neighbour"], Place(NEXT_DOOR, self._ports["neighbour"]))

    def seen_port(self, name: str) -> int:
        """Return the port at which everybody else finds a box: its line's."""
        return self.cdn_port if name == "cdn" else self._ports[name]

    def settings(self, name: str) -> dict[str, str]:
        """Return the environment of one box: it announces its line, and listens behind it."""
        settings = super().settings(name)
        if name in self._own:
            settings["FARCAST_LISTEN_PORT"] = str(self._own[name])
        if name == "neighbour":
            settings["FARCAST_LISTEN_HOST"] = NEXT_DOOR
        return settings

    def command(self, *arguments: str, name: str = "node") -> Any:  # noqa: ANN401 - JSON
        """Run one command; but for the long one, in a process that begins with everything imported."""
        if "publish" in arguments:
            return super().command(*arguments, name=name)
        ran = self._street.run(*arguments, "--json", settings=self.settings(name))
        if ran.code:
            raise LocalError(ran.err, reason="command")
        return ran.json

    def assemble(self, *, carousel: bool = False) -> None:
        """Bring everybody up, the film on both relays and kept next door; raises ``LocalError``."""
        super().assemble(carousel=carousel)
        with ThreadPoolExecutor(len(RELAYS)) as pool:
            list(pool.map(self._warm, RELAYS))

    @property
    def published_folder(self) -> Path:
        """Where the film lies as it was published."""
        return Path(self.published["folder"])

    @property
    def gateway(self) -> str:
        """The node's local address, token included."""
        return str(self.admin["node"]["url"])

    @property
    def door(self) -> Place:
        """Where the node's local listener is."""
        split = urlsplit(self.gateway)
        assert split.hostname is not None
        assert split.port is not None
        return Place(split.hostname, split.port)

    def new_node(self) -> None:
        """Start the node anew with nothing in its store and no memory of who failed, and wait for it."""
        self.troupe.kill("node")
        home = self.home("node")
        shutil.rmtree(home / "blocks", ignore_errors=True)
        for path in home.glob("index.db*"):
            path.unlink()
        self.admin["node"] = self.troupe.box("node", ["run"], home, self.settings("node"))
        self.wait("the node finds everybody again", self._all_found)

    def on_air(self, within_s: float) -> None:
        """Let the carousel bring the film, once, within so many seconds."""
        rate_bps = round(self.film_facts()["bytes"] * 8 / UPLINK_SHARE / within_s)
        self.call("origin", "POST", "/api/origin/uplink", {"on": True, "rate_bps": rate_bps})

    def off_air(self) -> None:
        """Let the carousel pause."""
        self.call("origin", "POST", "/api/origin/uplink", {"on": False})

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself."""
        return dict[str, Any](self.call("node", "GET", "/api/status"))

    def blocks(self) -> dict[str, int]:
        """Return how many blocks each tier brought the node."""
        return {tier["name"]: tier["blocks"] for tier in self.status()["tiers"]}

    def held_percent(self) -> int:
        """Return how much of the film the node holds."""
        rows = self.call("node", "GET", "/api/titles")
        return max((int(row["held_percent"]) for row in rows if row["title"] == self.title), default=0)

    def hedged_bytes(self) -> int:
        """Return what the node says that hedging brought twice."""
        return int(metric(self.metrics_url("node"), HEDGED))

    def has_dash(self) -> bool:
        """Say whether the film can be had as DASH."""
        return (self.published_folder / "manifest.mpd").is_file()

    def wait(self, what: str, holds: Callable[[], bool], timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until something holds; raises ``LocalError`` where it does not in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(FarcastError):
                if holds():
                    return
            time.sleep(POLL_S)
        raise LocalError(f"waited {timeout_s:.0f} s until {what}", reason="test_timeout")

    def _warm(self, relay: str) -> None:
        """Have a relay fetch every file of the film while all is well."""
        for path in sorted(self.published_folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(self.published_folder)
                url = f"http://127.0.0.1:{self._own[relay]}/watch/{self.title}/{name}"
                with urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:
                    answer.read()

    def _found_origin(self, *, carousel: bool) -> None:
        home = str(self.home("origin"))
        self.command(
            "origin", "init", "--name", "Failover", "--endpoint", f"127.0.0.1:{self._ports['origin']}",
            "--cdn", f"http://127.0.0.1:{self.cdn_port}", "--home", home, name="origin",
        )  # fmt: skip
        self.admin["origin"] = self.troupe.box(
            "origin", ["origin", "run"], self.home("origin"), self.settings("origin")
        )
        if not carousel:
            self.off_air()
        arguments = [str(self._own["cdn"]), f"http://127.0.0.1:{self._own['origin']}"]
        self.troupe.start("cdn", ["-m", "farcast.node.demo.cdn", *arguments])
        for payee, _ in PAYEES:
            self.command("origin", "payee", "add", payee, "--home", home, name="origin")


def draw_film(folder: Path) -> Film:
    """Make a film that is hard to compress, so that its segments are as large as real ones."""
    path = folder / "film" / "failover.mkv"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size=640x360:rate=25:duration={FILM_S},noise=alls=24:allf=t"
    sound = f"anoisesrc=sample_rate=48000:amplitude=0.1:seed=5:duration={FILM_S}"
    command = [
        find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", picture,
        "-f", "lavfi", "-i", sound, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "24",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k", "-ac", "2", "-shortest", str(path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    write_film_toml(path, "Failover")
    return Film(path, "Failover")
