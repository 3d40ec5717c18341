"""A villager: one box in its namespace, killed and started again, and somebody who watches there."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from farcast.node.admin import call_admin
from farcast.node.demo.player import Playback, Player
from farcast.node.demo.troupe import Troupe
from farcast.protocol.errors import FarcastError

from .place import Place

START_TIMEOUT_S = 300.0
"""Twelve boxes share the cores of one machine, whose others may come first."""


class Film(NamedTuple):
    """A published title: its id, the segments of one playback, and each file's SHA-256 by path."""

    title: str
    segments: int
    digests: dict[str, bytes]


class Villager:
    """One box; what it did is counted over all its lives."""

    def __init__(
        self, name: str, home: Path, place: Place, troupe: Troupe, settings: Mapping[str, str]
    ) -> None:
        self.name = name
        self.home = home
        self.place = place
        self.up = False
        self.falls = self.plays = self.tries = 0
        self.played = set[str]()
        self.peak_kib = 0
        self.blocks = Counter[str]()
        self._troupe = troupe
        self._settings = dict(settings)
        self._told = Counter[str]()

    async def command(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command where the box lives; raises ``LocalError``."""
        return await self.place.call(self._troupe.command, words, self._settings)

    async def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Call its admin API."""
        return await self.place.call(call_admin, self.home, method, path, body)

    async def start(self, *words: str) -> None:
        """Start its process and wait until it listens; raises ``LocalError``."""
        start, settings = words or ("run",), self._settings
        await self.place.call(self._troupe.box, self.name, start, self.home, settings, START_TIMEOUT_S)
        self._told.clear()
        self.up = True

    async def fall(self) -> None:
        """Have it die without a word."""
        with suppress(FarcastError, OSError):  # too busy to be asked: what it brought lately is not told
            await self.look()
        self.up = False
        self.falls += 1
        await self.place.call(self._troupe.kill, self.name)

    async def look(self) -> None:
        """Note the most memory it ever had, and which tiers its blocks came from."""
        if not self.up:
            return
        self.peak_kib = max(self.peak_kib, _peak_kib(self._troupe.pid(self.name)))
        tiers = (await self.call("GET", "/api/status"))["tiers"]
        told = Counter[str]({tier["name"]: tier["blocks"] for tier in tiers})
        self.blocks += told - self._told
        self._told = told

    async def titles(self) -> list[str]:
        """Return what it lists."""
        return [str(row["title"]) for row in await self.call("GET", "/api/titles")]

    async def watch(self, film: Film) -> str:
        """Play a film from start to end; returns what was wrong with its bytes, nothing if they were right.

        Raises:
            FarcastError: where the box refuses it; ``ExceptionGroup`` or ``OSError`` where it falls.

        """
        self.tries += 1
        found = await self.call("GET", f"/api/titles/{film.title}")
        player = Player(found["watch_hls"], found["cmcd"], title=film.title, event_s=1.0)
        playback: Playback = await self.place.do(player.play())
        played = {path: digest for path, digest in playback.digests.items() if path.endswith(".m4s")}
        wrong = [path for path, digest in played.items() if film.digests.get(path) != digest]
        if wrong or len(played) != film.segments:
            count = f"{len(played)} of {film.segments} segments"
            return f"{self.name} played {count} of {film.title}, other bytes in {wrong}"
        self.plays += 1
        self.played.add(film.title)
        return ""


def digests(folder: Path) -> dict[str, bytes]:
    """Return the SHA-256 of every file in a folder, by path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _peak_kib(pid: int) -> int:
    """Return the most memory a process ever had, 0 where it is over."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
