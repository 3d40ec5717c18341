"""An origin's month in a process that can be killed: pulses in, settled, reported, paid out.

Every time is an argument, so a month that was never disturbed and one that was killed a hundred
times have the same bytes in the end.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import NamedTuple

import duckdb  # loaded before any process is forked, so that little of its time is loading

from farcast.origin.money.ledger import Ledger
from farcast.origin.payout.order import HOUR_MS, LEASE_MS
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.statement import HEAD
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    MONTH,
    RELAY,
    Shelf,
    Viewer,
    batch,
    closing,
    open_intake,
    post,
    read,
)
from farcast.tests.wire.payhouse import PayHouse, call, check_bank, fates, mover

FATES = ("late", "twice", "500_after", "drop_after", "", "")
REVENUE_CENTS, COST_CENTS = 1_000_000, 12_345
VIEWERS, DAYS, MINUTES = 6, 4, 12
PAY_MS = CLOSE_MS + 5 * DAY_MS
JOIN_S = 60.0
assert duckdb.__name__
_FORKS = multiprocessing.get_context("fork")


log = logging.getLogger(__name__)


class Sending(NamedTuple):
    """One message to the intake: its bytes, whether it is a relay's batch, and when it arrives."""

    data: bytes
    batch: bool
    at_ms: int


class Ending(NamedTuple):
    """All that a month leaves behind."""

    report: Mapping[str, bytes]
    balances: Mapping[str, int]
    payments: Mapping[str, tuple[str, int, int, int]]


def shelf() -> Shelf:
    """Return two titles with three payees between them."""
    made = Shelf()
    made.add("one", {"ada": 6_000, "fay": 4_000})
    made.add("two", {"ada": 3_334, "ben": 3_333, "gil": 3_333})
    return made


def sendings(seed: int) -> list[Sending]:
    """Draw a month of pulses: posted, carried in a relay's batches, some twice, some nine days late."""
    rng, titles = Random(seed), [*shelf().manifests]
    made: list[Sending] = []
    number = 0
    for day in range(FIRST_DAY + 2, FIRST_DAY + 2 + DAYS):
        for person in range(1, VIEWERS + 1):
            viewer = Viewer(person, day)
            pulses = viewer.watch(rng.choice(titles), MINUTES, from_ms=rng.randrange(3_600_000, 60_000_000))
            half, late_ms = len(pulses) // 2, rng.choice((0, 0, 0, 9 * DAY_MS))
            for part in (pulses[:half], pulses[half:]):
                at_ms = day * DAY_MS + 70_000_000 + late_ms + rng.randrange(60_000)
                if rng.random() < 0.5:
                    made.append(Sending(post([viewer], part), batch=False, at_ms=at_ms))
                else:
                    number += 1
                    data = batch(RELAY, [viewer], part, [at_ms - 500] * len(part), number)
                    made.append(Sending(data, batch=True, at_ms=at_ms))
    made.sort(key=lambda one: one.at_ms)
    again = [
        one._replace(at_ms=one.at_ms - rng.choice((0, HOUR_MS))) for one in rng.sample(made, len(made) // 4)
    ]
    for one in again:  # a clock set back among them
        made.insert(
            rng.randrange(made.index(next(it for it in made if it.data == one.data)) + 1, len(made) + 1), one
        )
    return made


def month(folder: Path, url: str, seed: int, now_ms: int) -> None:
    """Live through the month from wherever it stands; ``now_ms`` is the moment of the payouts."""
    done = folder / "acked"  # what a sender has deleted because it was acked
    count = int(done.read_text() or 0) if done.exists() else 0
    intake = open_intake(folder)
    for number, one in enumerate(sendings(seed)):
        if number >= count:
            read((intake.batch if one.batch else intake.post)(one.data, one.at_ms))
            done.write_text(str(number + 1))
    intake.close()
    house = _house(folder, url, now_ms)
    house.ledger.book_revenue(REVENUE_CENTS, FIRST_MS + DAY_MS, b"revenue")
    house.ledger.book_cost(COST_CENTS, FIRST_MS + DAY_MS, b"cost")
    books = closing(folder, house.ledger, shelf())
    books.settle(MONTH, now_ms=CLOSE_MS, as_of_ms=None, dry_run=False)
    books.report(MONTH)
    house.pay()
    for order in house.open_orders():
        if order.method in ("sepa", "manual") and order.state == "sent":
            house.paymaster.decide(order.key, now_ms, paid=True)
    house.ledger.close()


def killed(folder: Path, url: str, seed: int, now_ms: int, after_s: float | None) -> bool:
    """Run the month in a process of its own and kill it after so long; False where it came to its end."""
    process = _FORKS.Process(target=month, args=(folder, url, seed, now_ms))
    process.start()
    process.join(JOIN_S if after_s is None else after_s)
    ended = not process.is_alive()
    process.kill()
    process.join()
    assert not ended or process.exitcode == 0, f"the month ended with {process.exitcode}"
    assert ended or after_s is not None, f"the month took more than {JOIN_S:.0f} s"
    process.close()
    return not ended


def finish(folder: Path, url: str, seed: int, now_ms: int) -> Ending:
    """Come to the end undisturbed, and return what is there then."""
    killed(folder, url, seed, now_ms, None)
    house = _house(folder, url, now_ms + LEASE_MS)
    call(url, "/_clock", {"ms": LEASE_MS})
    house.finish(mover(url))
    house.ledger.verify_chain()
    assert house.ledger.trial_balance() == 0
    check_bank(house)
    kept = {path.name: path.read_bytes() for path in (folder / "reports" / MONTH).iterdir()}
    left = [path.name for path in (folder / "reports").iterdir() if path.name != MONTH]
    assert not left, f"half-written reports stay: {left}"
    ending = Ending(kept, {k: v for k, v in house.ledger.balances().items() if v}, house.ended())
    house.ledger.close()
    return ending


def stands(folder: Path) -> str:
    """Say how far a month has come, read from its disk by somebody else."""
    pulses = folder / "intake" / "seg"
    frames = sum(1 for _ in read_segments(pulses)) if pulses.is_dir() else 0
    report = (folder / "reports" / MONTH / HEAD).is_file()
    settled, states = 0, ""
    if (folder / "ledger.db").is_file():
        copy = folder.with_suffix(".look")
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for path in folder.glob("ledger.db*"):
            shutil.copy(path, copy)
        ledger = Ledger(copy / "ledger.db", "EUR")
        settled = len(ledger.settlements())
        with ledger.transaction() as tx:
            if [*tx.execute("SELECT name FROM sqlite_master WHERE name = 'payout'", ())]:
                rows = tx.execute("SELECT state, count(*) FROM payout GROUP BY state ORDER BY state", ())
                states = ", ".join(f"{count} {state}" for state, count in rows)
        ledger.close()
        shutil.rmtree(copy)
    said = "settled" if settled else "not settled"
    return f"{frames} frames, {said}, {'a' if report else 'no'} report, payouts: {states or 'none'}"


def digest(ending: Ending) -> str:
    """Name an ending."""
    every = sha256()
    for name, data in sorted(ending.report.items()):
        every.update(name.encode() + b"\0" + data)
    every.update(repr((sorted(ending.balances.items()), sorted(ending.payments.values()))).encode())
    return every.hexdigest()[:16]


def _house(folder: Path, url: str, now_ms: int) -> PayHouse:
    return PayHouse(folder / "ledger.db", folder / "payouts", url, now_ms)


def lives(folder: Path, bank: str, rng: Random, kills: int) -> list[str]:
    """Live months until so many kills fell; returns a line about each kill."""
    lines: list[str] = []
    number = 0
    while len(lines) < kills:
        number += 1
        calm, home = folder / f"calm-{number}", folder / f"life-{number}"
        calm.mkdir()
        home.mkdir()
        call(bank, "/_reset", {})
        began_s = time.monotonic()
        expected = digest(finish(calm, bank, number, PAY_MS))
        whole_s = time.monotonic() - began_s
        call(bank, "/_reset", {})
        now_ms, fallen = PAY_MS, 0
        while len(lines) < kills and fallen < 8:
            fates(bank, *(rng.choice(FATES) for _ in range(2)))
            if not killed(home, bank, number, now_ms, rng.uniform(0, whole_s)):
                break
            fallen += 1
            lines.append(f"kill {len(lines) + 1}: {stands(home)}")
            log.info("%s", lines[-1])
            now_ms += HOUR_MS // 2
            call(bank, "/_clock", {"ms": HOUR_MS // 2})
        assert digest(finish(home, bank, number, now_ms)) == expected, lines[-fallen:]
    return lines
