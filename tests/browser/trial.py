"""One case: a real player on a real node, a fault on its way, and what must hold all the same."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple, cast

from farcast.tests.browser.desktop import PROGRAMS, desktop
from farcast.tests.browser.house import House
from farcast.tests.browser.line import Fault
from farcast.tests.browser.matrix import LOST, Case, Loss
from farcast.tests.browser.plain import numbered, plain_server
from farcast.tests.browser.screen import MASTER, SCREENS, Screen, missing, needs_dash, screen
from farcast.tests.browser.seen import Moment, Player, Seen
from farcast.tests.browser.tap import Asked

PLAYED_S, AHEAD_S, READY_TIMEOUT_S = 1.0, 4.0, 25.0
"""A fault comes once so much was played and so much is buffered."""
WATCH_S, FLAP_WATCH_S = 8.0, 12.0
"""How long a case goes on after its fault; one that comes and goes needs two rounds to be met for sure."""
LULL_S, LULL_TIMEOUT_S = 4.0, 8.0
"""Chromium's own player asks for six seconds at once, as often as a flapping box comes back."""
SLACK_S = {"vlc": 2.0}
"""How far from the clock a played stretch may be; VLC tells its place in steps of up to a second."""
AIR_S = 4.0
"""How long the carousel takes for the film."""
SERVED_S = 0.4
LATE_S = 0.2
"""A machine that wakes its programs so late is no judge of 400 ms."""
WASTE_PERCENT, WASTE_BYTES = 3, 4 << 20
OUTAGE_S, RESUME_S = 14.0, 6.0
SEGMENT_S = 2.0
STILL_S = 4.0
"""A picture that has not moved for so long has come as far as it comes."""
STEP_S = 0.1
WEB_TIERS = ("cdn", "relay", "mesh")
SURVIVORS = {Loss.CDN: ("relay", "mesh"), Loss.WAN: ("mesh",), Loss.ALL_BUT_SATELLITE: ("satellite",)}


class Outcome(NamedTuple):
    """How one case went: its figures, and each promise that was not kept as a sentence."""

    case: str
    figures: str
    broken: list[str]
    startup_ms: int | None = None
    late_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.case:<42} {'; '.join(self.broken) or 'held'}  |  {self.figures}"


def why_not(player: str, house: House) -> str:
    """Return why a player cannot be tried here, empty where it can."""
    program = PROGRAMS.get(player, "chromium")
    if shutil.which(program) is None:
        packages = {"vlc": "vlc-bin vlc-plugin-base"}.get(program, program)
        return f"{program} is not installed: apt-get install {packages}"
    if needs_dash(player) and not house.has_dash():
        return "the film has no DASH manifest"
    return missing(player) if player in SCREENS else ""


@asynccontextmanager
async def opened(player: str) -> AsyncGenerator[Player]:
    """Lend a player by its name; raises ``AssertionError`` where its program is not installed."""
    program = shutil.which(PROGRAMS.get(player, "chromium"))
    assert program is not None, player
    if player in PROGRAMS:
        async with desktop(program, player) as lent:
            yield lent
    else:
        async with screen(program, player) as shown:
            yield shown


async def attempt(house: House, case: Case, picture: Path | None = None) -> Outcome:
    """Try one case; where a machine without time for it broke a promise, once more, and that is said."""
    return await _tried(str(case), lambda: Trial(house, case.player).case(case, picture))


async def come_back(house: House, player: str) -> Outcome:
    """Take every tier from a player and bring them back; as ``attempt``."""
    return await _tried(f"{player} all tiers gone and back", lambda: Trial(house, player).comeback())


async def _tried(what: str, trial: Callable[[], Awaitable[Outcome]]) -> Outcome:
    first = await _outcome(what, trial)
    if not first.broken or first.late_s < LATE_S:
        return first
    second = await _outcome(what, trial)
    why = f"a second try: the machine was {first.late_s * 1000:.0f} ms late"
    return second._replace(figures=f"{second.figures} ({why})")


async def _outcome(what: str, trial: Callable[[], Awaitable[Outcome]]) -> Outcome:
    try:
        return await trial()
    except Exception as error:  # noqa: BLE001 - one case that ends early must not end the others
        why: Exception = error
        while isinstance(why, ExceptionGroup):
            why = cast("ExceptionGroup[Exception]", why).exceptions[0]
        return Outcome(what, "", [f"ended early: {type(why).__name__}: {why}"])


class Trial:
    """Plays the film from its beginning on a node that holds nothing yet; one trial, one playback."""

    def __init__(self, house: House, player: str) -> None:
        self.house, self.bay = house, house.bay
        self.player_name = player
        self._sent_before = 0

    @property
    def asked(self) -> list[Asked]:
        """What the player asked the gateway for, until now."""
        return self.bay.tap.asked

    async def case(self, case: Case, picture: Path | None = None) -> Outcome:
        """Play, let ``case`` happen, watch on, and judge; a picture of the page is saved, if it is one."""
        satellite = case.loss is Loss.ALL_BUT_SATELLITE
        async with self.playing(on_air=satellite) as player:
            moment = await self.ready(player, all_held=satellite)
            if case.fault is Fault.FLAP and case.player == "chromium":
                moment = await self._lull(player)
            before = await asyncio.to_thread(self.house.blocks)
            at_s, self.bay.late_s = time.monotonic(), 0.0
            await asyncio.to_thread(self.bay.switch, LOST[case.loss], case.fault)
            await asyncio.sleep(_watch_s(case))
            end, seen, end_s = await player.now(), await player.seen(), time.monotonic()
            if picture is not None and isinstance(player, Screen):
                await player.tab.look("light", picture, width=640, height=360)
            after = await asyncio.to_thread(self.house.blocks)
            return await asyncio.to_thread(
                self._judge, case, moment, end, seen, at_s, end_s, _brought(before, after, case.loss)
            )

    async def comeback(self) -> Outcome:
        """Take every tier away for longer than the buffer lasts, bring them back, and judge."""
        async with self.playing() as player:
            moment = await self.ready(player)
            self.bay.late_s = 0.0
            await asyncio.to_thread(self.bay.switch, self.bay.lines, Fault.HANG)
            await asyncio.sleep(OUTAGE_S)
            dry, held_s, held = await player.now(), self._delivered_s(), self._delivered()
            await asyncio.to_thread(self.bay.restore)
            back_s, resumed = time.monotonic(), dry
            while resumed.position_s < dry.position_s + 1 and time.monotonic() < back_s + 2 * RESUME_S:
                await asyncio.sleep(STEP_S)
                resumed = await player.now()
            took_s = time.monotonic() - back_s - 1  # a second of it was played
            seen = await player.seen()
            broken, yardstick = self._unverified(), ""
            # one that stops before the end of what it was given does so with any server, or it is our fault
            if dry.position_s < min(held_s, moment.position_s + OUTAGE_S) - 1:
                plain_s = await self._plainly(held)
                yardstick = f", with a plain server at {plain_s:.1f} s"
                if dry.position_s < min(plain_s, moment.position_s + OUTAGE_S) - 1:
                    broken.append(
                        f"stopped at {dry.position_s:.1f} s, but {held_s:.1f} s were there{yardstick}"
                    )
            if resumed.position_s < dry.position_s + 1:
                broken.append(f"did not go on within {2 * RESUME_S:.0f} s, errors {seen.errors}")
            elif took_s > RESUME_S + self.bay.late_s:
                broken.append(f"went on only after {took_s:.1f} s")
            figures = f"stopped at {dry.position_s:.1f} of {held_s:.1f} s held{yardstick}"
            figures += f", went on {took_s:.1f} s later"
            return Outcome(
                f"{self.player_name} all tiers gone and back",
                figures,
                broken,
                seen.startup_ms,
                self.bay.late_s,
            )

    async def start(self) -> int:
        """Play until the picture moves; returns after how many milliseconds it did."""
        async with self.playing() as player:
            deadline = time.monotonic() + READY_TIMEOUT_S
            while True:
                seen = await player.seen()
                if seen.startup_ms is not None:
                    return seen.startup_ms
                assert time.monotonic() < deadline, f"{self.player_name} showed nothing, errors {seen.errors}"
                await asyncio.sleep(STEP_S)

    @asynccontextmanager
    async def playing(self, *, on_air: bool = False) -> AsyncGenerator[Player]:
        """Lend a player that has just begun, all being well; afterwards all is well again."""
        house, bay = self.house, self.bay
        await asyncio.to_thread(bay.restore)
        starting = asyncio.get_running_loop().create_task(asyncio.to_thread(house.new_node))
        try:
            async with opened(self.player_name) as player:
                await starting
                self._sent_before = self._sent_bytes()
                await asyncio.to_thread(bay.point, house.door)
                if on_air:
                    await asyncio.to_thread(house.on_air, AIR_S)
                path = house.gateway.partition(str(house.door.port))[2]
                await player.play(f"http://127.0.0.1:{bay.tap.port}{path}/watch/{house.title}/{MASTER}")
                yield player
        finally:
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.to_thread(bay.restore)
            if on_air:
                await asyncio.to_thread(house.off_air)

    async def ready(self, player: Player, *, all_held: bool = False) -> Moment:
        """Wait until the film plays with enough in the buffer, and is held where it comes from above."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            moment = await player.now()
            if not moment.ahead_s:
                moment = moment._replace(ahead_s=self._delivered_s() - moment.position_s)
            if moment.started and moment.position_s >= PLAYED_S and moment.ahead_s >= AHEAD_S:
                held = not all_held or await asyncio.to_thread(self.house.held_percent) == 100
                if held:
                    return moment
            seen = await player.seen()
            assert time.monotonic() < deadline, f"{self.player_name} is at {moment}, errors {seen.errors}"
            await asyncio.sleep(STEP_S)

    async def _lull(self, player: Player) -> Moment:
        """Wait until the player has asked for nothing for a while, and will soon."""
        deadline = time.monotonic() + LULL_TIMEOUT_S
        while time.monotonic() < deadline:
            if time.monotonic() - max(one.at_s for one in list(self.asked)) > LULL_S:
                break
            await asyncio.sleep(STEP_S)
        return await player.now()

    def _delivered(self) -> dict[str, int]:
        """Return how many segments from the first of pictures and sound were given to the player whole."""
        names = {one.name(self.house.title) for one in self.asked if one.is_media and one.done_at_s}
        numbers: dict[str, set[int]] = {"v": set()}
        for track, number in filter(None, map(numbered, names)):
            numbers.setdefault(track, set()).add(number)
        return {track: next(n for n in count() if n not in some) for track, some in numbers.items()}

    def _delivered_s(self) -> float:
        """Return up to where in the film its pictures and its sound were given to the player whole."""
        return SEGMENT_S * min(self._delivered().values())

    async def _plainly(self, held: dict[str, int]) -> float:
        """Return how far the same player comes with a plain server that has so much and then hangs."""
        with plain_server(self.house.published_folder, held) as url:
            async with opened(self.player_name) as player:
                await player.play(f"{url}/{MASTER}")
                place, moved_s = 0.0, time.monotonic()
                deadline = moved_s + READY_TIMEOUT_S + OUTAGE_S
                while time.monotonic() < min(deadline, moved_s + (STILL_S if place else READY_TIMEOUT_S)):
                    await asyncio.sleep(STEP_S)
                    moment = await player.now()
                    if moment.position_s != place:
                        place, moved_s = moment.position_s, time.monotonic()
                return place

    def _sent_bytes(self) -> int:
        return sum(line.sent_bytes for name, line in self.bay.lines.items() if name != "origin")

    # -- what must hold

    def _judge(
        self, case: Case, at: Moment, end: Moment, seen: Seen, at_s: float, end_s: float, brought: int
    ) -> Outcome:
        late_s = self.bay.late_s
        asked = [one for one in list(self.asked) if one.is_media and at_s <= one.at_s < end_s - SERVED_S]
        waited_s = max((one.waited_s(end_s) for one in asked), default=0.0)
        wasted, twice = self.house.hedged_bytes(), self._twice_bytes()
        allowed = max(WASTE_BYTES, self.house.film_facts()["bytes"] * WASTE_PERCENT // 100)
        broken = self._unverified()
        if seen.stall_ms:
            broken.append(f"stalled {seen.stall_ms} ms: {[gap for gap in seen.gaps if gap.is_stall]}")
        played_s, watched_s = end.position_s - at.position_s, _watch_s(case)
        if played_s < watched_s - SLACK_S.get(case.player, 1.0) - seen.starved_ms / 1000:
            broken.append(f"played {played_s:.1f} of {watched_s:.0f} s")
        if not asked:
            broken.append("nothing was asked for after the fault: this proves nothing")
        if waited_s > SERVED_S + late_s:
            slow = max(asked, key=lambda one: one.waited_s(end_s))
            broken.append(f"{slow.name(self.house.title)} came only after {waited_s * 1000:.0f} ms")
        if not brought:
            broken.append("no tier stood in for the lost: this proves nothing")
        refused = case.fault is Fault.CORRUPT  # what is thrown away for its hash is no hedging
        if wasted > allowed or (twice > allowed and not refused):
            broken.append(f"{wasted} bytes hedged, {twice} sent twice, {allowed} allowed")
        if [word for word in seen.errors if "fatal" in word or "ended" in word]:
            broken.append(f"errors {seen.errors}")
        figures = (
            f"buffer {at.ahead_s:.1f} s, stall {seen.stall_ms} ms, served in {waited_s * 1000:.0f} ms "
            f"({len(asked)} asked, {brought} blocks stood in), hedged {wasted} B, twice {twice} B, "
            f"start {seen.startup_ms} ms, machine {late_s * 1000:.0f} ms late, starved {seen.starved_ms} ms"
        )
        return Outcome(str(case), figures, broken, seen.startup_ms, late_s)

    def _unverified(self) -> list[str]:
        """Compare, by hash, every byte of the title that the player got with what was published."""
        given = [
            (one, name) for one in list(self.asked) if one.size_bytes and (name := one.name(self.house.title))
        ]
        wrong = [name for one, name in given if not one.is_published(self.house.published_folder / name)]
        if wrong:
            return [f"bytes that were never published: {', '.join(sorted(set(wrong)))}"]
        return [] if any(one.is_media for one, _ in given) else ["the player got nothing of the film"]

    def _twice_bytes(self) -> int:
        """Return what boxes sent beyond the blocks that the node kept of it; other boxes' talk is in it."""
        kept = sum(int(tier["bytes"]) for tier in self.house.status()["tiers"] if tier["name"] in WEB_TIERS)
        return max(0, self._sent_bytes() - self._sent_before - kept)


def _watch_s(case: Case) -> float:
    return FLAP_WATCH_S if case.fault is Fault.FLAP else WATCH_S


def _brought(before: dict[str, int], after: dict[str, int], loss: Loss) -> int:
    """Count the blocks that the surviving tiers brought: from the sky also those that came just before."""
    since = {} if loss is Loss.ALL_BUT_SATELLITE else before
    return sum(after[name] - since.get(name, 0) for name in SURVIVORS[loss])
