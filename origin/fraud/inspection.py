"""The inspection: a month's report, written and read by the real verifier beside the acks people kept."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from ...node.verify import verify
from ...protocol.identity import Identity
from ..money.report import Report, write_report
from .month import Month
from .world import World

_SETTLEMENT = Identity(bytes(32))


def refused(world: World, month: Month) -> bool:
    """Say whether anybody with the acks finds the report false; blocks on a temporary folder."""
    report = Report(month.outcome.statement, month.outcome.lines, b"".join(month.leaves), month.tickets)
    with TemporaryDirectory(prefix="farcast-simulate-") as folder:
        place = write_report(Path(folder), report, _SETTLEMENT)
        verdict = verify(place, [_SETTLEMENT.key], acks=world.acks, intake_keys=[world.intake.key])
    return not verdict.ok
