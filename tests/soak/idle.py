"""Idle: a relay and a node that nobody uses cost next to nothing, beside a running origin.

Each box lives in a network namespace of its own, so its WAN traffic is what its one wire to the origin
carried, headers included. After a minute to settle, ten quiet minutes are measured, and on until a look
for news was among them; what they cost is scaled to a day.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..wire.street import FILM, ROOT, draw

CPU_PERCENT = 0.5
BYTES_A_DAY = 1_000_000
SETTLE_S, QUIET_S, LONGEST_S = 60.0, 600.0, 1_500.0
STEP_S = 60.0
DAY_S = 86_400
PORT, ADMIN_PORT = 7_433, 7_480
LOOKS = "farcast_node_catalog_refreshes_total"


class _Place(NamedTuple):
    """A namespace: its name, its end of the wire and its addresses."""

    name: str
    address: str
    gateway: str


class _Cost(NamedTuple):
    cpu_s: float
    wan_bytes: int
    looks: float


def run(seeds: int, keep: Path | None) -> bool:
    """Measure once, whatever ``seeds``; True where both boxes stay within their bounds."""
    del seeds
    folder = Path(tempfile.mkdtemp(prefix="farcast-idle-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder)
    try:
        world.lay()
        boxes = world.bring_up()
        time.sleep(SETTLE_S)
        return _measure(world, boxes)
    finally:
        world.clear()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _measure(world: World, boxes: Mapping[str, int]) -> bool:
    wait_s = float(os.environ.get("FARCAST_SOAK_IDLE_S") or QUIET_S)
    before, started = {name: world.cost(name, pid) for name, pid in boxes.items()}, time.monotonic()
    passed_s, now = 0.0, before
    while passed_s < wait_s or (passed_s < LONGEST_S and any(now[n].looks == before[n].looks for n in boxes)):
        time.sleep(max(wait_s - passed_s, STEP_S))  # asking a box what it counts costs it a little
        now, passed_s = (
            {name: world.cost(name, pid) for name, pid in boxes.items()},
            time.monotonic() - started,
        )
    held = True
    for name in boxes:
        cpu_percent = 100 * (now[name].cpu_s - before[name].cpu_s) / passed_s
        day_bytes = (now[name].wan_bytes - before[name].wan_bytes) * DAY_S / passed_s
        fits = cpu_percent <= CPU_PERCENT and day_bytes <= BYTES_A_DAY
        held &= fits
        sys.stdout.write(
            f"idle: {name}: {passed_s:.0f} s, {now[name].looks - before[name].looks:.0f} looks for news, "
            f"{cpu_percent:.2f} % of a core, {now[name].wan_bytes - before[name].wan_bytes} bytes of WAN "
            f"traffic, {day_bytes / 1e6:.2f} MB a day  {'held' if fits else 'NOT HELD'}\n"
        )
    return held


class World:
    """An origin, a relay and a node, each in its namespace, and the wires between them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        number = os.getpid()
        self._origin = f"fc-idle-{number}-o"
        self._places = {
            "relay": _Place(f"fc-idle-{number}-r", "10.98.1.2", "10.98.1.1"),
            "node": _Place(f"fc-idle-{number}-n", "10.98.2.2", "10.98.2.1"),
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def lay(self) -> None:
        """Make the namespaces; raises ``CalledProcessError`` without the right to."""
        for name in (self._origin, *(place.name for place in self._places.values())):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for number, place in enumerate(self._places.values()):
            _ip("link", "add", f"o{number}", "netns", self._origin, "type", "veth", "peer", "name", "wan0",
                "netns", place.name)  # fmt: skip
            for name, link, address in (
                (self._origin, f"o{number}", place.gateway),
                (place.name, "wan0", place.address),
            ):
                _ip("-n", name, "address", "add", f"{address}/24", "dev", link)
                _ip("-n", name, "link", "set", link, "up")
            _ip("-n", place.name, "route", "add", "default", "via", place.gateway)
        self._inside(self._origin, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        home = self._places["node"].name  # multicast to neighbours is no WAN traffic: it has its own wire
        _ip("-n", home, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        _ip("-n", home, "address", "add", "10.98.3.2/24", "dev", "lan0")
        for link in ("lan0", "lan1"):
            _ip("-n", home, "link", "set", link, "up")

    def bring_up(self) -> dict[str, int]:
        """Publish a film, start everybody, and return the process ids of relay and node."""
        film = draw(self._folder / "film.mp4", *FILM)
        origin, endpoint = self._origin, f"10.98.1.1:{PORT}"
        self._do(origin, "origin", "origin", "init", "--name", "Idle", "--endpoint", endpoint)
        self._do(origin, "origin", "origin", "payee", "add", "ada")
        self._do(origin, "origin", "origin", "publish", film, "--preset", "ultrafast", "--payee", "ada")
        self._start(origin, "origin", "origin", "run")
        for_relay = self._do(origin, "origin", "origin", "invite", "--relay")["link"]
        for_node = self._do(origin, "origin", "origin", "account", "add", "alice")["link"]
        relay, node = self._places["relay"].name, self._places["node"].name
        self._do(relay, "relay", "relay", "join", for_relay)
        self._do(node, "node", "join", for_node)
        return {
            "relay": self._start(relay, "relay", "relay", "run"),
            "node": self._start(node, "node", "run"),
        }

    def cost(self, name: str, pid: int) -> _Cost:
        """Return what a box has cost so far."""
        place = self._places[name]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        links = json.loads(_ip("-n", place.name, "-s", "-j", "link", "show", "wan0"))
        counted = links[0]["stats64"]
        text = self._inside(
            place.name, sys.executable, "-c", _SCRAPE, str(self._folder / name / "admin.json"), LOOKS
        )
        return _Cost(
            ticks / os.sysconf("SC_CLK_TCK"),
            counted["rx"]["bytes"] + counted["tx"]["bytes"],
            float(text),
        )

    def clear(self) -> None:
        """End every process and take the namespaces away."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        for name in (self._origin, *(place.name for place in self._places.values())):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)

    def _environment(self, name: str) -> dict[str, str]:
        place = self._places.get(name)
        settings = {
            "PYTHONPATH": str(ROOT / ".src"),
            "FARCAST_NETWORK_ALLOW_PRIVATE": "true",
            "FARCAST_LISTEN_PORT": str(PORT),
            "FARCAST_ADMIN_PORT": str(ADMIN_PORT),
            **({"FARCAST_NETWORK_INTERFACES": "10.98.3.2"} if name == "node" else {}),
            **({"FARCAST_NETWORK_ANNOUNCE": f"{place.address}:{PORT}"} if place and name == "relay" else {}),
        }
        return {key: text for key, text in os.environ.items() if not key.startswith("FARCAST_")} | settings

    def _do(self, namespace: str, home: str, *words: str | Path) -> Any:  # noqa: ANN401 - JSON
        command = [
            sys.executable,
            "-m",
            "farcast",
            *map(str, words),
            "--home",
            str(self._folder / home),
            "--json",
        ]
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            env=self._environment(home), cwd=self._folder, capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        return json.loads(done.stdout)

    def _start(self, namespace: str, home: str, *words: str) -> int:
        command = [sys.executable, "-m", "farcast", *words, "--home", str(self._folder / home)]
        log = (self._folder / f"{home}.log").open("ab")
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],  # execs: the process is the box itself
            env=self._environment(home), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        self._running.append(process)
        told = self._folder / home / "admin.json"
        deadline = time.monotonic() + 30
        while not told.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                message = f"{home} did not start: {(self._folder / f'{home}.log').read_text()[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.1)
        return process.pid

    def _inside(self, namespace: str, *words: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", namespace, *words], check=True, capture_output=True, text=True, timeout=30
        )
        return done.stdout


_SCRAPE = """
import json, sys, urllib.parse, urllib.request
host = urllib.parse.urlsplit(json.load(open(sys.argv[1]))["url"]).netloc
text = urllib.request.urlopen(f"http://{host}/metrics", timeout=10).read().decode()
print(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(sys.argv[2])))
"""


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout
