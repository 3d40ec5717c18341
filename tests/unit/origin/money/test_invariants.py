from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.origin.fraud.audience import VILLAGE, sit
from farcast.origin.fraud.dice import Dice
from farcast.origin.fraud.gate import Gate
from farcast.origin.fraud.world import BEGIN_DAY, FIRST_DAY, World
from farcast.origin.money.credit import Fact, credit
from farcast.origin.money.settlement import Books, Log, Outcome, settle
from farcast.origin.money.viewing import sum_up
from farcast.origin.pulses.evidence import Evidence
from farcast.protocol.manifest import Manifest, Payee, Window
from farcast.protocol.pulse import ACTIVE, START
from farcast.protocol.rules import DAY_MS, Rules

RULES = Rules()
LOG = Log(1, bytes(32), bytes(32))
MINUTE = 60_000


def title(number: int, publisher: int, payees: dict[str, int]) -> tuple[bytes, Manifest]:
    digest = bytes([number]) * 32
    return digest, Manifest(
        1, f"t{number}", 1, bytes([publisher]) * 32, "t", "", "en", MINUTE, b"", 10**9, [], [],
        Window(0, 0), [], [Payee(name, points) for name, points in payees.items()], "open", None, 0, b"",
    )  # fmt: skip


TITLES = dict(
    [
        title(1, 1, {"ada": 10_000}),
        title(2, 1, {"ada": 3_333, "bo": 6_667}),
        title(3, 2, {"bo": 1, "cy": 9_998, "di": 1}),
        title(4, 2, {"di": 10_000}),
    ]
)
Evening = tuple[int, int, int, int, int]
EVENINGS = st.lists(
    st.tuples(
        st.integers(1, 5), st.integers(0, 2), st.integers(0, 20), st.integers(0, 3), st.integers(1, 12)
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item[:3],
)
"""Account, device, day, title and minutes."""


def facts_of(evenings: list[Evening], rng: Random) -> list[Fact]:
    facts: list[Fact] = []
    for account, device, day, number, minutes in evenings:
        start_ms = (FIRST_DAY + day) * DAY_MS + rng.randrange(0, 20 * 60) * MINUTE
        tid = bytes([account, device, day]).ljust(16, b"t")
        for seq in range(1, minutes + 2):
            at_ms = start_ms + (seq - 1) * MINUTE
            facts.append(
                Fact(
                    bytes([account]) * 16, device, tid, FIRST_DAY + day, seq, b"%b%d" % (tid, seq), at_ms,
                    at_ms + rng.choice((200, 90_000, DAY_MS)), (seq - 1) * MINUTE, MINUTE if seq > 1 else 0,
                    ACTIVE if seq > 1 else START, list(TITLES)[number], (), "",
                )
            )  # fmt: skip
    return facts


def settled(facts: list[Fact], money: Books, rules: Rules = RULES) -> Outcome:
    viewing = sum_up(credit(facts, rules), [], [], [], TITLES, rules)
    return settle("2027-03", 0, viewing, TITLES, money, {}, LOG, rules)


def books(cents: int, costs: int = 0, payers: dict[bytes, int] | None = None) -> Books:
    return Books(cents, costs, payers or {}, 0, bytes(32))


@given(EVENINGS, st.integers(0, 10**7), st.randoms(use_true_random=False))
def test_order_does_not_change_the_digest(evenings: list[Evening], cents: int, rng: Random) -> None:
    facts = facts_of(evenings, rng)
    shuffled = rng.sample(facts, len(facts))
    assert settled(facts, books(cents)).digest == settled(shuffled, books(cents)).digest


@given(EVENINGS, st.integers(0, 10**9), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_each_level_is_within_a_cent_of_its_exact_share_and_all_sum_to_the_pool(
    evenings: list[Evening], cents: int, costs: int, rng: Random
) -> None:
    outcome = settled(facts_of(evenings, rng), books(cents, costs))
    statement = outcome.statement
    pool = statement.pool_cents
    assert pool == statement.paid_cents + statement.held_cents + statement.carried_cents
    assert pool == max(0, cents - costs - statement.reserve_cents)
    platforms: dict[bytes, list[int]] = defaultdict(lambda: [0, 0])
    payees: dict[tuple[bytes, str], list[int]] = defaultdict(lambda: [0, 0])
    for line in outcome.lines:
        for sums in (platforms[line.platform], payees[line.platform, line.payee]):
            sums[0] += line.weight
            sums[1] += line.share_cents
    whole = sum(weight for weight, _ in platforms.values())
    assert sum(share for _, share in platforms.values()) == (pool if whole else 0)
    for weight, share in platforms.values():
        assert abs(share - Fraction(pool * weight, whole)) < 1
    for (platform, _), (weight, share) in payees.items():
        above, cents_above = platforms[platform]
        assert abs(share - Fraction(cents_above * weight, above)) < 1


@given(EVENINGS, st.lists(st.integers(0, 5_000), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_by_payer_nothing_is_lost_either_and_nobody_moves_more_than_the_cap(
    evenings: list[Evening], fees: list[int], rng: Random
) -> None:
    payers = {bytes([number + 1]) * 16: fee for number, fee in enumerate(fees) if fee}
    money = books(sum(fees), 0, payers)
    facts = facts_of(evenings, rng)
    for rules in (RULES, replace(RULES, mode="per_payer")):
        statement = settled(facts, money, rules).statement
        assert statement.pool_cents == statement.paid_cents + statement.held_cents + statement.carried_cents
        assert statement.capped_cents <= statement.carried_cents


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_batches_in_any_order_and_number_settle_alike(rng: Random) -> None:
    dice = Dice(1, "order")
    world = World(dice, RULES)
    accounts = [world.join(honest=True) for _ in range(3)]
    batches: list[bytes] = []
    for relay in world.relays:  # both relays bring every evening
        for account in accounts[:2] if relay is world.relays[0] else accounts[1:]:
            evening = sit(world, dice, world.device(account), VILLAGE, BEGIN_DAY)
            batches.append(relay.batch(evening.pulses, [item.seen_ms + 200 for item in evening.pulses]))
    digests: set[bytes] = set()
    for arrivals in (batches, rng.sample(batches * 3, len(batches) * 3)):
        gate = Gate(world.office, lambda: [world.ticket_key], lambda _: True, RULES)
        for number, data in enumerate(arrivals):
            gate.batch(data, (BEGIN_DAY + 3) * DAY_MS + number)
        evidence = Evidence(gate.log, world.office, range(BEGIN_DAY - 1, BEGIN_DAY + 2))
        facts = evidence.facts(len(gate.log), range(BEGIN_DAY - 1, BEGIN_DAY + 2), world.titles.get)
        viewing = sum_up(credit(facts, RULES), [], [], [], world.titles, RULES)
        digests.add(settle("2027-03", 0, viewing, world.titles, books(1_000), {}, LOG, RULES).digest)
    assert len(digests) == 1
