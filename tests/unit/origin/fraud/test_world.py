from __future__ import annotations

import pytest

from farcast.origin.fraud.audience import TOWN, VILLAGE, House, fill
from farcast.origin.fraud.dice import Dice
from farcast.origin.fraud.inspection import refused
from farcast.origin.fraud.month import close_months
from farcast.origin.fraud.scenario import Limit
from farcast.origin.fraud.world import BEGIN_DAY, FEE_CENTS, World
from farcast.protocol.rules import HOUR_MS, Rules

RULES = Rules()
SMALL = VILLAGE._replace(viewers=10, days=2)


def town(house: House, seed: int = 1, *, keeps_acks: bool = False) -> World:
    dice = Dice(seed, "test")
    world = World(dice, RULES)
    world.keeps_acks = keeps_acks
    fill(world, dice, house, BEGIN_DAY)
    world.run()
    return world


@pytest.mark.parametrize("seed", range(4))
def test_honest_viewers_with_bad_clocks_and_links_are_counted_to_the_millisecond(seed: int) -> None:
    world = town(SMALL, seed)
    [month] = close_months(world, booked=False)
    counted = {account: month.counted_ms(account, world.films) for account in world.played_ms}
    assert counted == world.played_ms
    assert not month.flagged


def test_what_people_paid_is_the_revenue_and_all_of_the_pool_is_paid() -> None:
    world = town(TOWN)
    [month] = close_months(world, booked=True)
    statement = month.outcome.statement
    assert statement.revenue_cents == TOWN.viewers * FEE_CENTS
    assert statement.paid_cents == statement.pool_cents > 0
    assert month.received_cents == 0


def test_an_honest_origins_report_fits_every_ack_and_a_shortened_log_does_not() -> None:
    world = town(SMALL, keeps_acks=True)
    [month] = close_months(world, booked=False)
    assert not refused(world, month)
    world.withheld = frozenset(list(world.played_ms)[:1])
    [cheated] = close_months(world, booked=False)
    assert len(world.told()) < len(world.log)
    assert refused(world, cheated)


def test_a_bound_is_the_smaller_of_time_and_payers_and_relay_pay_on_top() -> None:
    world = town(TOWN)
    [month] = close_months(world, booked=True)
    payers = tuple(world.played_ms)[:1]
    by_payers = Limit(payers=payers).bound_cents(world, month, RULES)
    assert by_payers == RULES.payer_factor * (FEE_CENTS * month.fresh_cents // (TOWN.viewers * FEE_CENTS))
    small, large = Limit(ms=HOUR_MS // 10, payers=payers), Limit(ms=100 * HOUR_MS, payers=payers)
    assert small.bound_cents(world, month, RULES) < by_payers == large.bound_cents(world, month, RULES)
    assert Limit(kbytes=5_000_000).bound_cents(world, month, RULES) == 5 * RULES.relay_cents_per_gb
    assert Limit(ms=0).bound_cents(world, month, RULES) == 0
