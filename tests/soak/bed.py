"""The bed: the demo's cast with everything quicker, and every member able to start again."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from farcast.node.demo.board import Board
from farcast.node.demo.cast import READY_TIMEOUT_S, RELAYS, Cast, Film, write_film_toml
from farcast.node.demo.troupe import Troupe
from farcast.node.ffmpeg import find_ffmpeg
from farcast.protocol.errors import FarcastError, LocalError

BOXES = ("origin", *RELAYS, "neighbour", "node")
ROLES = (*BOXES, "cdn")
FILM_S = 4
POLL_S = 0.2

_COMMANDS = {
    "origin": ("origin", "run"),
    **dict.fromkeys(RELAYS, ("relay", "run")),
    "neighbour": ("run",),
    "node": ("run",),
}


class Bed(Cast):
    """Starts everybody with the commands of the demo, as often as they are killed."""

    def __init__(self, troupe: Troupe, folder: Path) -> None:
        super().__init__(troupe, folder, Board(io.StringIO()), draw_film(folder, 0), speed=1.0)
        self.direct = True
        self.dish = True

    def settings(self, name: str) -> dict[str, str]:
        """Return the environment of one box: a pulse, a batch and a look at the catalog each second."""
        quick = {
            "FARCAST_HEARTBEAT_INTERVAL_S": "1",
            "FARCAST_BATCH_INTERVAL_S": "1",
            "FARCAST_CATALOG_POLL_S": "1",
            "FARCAST_CATALOG_IDLE_POLL_S": "1",
        }
        node = {
            "FARCAST_NETWORK_DIRECT": str(self.direct).lower(),
            "FARCAST_SATELLITE_ENABLED": str(self.dish).lower(),
        }
        return {**super().settings(name), **quick, **(node if name == "node" else {})}

    def assemble(self, *, carousel: bool) -> None:
        """Bring everybody up as the demo does, all at once where the demo takes turns."""
        self._found_origin(carousel=carousel)
        self._add_payees()
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(self._publish)]
            jobs += [pool.submit(self._add_relay, name) for name in RELAYS]
            jobs += [pool.submit(self._add_viewer, name) for name in ("neighbour", "node")]
            for job in jobs:
                job.result()
        self.until("the node finds both relays and the neighbour", self._all_found, READY_TIMEOUT_S)

    def start_relay(self, name: str, *, batch_s: int = 1) -> None:
        """Start a relay that sends a batch every second."""
        super().start_relay(name, batch_s=batch_s)

    def begin(self, name: str) -> None:
        """Start a process with its own command and do not wait until it listens."""
        if name == "cdn":
            origin = self._ports["origin"]
            arguments = ["-m", "farcast.node.demo.cdn", str(self.cdn_port), f"http://127.0.0.1:{origin}"]
            self.troupe.start(name, arguments)
            return
        command = [*_COMMANDS[name], "--home", str(self.home(name))]
        self.troupe.start(name, ["-m", "farcast", *command], self.settings(name))

    def restart(self, name: str) -> None:
        """Start a process with its own command and wait until it listens; raises ``LocalError``."""
        if name == "cdn":
            self.begin(name)
        else:
            self.admin[name] = self.troupe.box(
                name, list(_COMMANDS[name]), self.home(name), self.settings(name)
            )

    def publish(self, film: Film) -> None:
        """Publish a film through the running origin; from now on it is the one that is played."""
        self.film = film
        self._publish()

    def switch_direct(self, *, on: bool) -> None:
        """Let the node post to relays and origin itself, or only to its neighbour."""
        self.direct = on
        self.call("node", "POST", "/api/direct", {"on": on})

    def until(self, what: str, holds: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something holds; raises ``LocalError`` where it does not in time."""
        deadline = time.monotonic() + timeout_s
        trouble = ""
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except FarcastError as error:
                trouble = f": {error}"
            time.sleep(POLL_S)
        raise LocalError(f"waited {timeout_s:.0f} s until {what}{trouble}", reason="soak_timeout")

    def listed(self, name: str) -> bool:
        """Say whether a viewer's box knows the film."""
        return any(row["title"] == self.title for row in self.call(name, "GET", "/api/titles"))

    def _publish(self) -> None:
        home = str(self.home("origin"))
        command = ["origin", "publish", str(self.film.media), "--preset", "ultrafast", "--home", home]
        self.published = self.command(*command, name="origin")


def draw_film(folder: Path, number: int, film_s: int = FILM_S) -> Film:
    """Make a small film that differs in every block from those of other numbers."""
    path = folder / "film" / f"{number}" / "film.mkv"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"testsrc2=size=320x180:rate=10:duration={film_s},hue=h={number * 37 % 360}"
    tone = f"sine=frequency={300 + 10 * number}:sample_rate=48000:duration={film_s}"
    subprocess.run(
        [
            find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", picture,
            "-f", "lavfi", "-i", tone, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
            "-c:a", "aac", "-b:a", "64k", "-shortest", str(path),
        ],
        check=True, timeout=60,
    )  # fmt: skip
    write_film_toml(path, f"Film {number}")
    return Film(path, f"Film {number}")
