"""A village's verdict: what lies on its disks when every pulse is home, as a table and as faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from farcast.node.demo.troupe import Troupe
from farcast.origin.pulses.admission import copies, open_frame
from farcast.origin.pulses.segments import read_segments

from .evidence import Key, acked, database_faults, signed, store_faults, stored, torn_blocks
from .valley import LOSS_PERCENT, Valley
from .villager import Film, Villager

PEAK_MIB = 150.0
"""A receiver's bound with generations of 8 MB."""
LOSS_TOLERANCE = 2.0
"""Of a percentage over some ten thousand packets."""
REVENUE_CENTS = 10_000


class Verdict:
    """``faults`` are sentences of what did not hold."""

    def __init__(
        self,
        folder: Path,
        troupe: Troupe,
        valley: Valley,
        origin: Villager,
        boxes: Sequence[Villager],
        films: Sequence[Film],
    ) -> None:
        self.faults: list[str] = []
        self._folder = folder
        self._troupe = troupe
        self._valley = valley
        self._origin = origin
        self._boxes = boxes
        self._films = films

    async def judge(self) -> list[str]:
        """Compare all that lies on the disks, settle, end everybody; returns the table."""
        home = self._origin.home
        every = set[Key]().union(*(signed(box.home) for box in self._boxes))
        log = stored(home)
        once = {key for key, times in log.times.items() if times == 1 and len(log.bodies[key]) == 1}
        self._expect(not every - once, f"{len(every - once)} pulses were not counted exactly once")
        self._expect(not log.times.keys() - every, "pulses are stored that nobody signed")
        counts = await self._origin.call("GET", "/api/origin/pulses")
        self._expect(counts["accepted"] == len(every), f"the origin accepted {counts['accepted']} pulses")
        for box in self._boxes:
            own = signed(box.home)
            self._expect(bool(own), f"{box.name} signed nothing")
            self._expect(acked(box.home, own) == own, f"{box.name} has not every ack")
            self._expect(box.peak_kib <= PEAK_MIB * 1024, f"{box.name} had {box.peak_kib / 1024:.0f} MiB")
            missed = [film.title for film in self._films if film.title not in box.played]
            self._expect(not missed, f"{box.name} never played {', '.join(missed)}")
        blocks = sum((box.blocks for box in self._boxes), self._origin.blocks)
        carried = _carried(home)
        self._expect(len(carried) > len(every) // 2, f"only {len(carried)} pulses came by a neighbour")
        for tier in ("satellite", "mesh"):
            self._expect(blocks[tier] > 0, f"no block came by {tier}")
        await self._settle(sum(log.delta_ms.values()), sum(map(bool, log.delta_ms.values())))
        table = self._table(len(every), log.copies.total(), len(carried))
        for villager in (*self._boxes, self._origin):
            self.faults += torn_blocks(villager.home)
            await villager.place.call(self._troupe.kill, villager.name)
            self.faults += store_faults(villager.home) + database_faults(villager.home)
        self.faults += [
            f"{path.name}: {line}"
            for path in sorted(self._folder.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()
            if line.startswith(("Traceback", "ERROR"))
        ]
        return table

    def _table(self, pulses: int, copies: int, carried: int) -> list[str]:
        rows = [
            "box     falls  plays  tries  pulses  blocks: cdn  mesh  satellite  packets lost  peak memory"
        ]
        for number, box in enumerate(self._boxes):
            air = self._valley.air(number)
            lost = 100 * air.lost / max(air.lost + air.heard, 1)
            self._expect(abs(lost - LOSS_PERCENT) < LOSS_TOLERANCE, f"{box.name} lost {lost:.1f} %")
            rows.append(
                f"{box.name}  {box.falls:5}  {box.plays:5}  {box.tries:5}  {len(signed(box.home)):6}  "
                f"{box.blocks['cdn']:11}  {box.blocks['mesh']:4}  {box.blocks['satellite']:9}  "
                f"{lost:10.1f} %  {box.peak_kib / 1024:7.0f} MiB"
            )
        rows.append(
            f"{len(self._films)} films; {pulses} pulses "
            f"signed, {copies} copies came, {carried} pulses by a neighbour"
        )
        return rows

    def _expect(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as an assertion
        if not holds:
            self.faults.append(otherwise)

    async def _settle(self, viewed_ms: int, pulses: int) -> None:
        """Settle the month so far; what the report says must be what the pulses say."""
        origin, at = self._origin, ("--home", str(self._origin.home))
        await origin.command("origin", "book", "revenue", str(REVENUE_CENTS), *at)
        now = datetime.now(UTC)
        month, as_of = f"{now:%Y-%m}", f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
        await origin.command("origin", "settle", "--month", month, "--as-of", as_of, *at)
        folder = (await origin.command("origin", "report", "--month", month, *at))["folder"]
        report = json.loads(await asyncio.to_thread(Path(folder, "report.json").read_text))
        viewing = report["viewing"]
        self._expect(not report["uncounted"], f"not counted in full: {report['uncounted']}")
        told = (viewing["pulses"], viewing["viewed_ms"])
        self._expect(told == (pulses, viewed_ms), f"settled {told}, but {pulses} pulses say {viewed_ms} ms")


def _carried(home: Path) -> set[Key]:
    """Return every pulse that came in the batch of a box that is not its signer's."""
    frames = [open_frame(payload) for payload in read_segments(home / "intake" / "seg")]
    return {(copy.pulse.tid, copy.pulse.seq) for one in frames if one.carrier for copy in copies(one)}
