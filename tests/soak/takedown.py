"""Takedown: how soon after a relay has the checkpoint a denied title is refused, and gone from its disk.

A real origin, relay and viewer's node; each round warms a fresh title everywhere, denies it with
``farcast origin deny`` and watches both boxes, while other viewers go on watching titles that share
blocks with it. After half of the rounds the relay starts again. It holds where every round was done
within ``LIMIT_S``, nothing shared was lost, and what was taken down stayed so to the end.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from farcast.node.demo.troupe import free_port
from farcast.protocol.cid import Cid
from farcast.tests.wire.pantry import Stocked, office, stock
from farcast.tests.wire.street import Answered, Box, Street, ask, until

LIMIT_S = 10.0
SEGMENTS, SEGMENT_BYTES = 6, 1_500_000
LOADS = 4
PAUSE_S = 0.02


class Viewers(threading.Thread):
    """Somebody who watches other titles all the time; ``faults`` are answers that were not whole."""

    def __init__(self, place: str, title: str, files: dict[str, bytes], seed: int) -> None:
        super().__init__(daemon=True)
        self._place, self._title, self._files = place, title, files
        self._random = Random(seed)
        self._over = threading.Event()
        self.paused = threading.Event()
        self.answers = 0
        self.faults: list[str] = []

    def run(self) -> None:
        """Ask for a random file, again and again."""
        while not self._over.wait(PAUSE_S):
            if self.paused.is_set():
                continue
            path = self._random.choice(sorted(self._files))
            try:
                answer = ask(self._place, "GET", f"/watch/{self._title}/{path}")
            except OSError as error:
                if not self.paused.is_set():
                    self.faults.append(f"{path}: {error}")
                continue
            self.answers += 1
            if answer.status != 200 or answer.body != self._files[path]:
                self.faults.append(f"{path}: {answer.status}, {len(answer.body)} bytes")

    def leave(self) -> None:
        """Stop."""
        self._over.set()
        self.join(30)


class Soak:
    """One origin with a title for each round, and one they all share blocks with."""

    def __init__(self, folder: Path, rounds: int) -> None:
        self.street = Street(folder)
        self.rounds = rounds
        self.faults: list[str] = []
        self.took: dict[str, list[float]] = {"refused": [], "disk": [], "node": []}
        self.films: list[Stocked] = []
        random = Random(11)
        self._shared = random.randbytes(SEGMENT_BYTES)
        self.lasting = {f"v0/seg-{at:05d}.m4s": random.randbytes(SEGMENT_BYTES) for at in range(40)}
        self.lasting["v0/seg-00040.m4s"] = self._shared
        self._settings = {name: _listen(free_port()) for name in ("origin", "relay")}

    def assemble(self) -> None:
        """Bring everybody up."""
        street, home, random = self.street, self.street.home("origin"), Random(12)
        place = self._settings["origin"]["FARCAST_NETWORK_ANNOUNCE"]
        street.must("origin", "init", "--endpoint", place, "--home", home)
        books = office(home)
        self.kept = stock(books, "lasting", self.lasting)
        for number in range(self.rounds):
            files = {f"v0/seg-{at:05d}.m4s": random.randbytes(SEGMENT_BYTES) for at in range(SEGMENTS)}
            files |= {"master.m3u8": b"#EXTM3U\n", "v0/seg-00006.m4s": self._shared}
            self.films.append(stock(books, f"film-{number}", files))
        books.close()
        self.origin = street.start("origin", "origin", "run", settings=self._settings["origin"])
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        ran = street.run("relay", "join", link, "--home", street.home("relay"), settings=self._relay_settings)
        assert ran.code == 0, ran
        self.relay = street.start("relay", "relay", "run", settings=self._relay_settings)
        street.must(
            "join", street.must("origin", "invite", "--home", home)["link"], "--home", street.home("node")
        )
        self.node = street.start("node", "run")
        until(lambda: self.relay.api("/api/status")["titles"] == self.rounds + 1, 60)
        until(lambda: len(self.node.api("/api/titles")) == self.rounds + 1, 60)

    @property
    def _relay_settings(self) -> dict[str, str]:
        return {**self._settings["relay"], "FARCAST_FILL_PUSH": "false"}

    @property
    def place(self) -> str:
        """Where the relay serves."""
        return f"127.0.0.1:{self.relay.port}"

    def round(self, number: int) -> str:
        """Warm one title, deny it, and watch it go; returns its line."""
        film = self.films[number]
        paths = ["master.m3u8", *film.leaves]
        for path in paths:
            assert self._relay(f"/watch/{film.title}/{path}").status == 200, path
            assert self._node(f"/watch/{film.title}/{path}").status == 200, path
        own = film.cids - self.kept.cids
        size = self._catalog_size() + 1
        denial = threading.Thread(target=self._deny, args=(film.title,))
        denial.start()
        until(lambda: self._catalog_size() >= size, 30)
        has = time.monotonic()
        watched = [f"/watch/{film.title}/{path}" for path in film.leaves]
        blocks = [f"/ipfs/{cid}?format=raw" for cid in own]
        done: dict[str, float] = {}
        while len(done) < len(self.took) and time.monotonic() - has < 2 * LIMIT_S:
            if "refused" not in done and all(self._relay(path).status == 410 for path in (*watched, *blocks)):
                done["refused"] = time.monotonic() - has
            if "disk" not in done and not on_disk(self.relay, own):
                done["disk"] = time.monotonic() - has
            left = on_disk(self.node, own)
            if "node" not in done and not left and all(self._node(path).status == 410 for path in blocks):
                done["node"] = time.monotonic() - has
            time.sleep(PAUSE_S)
        denial.join(60)
        for name, found in self.took.items():
            took = done.get(name, 2 * LIMIT_S)
            found.append(took)
            if took > LIMIT_S:
                self.faults.append(f"{film.title}: {name} only after {took:.1f} s")
        self._look_back(number, film)
        shown = ", ".join(f"{name} {done.get(name, -1):.2f} s" for name in self.took)
        return f"round {number}: {shown}"

    def restart_relay(self) -> None:
        """Stop the relay and start it again."""
        self.relay.stop()
        self.relay = self.street.start("relay", "relay", "run", settings=self._relay_settings)

    def _look_back(self, number: int, film: Stocked) -> None:
        """See that what is shared stays, and that nothing comes back."""
        for cid in self.kept.leaves["v0/seg-00040.m4s"]:
            if self._relay(f"/ipfs/{cid}?format=raw").status != 200:
                self.faults.append(f"{film.title} took a block with it that a listed title needs")
        for earlier in self.films[: number + 1]:
            answer = self._relay(f"/ipfs/{earlier.root}?format=raw", {"farcast-title": "lasting"})
            if answer.status != 410:
                self.faults.append(f"{earlier.title} answers {answer.status} again")
            if on_disk(self.relay, earlier.cids - self.kept.cids):
                self.faults.append(f"{earlier.title} is on the disk again")

    def _deny(self, title: str) -> None:
        found = self.street.must("origin", "deny", title, "--home", self.origin.home)
        rows: list[dict[str, Any]] = found["tiers"]
        states = {row["tier"]: row["state"] for row in rows}
        if states != {"origin": "gone", "relay": "gone"}:
            self.faults.append(f"{title}: `origin deny` says {rows}")

    def _catalog_size(self) -> int:
        return int(self._relay("/v1/catalog/checkpoint").body.split(b"\n")[1])

    def _relay(self, path: str, headers: dict[str, str] | None = None) -> Answered:
        return ask(self.place, "GET", path, headers)

    def _node(self, path: str) -> Answered:
        return ask(self.node.local, "GET", f"/{self.node.token}{path}")


def on_disk(box: Box, cids: Iterable[Cid]) -> bool:
    """Say whether a box has a file of any of these blocks."""
    names = {path.name for path in (box.home / "blocks").rglob("b*")}
    return not names.isdisjoint(map(str, cids))


def _listen(port: int) -> dict[str, str]:
    return {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}


def run(seeds: int, keep: Path | None) -> bool:
    """Do ``seeds`` rounds; True where every one held."""
    folder = Path(tempfile.mkdtemp(prefix="farcast-takedown-")) if keep is None else keep
    folder.mkdir(parents=True, exist_ok=True)
    soak = Soak(folder, seeds)
    viewers: list[Viewers] = []
    try:
        soak.assemble()
        viewers = [Viewers(soak.place, "lasting", soak.lasting, seed) for seed in range(LOADS)]
        for viewer in viewers:
            viewer.start()
        for number in range(seeds):
            if number == seeds // 2:
                for viewer in viewers:
                    viewer.paused.set()
                soak.restart_relay()
                for viewer in viewers:
                    viewer.paused.clear()
            sys.stdout.write(soak.round(number) + "\n")
            sys.stdout.flush()
        for viewer in viewers:
            viewer.leave()
            soak.faults += viewer.faults[:3]
    finally:
        soak.street.close()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for name, took in soak.took.items():
        sys.stdout.write(f"{name}: median {median(took):.2f} s, at most {max(took):.2f} s\n")
    sys.stdout.write(f"{sum(viewer.answers for viewer in viewers)} answers of other titles meanwhile\n")
    for fault in soak.faults:
        sys.stdout.write(f"FAULT {fault}\n")
    return not soak.faults
