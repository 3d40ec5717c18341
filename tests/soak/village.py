"""Village: twelve boxes whose uplink comes and goes, under a sky that loses a packet in five.

Every box lives in a network namespace on one LAN. One at a time, drawn from the seed, has an uplink for
half a minute, which ends with an error or in silence; the others never see the origin after they joined.
The origin's carousel falls on all of them, and nothing goes back that way. Films come out meanwhile, boxes
are killed and start again, two come late; at most three people watch at the same time, because all twelve
nodes share the cores of one machine. At the end the uplink stays until every pulse is home. It holds where
every box has played every film byte for byte, every pulse ever signed is stored and settled exactly once,
no disk is damaged, and no box needed more memory than 150 MiB.

Then the same cores live a week in virtual time (``tests/sim/week.py``).

``FARCAST_SOAK_MINUTES`` says how long, 20 else; ``FARCAST_SOAK_SEED`` repeats a timetable.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import aiohttp

from farcast.node.demo.troupe import Troupe, clean_environment
from farcast.protocol.errors import FarcastError, LocalError
from farcast.tests.lab.bridge import why_not
from farcast.tests.sim.day import TODAY
from farcast.tests.sim.homeward import DAY_S
from farcast.tests.sim.week import DRAIN_DAYS, Week

from .bed import draw_film
from .evidence import Key, signed, stored, waiting
from .place import Place
from .timetable import FIRST_FILMS, Fall, Opening, Timetable, draw
from .valley import ORIGIN, PORT, Valley
from .verdict import Verdict
from .villager import Film, Villager, digests

BOXES = 12
MINUTES = 20.0
SCREENS = 3
"""So many play at once."""
PAUSE_S = (1.0, 6.0)
FILM_S = 12
AT_ONCE = 3
TELL_S, LOOK_S, POLL_S = 30.0, 5.0, 0.5
JOIN_TIMEOUT_S, LAST_PLAYS_S, HOME_TIMEOUT_S = 300.0, 300.0, 300.0
QUIET_S = 6.0
"""As long as it takes a node to sign for the end of what was watched."""
SHARED = {
    "FARCAST_NETWORK_ALLOW_PRIVATE": "true",
    "FARCAST_LISTEN_HOST": "0.0.0.0",  # noqa: S104 - in a namespace
    "FARCAST_LISTEN_PORT": str(PORT),
    "FARCAST_HEARTBEAT_INTERVAL_S": "2",
    "FARCAST_BATCH_INTERVAL_S": "2",
    "FARCAST_CATALOG_POLL_S": "5",
    "FARCAST_CATALOG_IDLE_POLL_S": "15",
}
ON_AIR = {
    "FARCAST_UPLINK_ENABLED": "true",
    "FARCAST_UPLINK_RATE_BPS": "600000",
    "FARCAST_UPLINK_GENERATION_BYTES": "8000000",
}
_LOST = (FarcastError, aiohttp.ClientError, OSError, TimeoutError)
"""What is met when a box falls."""


class Soak:
    """One village and what it lives through; ``faults`` are sentences of what did not hold."""

    def __init__(
        self, folder: Path, troupe: Troupe, valley: Valley, places: list[Place], timetable: Timetable
    ) -> None:
        self.faults: list[str] = []
        self.films: list[Film] = []
        self._folder = folder
        self._valley = valley
        self._timetable = timetable
        air = {**SHARED, **ON_AIR, "FARCAST_SATELLITE_INTERFACE": valley.switch.addresses[valley.origin]}
        self.origin = Villager("origin", folder / "origin", places[valley.origin], troupe, air)
        self.boxes = [
            Villager(f"box-{number:02}", folder / f"box-{number:02}", places[number], troupe, SHARED)
            for number in valley.boxes
        ]
        self._screens = asyncio.Semaphore(SCREENS)
        self._busy = asyncio.Semaphore(AT_ONCE)
        self._began = time.monotonic()
        self._late = self._over = False
        self._uplink = "away"

    async def live(self, length_s: float) -> None:
        """Come together, live through the timetable, see what is left to see, and bring all pulses home."""
        await self._assemble()
        self._began = time.monotonic()
        self._valley.seclude()
        async with asyncio.TaskGroup() as telling:
            teller = telling.create_task(self._tell_forever())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._uplinks())
                tasks.create_task(self._publish_more())
                for box, falls in zip(self.boxes, self._timetable.falls, strict=True):
                    tasks.create_task(self._evenings(box))
                    tasks.create_task(self._fall(box, falls))
                tasks.create_task(self._end(length_s))
            await self._come_home()
            teller.cancel()

    # -- coming together

    async def _assemble(self) -> None:
        origin, at = self.origin, ("--home", str(self.origin.home))
        place = f"{ORIGIN}:{PORT}"
        await origin.command(
            "origin", "init", "--name", "Far away", "--endpoint", place, "--cdn", f"http://{place}", *at
        )
        for payee in ("ada", "ben"):
            await origin.command("origin", "payee", "add", payee, *at)
        await origin.start("origin", "run")
        for _ in range(FIRST_FILMS):
            await self._publish()
        async with asyncio.TaskGroup() as tasks:
            for box in self.boxes:
                tasks.create_task(self._join(box))

    async def _join(self, box: Villager) -> None:
        async with self._busy:
            origin = self.origin
            found = await origin.command("origin", "account", "add", box.name, "--home", str(origin.home))
            await box.command("join", found["link"], "--home", str(box.home))
            await box.start()

        async def ready() -> bool:
            has_tickets = bool((await box.call("GET", "/api/status"))["tickets"])
            return has_tickets and len(await box.titles()) == len(self.films)

        await _until(f"{box.name} has tickets and a catalog", ready, JOIN_TIMEOUT_S)

    async def _publish(self) -> None:
        number, home = len(self.films), str(self.origin.home)
        media = await asyncio.to_thread(draw_film, self._folder, number, FILM_S)
        words = ("origin", "publish", str(media.media), "--preset", "ultrafast", "--home", home)
        found = await self.origin.command(*words)
        segments = int(found["playback_segments"])
        self.films.append(Film(str(found["title"]), segments, digests(Path(found["folder"]))))

    # -- what happens

    async def _evenings(self, box: Villager) -> None:
        """Watch one film after the other, those not seen yet first, until the time is over."""
        random = Random(box.name)
        while not self._over:
            await asyncio.sleep(random.uniform(*PAUSE_S))
            async with self._screens:
                if not box.up or self._over:
                    continue
                try:
                    await self._watch(box, random)
                except* _LOST:
                    pass

    async def _watch(self, box: Villager, random: Random) -> None:
        listed = await box.titles()
        here = [film for film in self.films if film.title in listed]
        new = [film for film in here if film.title not in box.played]
        choice = new or ([] if self._late else here)
        if choice:
            wrong = await box.watch(random.choice(choice))
            if wrong:
                self.faults.append(wrong)

    async def _uplinks(self) -> None:
        for opening in self._timetable.openings:
            await self._at(opening.at_s)
            await self._open(opening)
            await self._at(opening.until_s)
            end = self._valley.fall_silent if opening.silent else self._valley.seclude
            await asyncio.to_thread(end)
            self._uplink = "away"

    async def _open(self, opening: Opening) -> None:
        await asyncio.to_thread(self._valley.connect, opening.door)
        self._uplink = f"at {self.boxes[opening.door].name}"

    async def _publish_more(self) -> None:
        for at_s in self._timetable.films:
            await self._at(at_s)
            await self._publish()

    async def _fall(self, box: Villager, falls: list[Fall]) -> None:
        for fall in falls:
            await self._at(fall.at_s)
            await box.fall()
            await asyncio.sleep(fall.down_s)
            async with self._busy:
                await box.start()

    async def _end(self, length_s: float) -> None:
        """Let the time pass, and then whoever has not seen everything see it."""
        await self._at(length_s)
        self._late = True
        with contextlib.suppress(LocalError):  # who has not seen what is named at the end
            await _until("everybody has seen everything", self._all_seen, LAST_PLAYS_S)
        self._over = True

    async def _all_seen(self) -> bool:
        return not self._left()

    async def _come_home(self) -> None:
        """Open the uplink for good and wait until no box holds a pulse and none signs another."""
        door = self._timetable.last_door
        await asyncio.to_thread(self._valley.connect, door)
        self._uplink = f"at {self.boxes[door].name}, to stay"
        last, quiet_at = set[Key](), time.monotonic()

        async def home() -> bool:
            nonlocal last, quiet_at
            now = await asyncio.to_thread(self._signed)
            if now != last:
                last, quiet_at = now, time.monotonic()
            quiet = time.monotonic() - quiet_at >= QUIET_S
            return quiet and not any(waiting(box.home) for box in self.boxes)

        try:
            await _until("every pulse is home", home, HOME_TIMEOUT_S)
        except LocalError as error:
            held = {box.name: count for box in self.boxes if (count := waiting(box.home))}
            self.faults.append(f"{error}; still held: {held}")

    async def _at(self, moment_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began + moment_s - time.monotonic()))

    # -- what is told

    async def _tell_forever(self) -> None:
        told = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_S)
            for box in self.boxes:
                try:
                    await box.look()
                except _LOST:
                    continue  # it falls
            if time.monotonic() - told >= TELL_S:
                told += TELL_S
                _say(await asyncio.to_thread(self._progress))

    def _progress(self) -> str:
        every = self._signed()
        here = len(stored(self.origin.home).times.keys() & every)
        plays = sum(box.plays for box in self.boxes)
        peak = max(box.peak_kib for box in self.boxes) / 1024
        return (
            f"{time.monotonic() - self._began:5.0f} s  uplink {self._uplink}; "
            f"{sum(box.up for box in self.boxes)} boxes up; {len(self.films)} films, {plays} plays, "
            f"{self._left()} left to see; {len(every)} pulses signed, {here} at the origin; "
            f"most memory {peak:.0f} MiB"
        )

    def _left(self) -> int:
        """Return how many boxes have yet to play how many films, multiplied out."""
        return sum(film.title not in box.played for box in self.boxes for film in self.films)

    def _signed(self) -> set[Key]:
        return set[Key]().union(*(signed(box.home) for box in self.boxes))


def run(seeds: int, keep: Path | None) -> bool:
    """Live through one timetable, whatever ``seeds``, and a simulated week; True where everything held."""
    del seeds
    seed = int(os.environ.get("FARCAST_SOAK_SEED") or secrets.randbelow(10_000))
    length_s = 60 * float(os.environ.get("FARCAST_SOAK_MINUTES") or MINUTES)
    if lacks := why_not():
        _say(f"village: FAILED: {lacks}")
        return False
    folder = Path(tempfile.mkdtemp(prefix="farcast-soak-")) if keep is None else keep.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        faults, table = _real(folder, seed, length_s)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for line in table:
        _say(line)
    faults += _simulated(seed)
    for fault in faults:
        _say(f"NOT HELD  {fault}")
    verdict = "FAILED" if faults else "held"
    _say(f"village: {verdict}: seed {seed}, {length_s / 60:g} minutes, {time.monotonic() - began:.0f} s")
    return not faults


def _real(folder: Path, seed: int, length_s: float) -> tuple[list[str], list[str]]:
    """Live with real processes; returns what did not hold, and the table. Nothing is left behind."""
    troupe = Troupe(folder, clean_environment({"PYTHONUNBUFFERED": "1"}))
    began, faults, table = time.monotonic(), list[str](), list[str]()
    stack = ExitStack()
    try:
        valley = stack.enter_context(Valley(BOXES))
        places = [stack.enter_context(Place(space)) for space in valley.switch.spaces[: BOXES + 1]]
        stack.callback(troupe.close)  # first of all: who waits for a process then ends at once
        soak = Soak(folder, troupe, valley, places, draw(Random(seed), BOXES, length_s))
        faults = soak.faults
        _say(f"village: seed {seed}, {BOXES} boxes, {length_s / 60:g} minutes")

        async def whole() -> list[str]:
            await soak.live(length_s)
            verdict = Verdict(folder, troupe, valley, soak.origin, soak.boxes, soak.films)
            try:
                return await verdict.judge()
            finally:
                faults.extend(verdict.faults)

        table = asyncio.run(whole())
    except* (FarcastError, RuntimeError, OSError, subprocess.SubprocessError) as group:
        faults += [f"ended early: {error}" for error in _leaves(group)]
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        stack.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = time.process_time() + children.ru_utime + children.ru_stime
    _say(f"the village lived {time.monotonic() - began:.0f} s and took {cpu_s:.0f} s of CPU")
    return faults, table


def _simulated(seed: int) -> list[str]:
    """Live a week in virtual time; returns what did not hold."""
    began_s, week, faults = time.process_time(), Week(seed, boxes=BOXES), list[str]()
    week.run()
    days = range(TODAY, TODAY + week.days + DRAIN_DAYS)
    counted = week.treasury.counted(days, {film.digest: film for film in week.films})
    times = Counter((one.fact.tid, one.fact.seq) for one in counted)
    wrong = sum(times[key] != 1 for key in week.made.keys() | times.keys())
    if wrong:
        faults.append(f"a simulated week: {wrong} of {len(week.made)} pulses were not counted exactly once")
    if (ms := sum(one.ms for one in counted)) != (said := sum(home.signed_ms for home in week.homes)):
        faults.append(f"a simulated week: {ms} ms were counted, and {said} ms signed for")
    if week.unseen:
        faults.append(f"a simulated week: {week.unseen} times a box never had all of a film")
    verdicts, borrowed = week.treasury.verdicts, sum(home.borrowed for home in week.homes)
    _say(
        f"a simulated week: {len(week.boxes)} boxes, {len(week.films)} films all seen after "
        f"{week.over_s / DAY_S:.1f} days; {len(week.made)} pulses, {times.total()} counted, "
        f"{verdicts['duplicate']} came twice; {100 * week.lost / (week.lost + week.heard):.1f} % of "
        f"{week.lost + week.heard} packets lost, {borrowed} symbols borrowed; "
        f"{time.process_time() - began_s:.0f} s of CPU"
    )
    return faults


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found = list[Exception]()
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _until(what: str, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    deadline, trouble = time.monotonic() + timeout_s, ""
    while time.monotonic() < deadline:
        try:
            if await holds():
                return
        except FarcastError as error:
            trouble = f": {error}"
        await asyncio.sleep(POLL_S)
    raise LocalError(f"waited {timeout_s:.0f} s until {what}{trouble}", reason="soak_timeout")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
