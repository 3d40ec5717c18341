from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.money import viewing as sums
from farcast.origin.money import walk
from farcast.origin.money.credit import Credit, carry_in, credit
from farcast.origin.money.reckoning import Reckoning
from farcast.origin.money.steps import Scope
from farcast.origin.money.tally import Earlier, open_tally
from farcast.origin.money.titles import Titles
from farcast.origin.pulses.columns import Columns
from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.intake import Intake
from farcast.origin.pulses.segments import read_entries, read_segments
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.ports import TierName
from farcast.protocol.pulse import ACTIVE, RETURN, START, SWITCH, Served, Viewing
from farcast.protocol.rules import DAY_MS, HOUR_MS, Rules
from farcast.tests.unit.origin.mint import (
    CARRIER,
    FIRST_DAY,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    account,
    batch,
    open_intake,
    post,
)

SHELF = Shelf()
TITLES = [
    SHELF.add("film", {"ann": 10_000}),
    SHELF.add("clip", {"ann": 5_000, "bob": 5_000}, size_bytes=40_000_000),
    SHELF.add("live", {"cat": 10_000}),
]
UNKNOWN = bytes(32)
DAYS = range(FIRST_DAY, FIRST_DAY + 30)
BEFORE = range(FIRST_DAY - 31, FIRST_DAY)
MINUTE = 60_000
SECOND_RELAY = Identity(b"\x41" * 32)


class World:
    """A random month: honest evenings, and with some luck everything that people try."""

    def __init__(self, random: Random, hostile: float) -> None:
        self.random = random
        self.hostile = hostile
        self.viewers: list[Viewer] = []
        self.pulses: list[tuple[Viewer, bytes, int]] = []

    def odd(self) -> bool:
        """Say whether something is tried now."""
        return self.random.random() < self.hostile

    def watch(self, number: int, device: int, day: int, salt: int = 0) -> None:
        """Sign a day of one device, in one to three sessions."""
        random, viewer = self.random, Viewer(number, day, device=device, salt=salt)
        self.viewers.append(viewer)
        at = random.choice([0, 10 * HOUR_MS, 23 * HOUR_MS + 30 * MINUTE, DAY_MS - 3 * MINUTE, 20 * HOUR_MS])
        at += random.randrange(0, 40 * MINUTE)
        for _ in range(random.choice([1, 1, 2, 3])):
            title = random.choice(TITLES)
            state = random.choice([START, START, RETURN, ACTIVE])
            delta = 0 if random.random() < 0.8 else random.randrange(121_000)
            for _ in range(random.choice([1, 3, 8, 25, 70])):
                self.beat(
                    viewer, title if not self.odd() else random.choice([*TITLES, UNKNOWN]), at, delta, state
                )
                step = (
                    MINUTE
                    if random.random() < 0.93
                    else random.choice([5, 100_000, 300_000, 300_001, 400_000])
                )
                delta = min(step, MINUTE) if random.random() < 0.9 else random.randrange(121_000)
                state = random.choice([ACTIVE] * 12 + [SWITCH, RETURN])
                at += step if not self.odd() else random.randrange(-2 * HOUR_MS, HOUR_MS)
            at += random.choice([2 * MINUTE, HOUR_MS])

    def beat(self, viewer: Viewer, title: bytes, at_ms: int, delta_ms: int, state: int) -> None:
        """Sign one pulse, and decide when it will be received."""
        random, signer = self.random, viewer.signer
        if self.odd():
            signer.cum_ms = max(0, signer.cum_ms + random.randrange(-200_000, 200_000))
        if random.random() < 0.05:
            signer.seq += random.randrange(3)
        served = [
            Served(
                random.choice([TierName.RELAY, TierName.RELAY, TierName.CDN]),
                relay.key[:16],
                random.randrange(9_000),
            )
            for relay in (RELAY, SECOND_RELAY, CARRIER)
            if random.random() < 0.6
        ]
        viewing = Viewing(state, title, 0, 0, served, bytes(16))
        old = signer.seq, signer.cum_ms, signer.prev
        try:
            pulse = signer.sign(viewer.day * DAY_MS + at_ms, delta_ms, 0, viewing)
        except RemoteError:
            return
        late = random.choice([0, 0, 3_000, 90_000, 119_000, 121_000, 3 * HOUR_MS, 2 * DAY_MS])
        late = late if not self.odd() else random.randrange(-150_000, 3 * DAY_MS)
        self.pulses.append((viewer, pulse, viewer.day * DAY_MS + at_ms + late))
        if self.odd():  # a second body under the same number, and perhaps the chain goes on from it
            now = signer.seq, signer.cum_ms, signer.prev
            signer.seq, signer.cum_ms, signer.prev = old
            twin = signer.sign(viewer.day * DAY_MS + at_ms + 7, delta_ms, 0, viewing)
            self.pulses.append((viewer, twin, viewer.day * DAY_MS + at_ms + late + random.randrange(HOUR_MS)))
            if random.random() < 0.5:
                signer.seq, signer.cum_ms, signer.prev = now

    def deliver(self, intake: Intake) -> None:
        """Post everything in some order, repeated and through several hands, by a clock that only rises."""
        random = self.random
        items = sorted(self.pulses, key=lambda item: item[2])
        items += [
            (v, p, at + random.randrange(HOUR_MS)) for v, p, at in random.sample(items, len(items) // 5)
        ]
        items.sort(key=lambda item: item[2] + random.randrange(20 * MINUTE))
        now_ms = 0
        while items:
            part = items[: random.choice([1, 7, 60])]
            items = items[len(part) :]
            now_ms = max(now_ms, *(at for _, _, at in part))
            viewers = list({viewer.tid: viewer for viewer, _, _ in part}.values())
            pulses, stamps = [pulse for _, pulse, _ in part], [at for _, _, at in part]
            if random.random() < 0.3:
                intake.post(post(viewers, pulses), now_ms)
            else:
                carrier = random.choice([RELAY, RELAY, CARRIER])
                intake.batch(batch(carrier, viewers, pulses, stamps, random.randrange(10**6)), now_ms)
            for viewer, pulse, _ in part:
                if self.odd() and intake.acks_for([viewer.tid], now_ms):
                    intake.condemn(pulse, now_ms)  # its witness is said to be false


def rules_of(random: Random) -> Rules:
    return Rules(
        v=random.choice([1, 2, 3, 3]),
        session_cap_ms=random.choice([6 * HOUR_MS, 40 * MINUTE, 5 * MINUTE]),
        day_cap_ms=random.choice([16 * HOUR_MS, HOUR_MS, 20 * MINUTE]),
        slack_ms=random.choice([2_000, 0, 90_000]),
        gap_ms=random.choice([300_000, 90_000]),
    )


def world(random: Random, folder: Path, hostile: float) -> Intake:
    made = World(random, hostile)
    for number in range(1, random.choice([3, 6])):
        for day in sorted(random.sample(range(FIRST_DAY - 2, FIRST_DAY + 3), random.choice([1, 3]))):
            for device in range(random.choice([1, 1, 2])):
                for salt in range(random.choice([1, 1, 1, 2])):
                    made.watch(number, device, day, salt)
    intake = open_intake(folder, verify=random.choice(["eager", "chained"]))
    made.deliver(intake)
    return intake


def plainly(segments: Path, size: int, before: Earlier, then: int, rules: Rules) -> sums.Viewing:
    """Count a month in the plainest way: in memory, every account by ``credit``, summed at once."""
    evidence = Evidence(read_segments(segments), OFFICE, range(BEFORE.start - 1, DAYS.stop))
    titles = SHELF.manifests

    def credits_of(days: range, at: int, by: Rules) -> list[Credit]:
        facts = evidence.facts(at, range(days.start - 1, days.stop), titles.get)
        return [item for item in credit(facts, by) if item.fact.day in days]

    old, new = (credits_of(before.days, at, before.rules) for at in (then, size))
    late, settled = ([item.fact for item in items] for items in (new, old))
    return sums.sum_up(credits_of(DAYS, size, rules), carry_in(old, new), late, settled, titles, rules)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.002, 0.05]))
@settings(max_examples=15, deadline=None)
def test_columns_and_the_plain_way_agree_on_every_month(seed: int, hostile: float) -> None:
    random = Random(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        world(random, folder, hostile).close()
        segments = folder / "intake" / "seg"
        rules, old_rules = rules_of(random), rules_of(random)
        titles = Titles(SHELF.manifests.get)
        reach = range(BEFORE.start - 1, DAYS.stop)
        raw = Reckoning(
            lambda: read_entries(segments), OFFICE, reach, titles, pass_bytes=random.choice([None, 20_000])
        )
        total = raw.size_at(2**60)
        size = random.choice([total, total, random.randrange(total + 1)])
        then = random.randrange(size + 1)
        earlier = [Earlier(BEFORE, old_rules)]
        columns = Columns(segments, folder / "columns", OFFICE, SHELF.manifests.get)
        passes, threads = random.choice([(1, 1), (3, 2), (None, 2)])
        with open_tally(columns, titles, passes=passes, threads=threads) as tally:
            found = tally.viewing(DAYS, size, earlier, then, rules)
            assert found == raw.viewing(DAYS, size, earlier, then, rules)
            assert found == plainly(segments, size, earlier[0], then, rules)
            assert tally.months(size) == raw.months(size)
            assert tally.leaves(size) == raw.leaves(size)
            assert tally.stored(size, reach) == raw.stored(size, reach)
            assert tally.size_at((FIRST_DAY + 1) * DAY_MS) == raw.size_at((FIRST_DAY + 1) * DAY_MS)


def test_an_hour_that_only_tells_of_other_hours_pulses_is_read(tmp_path: Path) -> None:
    """A start signed wrongly, an hour before what leads to it; a witness found false the day after."""
    late, false = Viewer(1), Viewer(2)
    (start, goes_on), watched = late.watch(TITLES[0], 1), false.watch(TITLES[0], 3)
    unsigned = encode(Signed(decode(Signed, start).body, bytes(64)))
    noon = late.day * DAY_MS + 12 * HOUR_MS
    intake = open_intake(tmp_path)
    intake.batch(batch(RELAY, [late], [unsigned], [noon]), noon)
    intake.post(post([late, false], [goes_on, *watched]), noon + HOUR_MS)
    intake.condemn(watched[-1], noon + DAY_MS)
    intake.close()
    segments, titles = tmp_path / "intake" / "seg", Titles(SHELF.manifests.get)
    raw = Reckoning(lambda: read_entries(segments), OFFICE, range(DAYS.start - 1, DAYS.stop), titles)
    with open_tally(Columns(segments, tmp_path / "columns", OFFICE, SHELF.manifests.get), titles) as tally:
        found = tally.viewing(DAYS, 3, [], 0, Rules())
        assert found == raw.viewing(DAYS, 3, [], 0, Rules())
    assert {one: sum_.ms for one, sum_ in found.days[late.day].items()} == {
        account(1): MINUTE, account(2): 2 * MINUTE
    }  # fmt: skip


def test_bucket_and_thread_counts_change_nothing(tmp_path: Path) -> None:
    world(Random(7), tmp_path, 0.01).close()
    columns = Columns(tmp_path / "intake" / "seg", tmp_path / "columns", OFFICE, SHELF.manifests.get)
    titles = Titles(SHELF.manifests.get)
    found: list[object] = []
    for passes, threads in ((1, 1), (2, 2), (5, 4), (16, 1)):
        with open_tally(columns, titles, passes=passes, threads=threads) as tally:
            found.append(tally.viewing(DAYS, 10**9, [], 0, Rules()))
    assert all(item == found[0] for item in found)


def test_days_that_are_over_are_read_from_their_rollups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes to a ticket on another day, be it a copy that was here sooner, undoes its sums alone."""
    intake = open_intake(tmp_path)
    viewers = [Viewer(number) for number in range(1, 5)]
    day_ms = viewers[0].day * DAY_MS
    for viewer in viewers:
        viewer.watch(TITLES[0], 20, from_ms=20 * HOUR_MS)
    alone, again, goes_on, _ = viewers
    intake.post(post([alone, again], [*alone.pulses, *again.pulses]), day_ms + 21 * HOUR_MS)
    intake.post(post([goes_on], goes_on.pulses[:9]), day_ms + 22 * HOUR_MS)
    morning = day_ms + DAY_MS + HOUR_MS
    stamps = [day_ms + 20 * HOUR_MS + minute * MINUTE + 5_000 for minute in range(len(again.pulses))]
    intake.batch(batch(RELAY, [again], again.pulses, stamps), morning)
    intake.post(post([goes_on], goes_on.pulses[9:]), morning)
    for number in range(4, 6):  # days that make the ones before them old
        later = Viewer(9, FIRST_DAY + number)
        later.watch(TITLES[1], 3, from_ms=HOUR_MS)
        intake.post(post([later], later.pulses), (FIRST_DAY + number) * DAY_MS + 3 * HOUR_MS)
    intake.close()
    segments, titles = tmp_path / "intake" / "seg", Titles(SHELF.manifests.get)
    raw = Reckoning(lambda: read_entries(segments), OFFICE, range(DAYS.start - 1, DAYS.stop), titles)
    columns = Columns(segments, tmp_path / "columns", OFFICE, SHELF.manifests.get)
    walked: list[bool] = []

    def noted(scope: Scope, rules: Rules, *, any_mixed: bool) -> str:
        walked.append(any_mixed)
        return walk_rolled(scope, rules, any_mixed=any_mixed)

    walk_rolled = walk.walk_rolled
    monkeypatch.setattr(walk, "walk_rolled", noted)
    total = raw.size_at(2**60)
    for rules in (Rules(), Rules(gap_ms=90_000)):
        for size in range(total, 0, -1):
            with open_tally(columns, titles) as tally:
                assert tally.viewing(DAYS, size, [], 0, rules) == raw.viewing(DAYS, size, [], 0, rules)
    # asked of ever less of the log: until the first day is alone, and no more once it is not whole
    assert walked == ([True] * 6 + [False] * 2) * 2
    assert total == 10
    made = sorted(path.name for path in (tmp_path / "columns").glob("*/rollup-*"))
    assert made == ["rollup-300000-120000.parquet"] * 3 + ["rollup-90000-120000.parquet"] * 3


@pytest.mark.parametrize("hostile", [0.0])
def test_honest_evenings_are_plain(tmp_path: Path, hostile: float) -> None:
    """Nothing of an ordinary month reaches the slow way: it would be no good if all were hard."""
    intake = open_intake(tmp_path)
    for number in range(1, 5):
        for day in range(3):
            viewer = Viewer(number, FIRST_DAY + day)
            viewer.watch(TITLES[0], 30, from_ms=23 * HOUR_MS + 29 * MINUTE if day == 0 else 0)
            intake.post(post([viewer], viewer.pulses), (FIRST_DAY + day + 1) * DAY_MS)
    intake.close()
    columns = Columns(tmp_path / "intake" / "seg", tmp_path / "columns", OFFICE, SHELF.manifests.get)
    with open_tally(columns, Titles(SHELF.manifests.get)) as tally:
        viewing = tally.viewing(DAYS, 10**9, [], 0, Rules())
        assert tally.slow() == (0, 0)
    watched_ms = sum(sum(accounts.values()) for accounts in viewing.ms.values())
    assert watched_ms == 4 * 3 * 30 * MINUTE * (1 - int(hostile))
    assert viewing.cut == {}
