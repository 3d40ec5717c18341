"""Pulses verified and durable per core: the real intake against a bare verify loop, in processor time.

Signed batches of 1,000 as a relay sends them, minutes of many viewers side by side, go through decode,
strict canonical check, deduplication, verification, append and ``fdatasync``, and come back as signed
acks. The peer is PyNaCl verifying each pulse's signature and nothing else, on messages made before.
``pulses_eager`` checks every signature at arrival. ``pulses_chained`` checks hash links then, and one
signature a session when it is sealed, spot checks between; it is measured against ``pulses_eager`` of
the same round, the seals' signatures counted in, making their records (both ways the same work) not:
``extra.record_us`` is that, each pulse's share. ``extra.minute_ratio`` is chained / eager where every
pulse of a batch is another viewer's.
Run alone: ``python -m farcast.tests.bench.pulses``; ``FARCAST_BENCH_ROUNDS`` sets the rounds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import nacl
from nacl import bindings
from prometheus_client import CollectorRegistry

from farcast.origin.pulses.intake import Intake
from farcast.protocol.codec import decode
from farcast.protocol.identity import Signed, domain
from farcast.protocol.ticket import DAY_MS
from farcast.tests.bench.figure import Peer, compared
from farcast.tests.unit.origin.mint import FIRST_DAY, INTAKE, OFFICE, RELAY, TICKET, Viewer, batch

FIGURES = ("pulses_eager", "pulses_chained")
GOALS = {"pulses_eager": 0.85, "pulses_chained": 10.0}
ROUNDS = 5
BEFORE, BEHIND = 3, 3
"""Chained intakes before and behind each eager one, which is ten times as long."""
VIEWERS, MINUTES, BATCH = 125, 120, 1_000
FILM = b"f" * 32
START_MS = (FIRST_DAY + 2) * DAY_MS + 3_600_000
NOW_MS = START_MS + 3 * 3_600_000


class Load(NamedTuple):
    """The same pulses twice: as batches, and as what a bare verify call takes."""

    pulses: int
    batches: list[bytes]
    bare: list[tuple[bytes, bytes]]


def run(only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure both figures unless ``only`` names others; greater ratios are better."""
    wanted = [name for name in FIGURES if not only or name in only]
    if not wanted:
        return []
    rounds = int(os.environ.get("FARCAST_BENCH_ROUNDS", ROUNDS))
    load, minute = _load(VIEWERS, MINUTES), _load(BATCH, 10)
    bare: list[float] = []
    eager: list[float] = []
    chained: list[float] = []
    minutes: list[float] = []
    record_us: list[float] = []
    with tempfile.TemporaryDirectory(prefix="farcast-bench-") as folder:
        _intake(load, Path(folder) / "warm", "chained")
        for index in range(rounds):
            passes = [_intake(load, Path(folder) / f"b{index}.{each}", "chained") for each in range(BEFORE)]
            bare.append(_bare(load))
            eager.append(_intake(load, Path(folder) / f"e{index}", "eager")[0])
            passes += [_intake(load, Path(folder) / f"c{index}.{each}", "chained") for each in range(BEHIND)]
            chained.append(len(passes) / sum(1 / speed for speed, _ in passes))
            record_us += [record for _, record in passes]
        for index in range(max(1, rounds // 2)):
            mine = _intake(minute, Path(folder) / f"mc{index}", "chained")[0]
            minutes.append(mine / _intake(minute, Path(folder) / f"me{index}", "eager")[0])
    found = {
        "pulses_eager": compared(
            "pulses_eager", "pulses/s", eager, bare, Peer("PyNaCl verify loop", nacl.__version__),
            greater_is_better=True, digits=0, extra={"batch": BATCH, "session": MINUTES},
        ),
        "pulses_chained": compared(
            "pulses_chained", "pulses/s", chained, eager, Peer("pulses_eager"),
            greater_is_better=True, digits=0,
            extra={
                "batch": BATCH, "session": MINUTES, "record_us": round(median(record_us), 2),
                "minute_ratio": round(median(minutes), 2),
            },
        ),
    }  # fmt: skip
    return [found[name] for name in wanted]


def _load(viewers: int, minutes: int) -> Load:
    crowd = [Viewer(number) for number in range(viewers)]
    pulses: list[bytes] = []
    owners: list[Viewer] = []
    for minute in range(minutes):
        for viewer in crowd:
            pulses.append(viewer.beat(FILM, START_MS - viewer.day * DAY_MS + minute * 60_000, 60_000))
            owners.append(viewer)
    batches: list[bytes] = []
    for start in range(0, len(pulses), BATCH):
        part = slice(start, start + BATCH)
        with_ = list(dict.fromkeys(map(id, owners[part])))
        named = {id(viewer): viewer for viewer in owners[part]}
        stamps = [START_MS + start * 60] * len(pulses[part])
        number = len(batches) + 1
        batches.append(batch(RELAY, [named[one] for one in with_], pulses[part], stamps, number))
    bare: list[tuple[bytes, bytes]] = []
    for data, viewer in zip(pulses, owners, strict=True):
        signed = decode(Signed, data)
        bare.append((signed.sig + domain("pulse") + signed.body, viewer.session.key))
    return Load(len(pulses), batches, bare)


def _bare(load: Load) -> float:
    began = time.process_time()
    for message, key in load.bare:
        bindings.crypto_sign_open(message, key)
    return load.pulses / (time.process_time() - began)


def _intake(load: Load, folder: Path, verify: str) -> tuple[float, float]:
    """Return pulses per second, and what writing the seal records took, in us per pulse."""
    intake = Intake(
        folder, OFFICE, lambda: [TICKET.key], INTAKE, lambda key: key == RELAY.key, CollectorRegistry(),
        verify="chained" if verify == "chained" else "eager",
    )  # fmt: skip
    began = time.process_time()
    for data in load.batches:
        intake.batch(data, NOW_MS)
    intake.prove(NOW_MS)
    taken_s = time.process_time() - began
    began = time.process_time()
    records = intake.seal(NOW_MS, every=True)
    record_us = (time.process_time() - began) * 1e6 / load.pulses
    counts = intake.counts()
    intake.close()
    if (counts.accepted, counts.rejected) != (load.pulses, {}) or not records:
        message = f"the intake counted {counts} of {load.pulses} pulses and wrote {records} records"
        raise RuntimeError(message)
    return load.pulses / taken_s, record_us


if __name__ == "__main__":
    json.dump(run(sys.argv[1:]), sys.stdout, indent=2)
