"""Kill: every role is SIGKILLed at random moments, and no pulse is lost or counted twice.

One system lives through all seeds, so what a kill leaves behind has to be lived with. In each seed
a fresh film is published and played by a few players while every process is killed from outside at
least once and started again with the command it was started with; then the kills pause until all
pulses are home, and what lies on the disks is compared.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from farcast.node.demo.player import Player
from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.protocol.errors import FarcastError, LocalError

from .bed import BOXES, POLL_S, ROLES, Bed, draw_film
from .evidence import (
    Key,
    acked,
    database_faults,
    promised,
    signed,
    store_faults,
    stored,
    taken,
    torn_blocks,
    waiting,
    watch_promises,
)

PLAYERS = 4
KILLS_S = 8.0
"""The stretch of playback over which the kills are strewn."""
PAUSE_S = 2.0
AGAIN, AGAIN_S = 0.3, 1.5
"""How often a process is killed a second time, and how soon after its start: maybe before it listens."""
BLACKOUT = 0.15
"""In how many seeds all fall at the same moment."""
CARRIED = 0.35
"""In how many seeds the node may post to nobody but its neighbour while the kills go on."""
DISHLESS = 0.5
"""In how many seeds the node starts again without its satellite dish, which also brings acks."""
HOME_TIMEOUT_S = 60.0
QUIET_S = 1.5
LISTED_TIMEOUT_S = 30.0
REVENUE_CENTS, COST_CENTS = 10_000, 1_999

_LOST = (FarcastError, aiohttp.ClientError, OSError, TimeoutError)
"""What a player meets when the process it talks to is killed."""


class Fall(NamedTuple):
    """One process's end: when, for how long, and how soon after the new start once more (or never)."""

    role: str
    at_s: float
    pause_s: float
    again_s: float | None

    def __str__(self) -> str:
        again = "" if self.again_s is None else f", again {self.again_s:.1f} s after its start"
        return f"{self.role} at {self.at_s:.1f} s for {self.pause_s:.1f} s{again}"


class Plan(NamedTuple):
    """One seed: its kills in the order of their moments, when the players leave, and the node's ways."""

    falls: list[Fall]
    curtain_s: float
    carried: bool
    dish: bool


def plan(rng: random.Random, kills_s: float) -> Plan:
    """Draw one seed, in which every role is killed at least once within ``kills_s``."""
    dark_s = rng.uniform(0.2, kills_s) if rng.random() < BLACKOUT else None
    falls = [
        Fall(
            role,
            rng.uniform(0.2, kills_s) if dark_s is None else dark_s,
            rng.uniform(0.0, PAUSE_S),
            rng.uniform(0.05, AGAIN_S) if rng.random() < AGAIN else None,
        )
        for role in ROLES
    ]
    falls.sort(key=lambda fall: fall.at_s)
    curtain_s = rng.uniform(0.6, 1.6) * kills_s
    return Plan(falls, curtain_s, rng.random() < CARRIED, rng.random() >= DISHLESS)


class Soak:
    """One system and the seeds it lives through; ``faults`` are all sentences of what did not hold."""

    def __init__(self, troupe: Troupe, folder: Path, *, kills_s: float = KILLS_S) -> None:
        self.bed = Bed(troupe, folder)
        self.faults: list[str] = []
        self._kills_s = kills_s
        self._seeds = 0
        self._kills = 0
        self._played = 0

    def assemble(self) -> None:
        """Bring the system up; raises ``LocalError`` where a part of it does not start."""
        self.bed.assemble(carousel=True)
        self.bed.book("revenue", REVENUE_CENTS)
        self.bed.book("cost", COST_CENTS)
        for name in BOXES:
            watch_promises(self.bed.home(name))

    def seed(self, number: int) -> str:
        """Live through one seed and return its line; what did not hold is in ``faults``.

        Raises:
            LocalError: where the system did not come back.

        """
        bed, before, began = self.bed, self._signed(), time.monotonic()
        falls, curtain_s, carried, bed.dish = plan(random.Random(number), self._kills_s)
        if self._seeds:  # the first plays the film that came with the system
            bed.publish(draw_film(bed.folder, number))
        self._seeds += 1
        for name in ("node", "neighbour"):
            bed.until(f"{name} sees the film", partial(bed.listed, name), LISTED_TIMEOUT_S)
        bed.switch_direct(on=not carried)
        bed.call("neighbour", "POST", f"/api/titles/{bed.title}/keep")
        try:
            asyncio.run(self._evening(falls, curtain_s))
        except ExceptionGroup as group:  # a box that did not start again
            raise group.exceptions[0] from group
        bed.switch_direct(on=True)
        home_s = self._wait_until_home()
        fresh = self._signed() - before
        faults, counts = self._compare(fresh)
        self.faults += [f"seed {number}: {fault}" for fault in faults]
        self._kills += sum(1 if fall.again_s is None else 2 for fall in falls)
        way = ("by the neighbour" if carried else "direct") + ("" if bed.dish else ", no dish")
        return (
            f"seed {number:2}  {'; '.join(map(str, falls))}; players until {curtain_s:.1f} s  |  {way}, "
            f"{counts}, home in {home_s:.1f} s  |  "
            f"{time.monotonic() - began:.1f} s  {'FAILED' if faults else 'held'}"
        )

    def finish(self) -> str:
        """Settle twice, report, end every process by SIGKILL, check the disks; return the summary."""
        bed = self.bed
        pulses, viewed_ms = self._settle()
        for name in ROLES:
            bed.troupe.kill(name)
        for name in BOXES:
            home = bed.home(name)
            self.faults += store_faults(home) + database_faults(home)
        self.faults += [
            f"{path.name}: {line}"
            for path in sorted(bed.folder.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith(("Traceback", "ERROR"))
        ]
        return (
            f"{self._kills} kills, {self._played} playbacks; {len(self._signed())} pulses signed; settled: "
            f"{pulses} that claim time, {viewed_ms / 1000:.1f} s"
        )

    # -- one seed

    async def _evening(self, falls: list[Fall], curtain_s: float) -> None:
        """Play while the kills go on; the players leave at ``curtain_s``, whatever is down then."""
        async with asyncio.TaskGroup() as tasks:
            players = [tasks.create_task(self._watch()) for _ in range(PLAYERS)]
            for fall in falls:
                tasks.create_task(self._fell(fall))
            await asyncio.sleep(curtain_s)
            for player in players:
                player.cancel()

    async def _fell(self, fall: Fall) -> None:
        bed = self.bed
        await asyncio.sleep(fall.at_s)
        await asyncio.to_thread(bed.troupe.kill, fall.role)
        await asyncio.sleep(fall.pause_s)
        if fall.again_s is not None:
            await asyncio.to_thread(bed.begin, fall.role)
            await asyncio.sleep(fall.again_s)
            await asyncio.to_thread(bed.troupe.kill, fall.role)
        await asyncio.to_thread(bed.restart, fall.role)

    async def _watch(self) -> None:
        """Play the film again and again; when the node dies, begin anew as soon as it answers."""
        bed = self.bed
        while True:
            try:
                found = await asyncio.to_thread(bed.call, "node", "GET", f"/api/titles/{bed.title}")
                await Player(found["watch_hls"], found["cmcd"], title=bed.title, event_s=1.0).play()
                self._played += 1
            except _LOST:
                await asyncio.sleep(POLL_S)
            except ExceptionGroup as group:
                _, others = group.split(_LOST)
                if others is not None:
                    raise
                await asyncio.sleep(POLL_S)

    def _wait_until_home(self) -> float:
        """Wait until no box holds a pulse and the node signs no more; returns how long it took."""
        bed, began = self.bed, time.monotonic()
        counters, quiet_at = self._signed(), began

        def home() -> bool:
            nonlocal counters, quiet_at
            now = self._signed()
            if now != counters:
                counters, quiet_at = now, time.monotonic()
            quiet = time.monotonic() - quiet_at >= QUIET_S
            return quiet and not any(waiting(bed.home(name)) for name in BOXES)

        try:
            bed.until("every pulse is home", home, HOME_TIMEOUT_S)
        except LocalError as error:
            held = {name: count for name in BOXES if (count := waiting(bed.home(name)))}
            raise LocalError(f"{error}; still held: {held}", reason="soak_timeout") from error
        return time.monotonic() - began

    def _compare(self, fresh: set[Key]) -> tuple[list[str], str]:
        """Compare all that lies on the disks; returns what is wrong, and this seed's counts."""
        bed = self.bed
        every, log = self._signed(), stored(bed.home("origin"))
        receipted = set[Key]().union(*(taken(bed.home(name)) for name in BOXES))
        given = set[Key]().union(*(promised(bed.home(name)) for name in BOXES))
        known = acked(bed.home("node"), every)
        once = {key for key, times in log.times.items() if times == 1 and len(log.bodies[key]) == 1}
        faults = [
            f"{len(keys)} pulses {what}: {_named(keys)}"
            for what, keys in (
                ("were promised and never taken", given - receipted),
                ("got a receipt and no ack", receipted - known),
                ("were signed and not acked", every - known),
                ("were acked and are not stored", known - log.times.keys()),
                ("were signed and are not counted exactly once", every - once),
                ("are stored and were never signed", log.times.keys() - every),
            )
            if keys
        ]
        counts = bed.call("origin", "GET", "/api/origin/pulses")
        if counts["accepted"] != len(every):
            faults.append(f"the origin says it accepted {counts['accepted']} of {len(every)} pulses")
        if not fresh:
            faults.append("nothing was signed")
        for name in BOXES:
            faults += torn_blocks(bed.home(name))
        copies = sum(log.copies[key] for key in fresh)
        return faults, (
            f"{len(fresh)} signed, {len(fresh & receipted)} receipted, {len(fresh & known)} acked, "
            f"{len(fresh & once)} counted of {copies} copies"
        )

    def _signed(self) -> set[Key]:
        """Return every pulse ever signed; the neighbour's viewer never plays."""
        return signed(self.bed.home("node"))

    # -- the end

    def _settle(self) -> tuple[int, int]:
        """Settle the month so far, twice each way; returns pulses and milliseconds in the report."""
        bed, now = self.bed, datetime.now(UTC)
        home = str(bed.home("origin"))
        month, as_of = f"{now:%Y-%m}", f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
        arguments = ("origin", "settle", "--month", month, "--as-of", as_of, "--home", home)
        dry = [bed.command(*arguments, "--dry-run", name="origin") for _ in range(2)]
        wet = [bed.command(*arguments, name="origin") for _ in range(2)]
        if len({_money(found) for found in (*dry, *wet)}) != 1:
            self.faults.append("settling again gave another result")
        if [found["posted"] for found in wet] != [True, False]:
            self.faults.append("the month was not booked exactly once")
        folder = Path(
            bed.command("origin", "report", "--month", month, "--home", home, name="origin")["folder"]
        )
        bed.save_root(bed.folder / "root.json")
        bed.command("verify", str(folder), "--root", str(bed.folder / "root.json"))
        report = json.loads((folder / "report.json").read_text())
        viewing, log = report["viewing"], stored(bed.home("origin"))
        said = [ms for ms in log.delta_ms.values() if ms]  # a start or return claims no time yet
        if report["uncounted"]:
            self.faults.append(f"not counted in full: {report['uncounted']}")
        if (viewing["pulses"], viewing["viewed_ms"]) != (len(said), sum(said)):
            self.faults.append(f"settled {viewing}, but {len(said)} pulses say {sum(said)} ms")
        if not viewing["viewed_ms"]:
            self.faults.append("nothing was viewed")
        return viewing["pulses"], viewing["viewed_ms"]


def run(seeds: int, keep: Path | None = None, *, kills_s: float = KILLS_S) -> bool:
    """Live through seeds 1 to ``seeds``, a line each and a summary; True where everything held."""
    if keep is not None:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="farcast-soak-"))
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    began, done = time.monotonic(), 0
    faults: list[str] = []
    summary = "not settled"
    try:
        soak = Soak(troupe, folder, kills_s=kills_s)
        faults = soak.faults
        soak.assemble()
        _say(f"the system is up after {time.monotonic() - began:.1f} s")
        for number in range(1, seeds + 1):
            _say(soak.seed(number))
            done += 1
        summary = soak.finish()
    except FarcastError as error:
        faults.append(f"ended early: {error}")
    finally:
        _clean_up(troupe, folder if keep is None else None)
    for fault in faults:
        _say(f"NOT HELD  {fault}")
    verdict = "held" if not faults else "FAILED"
    _say(f"kill: {verdict}: {done} of {seeds} seeds, {summary}, {time.monotonic() - began:.0f} s")
    return not faults


def _clean_up(troupe: Troupe, folder: Path | None) -> None:
    """End every process and remove ``folder``; a second Ctrl-C must not leave anything behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    troupe.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    for number, handler in before.items():
        signal.signal(number, handler)


def _money(found: dict[str, Any]) -> str:
    rest = ("posted", "dry_run", "running", "difference", "differences", "report")
    return json.dumps({key: found[key] for key in found if key not in rest})


def _named(keys: set[Key]) -> str:
    names = [f"{tid.hex()[:8]}/{seq}" for tid, seq in sorted(keys)]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
