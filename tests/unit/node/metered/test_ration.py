"""What a metered link may cost is on disk before it is spent, and hard stop is hard stop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.metered.allowance import DAY_MS, FIRST_SHARE
from farcast.node.metered.dialer import MeteredDialer, on_wire
from farcast.node.metered.ration import BLOCK_COST_BYTES, GRANT_LEAST_BYTES, KEEP_S, Ration
from farcast.node.settings import Settings
from farcast.protocol.errors import LocalError, RefusedError, UsageError

DAILY = 50_000_000
NOON = 20_700 * DAY_MS + DAY_MS // 2


class Clock:
    """A machine's time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall_ms(self) -> int:
        """Return the time of day."""
        return NOON + int(self.seconds * 1_000)

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return self.seconds


def ration(path: Path, clock: Clock, daily_bytes: int = DAILY) -> Ration:
    return Ration(path, daily_bytes, clock.wall_ms, CollectorRegistry(), now_s=clock.now_s)


async def spend(one: Ration, size_bytes: int) -> None:
    await one.take(size_bytes, first=True)
    await one.settle(size_bytes, size_bytes, first=True)


async def test_a_box_that_dies_at_any_moment_never_spends_more_than_a_day_has(tmp_path: Path) -> None:
    clock, path, spent = Clock(), tmp_path / "metered.json", 0
    for life in range(100):
        one = ration(path, clock)
        for _ in range(1 + life % 7):
            with suppress(RefusedError):
                await spend(one, 300_000)
                spent += 300_000
    with pytest.raises(RefusedError, match="today's 50 MB of this link are used up") as caught:
        await spend(ration(path, clock), 300_000)
    assert (caught.value.reason, caught.value.status) == ("budget_spent", 429)
    assert DAILY * 0.3 < spent <= DAILY, "each death costs a grant at most"
    clock.seconds += DAY_MS / 2_000
    await spend(ration(path, clock), 300_000)


async def test_a_box_that_ends_well_loses_nothing(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "metered.json"
    for _ in range(100):
        one = ration(path, clock)
        await spend(one, 450_000)
        await one.close()
    one = ration(path, clock)
    assert one.facts == {"used_bytes": 45_000_000, "daily_bytes": DAILY}
    assert one.sentence() == "45 of 50 MB today"
    assert not one.exhausted
    await spend(one, 3_000_000)
    assert one.exhausted
    assert one.sentence() == "48 of 50 MB today"
    await spend(one, 1_000_000)  # checkpoint and pulses have the rest to themselves
    with pytest.raises(RefusedError):
        await one.take(BLOCK_COST_BYTES, first=False)


async def test_a_file_that_is_damaged_is_a_day_used_up_and_the_next_one_is_not(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "metered.json"
    path.write_bytes(b"{")
    one = ration(path, clock)
    with pytest.raises(RefusedError):
        await one.take(1, first=True)
    clock.seconds += DAY_MS / 1_000
    await spend(one, 1)
    await one.close()
    assert ration(path, clock).facts["used_bytes"] == 1


async def test_what_a_long_answer_might_have_cost_is_not_lost_where_the_box_dies(tmp_path: Path) -> None:
    clock, path, daily = Clock(), tmp_path / "metered.json", 8_000_000
    one = ration(path, clock, daily)
    for _ in range(40):  # as blocks do, until there is room for none
        with suppress(RefusedError):
            await one.take(BLOCK_COST_BYTES, first=False)
            await one.settle(BLOCK_COST_BYTES, 600_000, first=False)
    assert one.exhausted
    room = await one.take(daily, first=True, least_bytes=1)  # an answer may be as long as the room is
    assert room > daily // FIRST_SHARE
    await one.settle(room, 2_000, first=True)
    again = ration(path, clock, daily)  # the first one is dead
    left = await again.take(daily, first=True, least_bytes=1)
    assert left >= room - 2_000 - 2 * GRANT_LEAST_BYTES


async def test_a_request_waits_for_what_others_hold_and_is_refused_only_for_what_was_spent(
    tmp_path: Path,
) -> None:
    one = ration(tmp_path / "metered.json", Clock(), 1_000_000)
    await one.take(900_000, first=True)
    with pytest.raises(RefusedError):
        await one.take(200_000, first=True, wait_s=0.01)
    second = asyncio.ensure_future(one.take(200_000, first=True, wait_s=30.0))
    await asyncio.sleep(0)
    assert not second.done()
    await one.settle(900_000, 5_000, first=True)
    await second
    third = asyncio.ensure_future(one.take(900_000, first=True, wait_s=30.0))
    await asyncio.sleep(0)
    await one.settle(200_000, 200_000, first=True)
    with pytest.raises(RefusedError):
        await third


async def test_a_grant_written_while_the_day_ends_is_not_the_next_days(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "metered.json"
    one = ration(path, clock)
    taking = asyncio.ensure_future(one.take(100_000, first=True))
    await asyncio.sleep(0)  # it is being written
    clock.seconds += DAY_MS / 1_000
    assert one.facts["used_bytes"] == 0
    await taking
    await one.settle(100_000, 100_000, first=True)
    await spend(one, 50_000)
    assert ration(path, clock).facts["used_bytes"] >= 150_000


async def test_where_the_count_cannot_be_kept_nothing_is_spent(tmp_path: Path) -> None:
    clock = Clock()
    one = ration(tmp_path / "nowhere" / "metered.json", clock)
    with pytest.raises(LocalError, match="cannot be written"):
        await one.take(1, first=True)
    assert one.facts["used_bytes"] == 0


async def test_time_that_passed_is_written_down_though_nothing_is_spent(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "metered.json"
    one = ration(path, clock)
    await one.keep()
    assert not path.exists()
    clock.seconds += KEEP_S
    await one.keep()
    assert path.exists()


async def test_a_request_and_its_answer_are_counted_and_one_there_is_no_room_for_is_not_made(
    tmp_path: Path,
) -> None:
    from farcast.protocol.ports import Source, TierName

    clock = Clock()
    one = ration(tmp_path / "metered.json", clock, 10_000)
    nobody = Source(TierName.RELAY, "nobody", "127.0.0.1:1", bytes(32))
    async with MeteredDialer(one, allow_private=True) as dialer:
        with pytest.raises(Exception, match="127"):
            await dialer.request(nobody, "GET", "/v1/beacons", limit_bytes=4_096, timeout_s=2.0)
        assert one.facts["used_bytes"] == on_wire(len("/v1/beacons")), "what was tried costs its handshake"
        await spend(one, 6_000)
        with pytest.raises(RefusedError, match="used up"):
            await dialer.request(nobody, "GET", "/v1/beacons", timeout_s=2.0)


def test_the_budget_is_a_setting_with_a_size_and_none_means_no_meter(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('[metered]\ndaily_bytes = "500 MB"\n')
    assert Settings.load(tmp_path, {}).metered.daily_bytes == 500_000_000
    assert Settings.load(None, {}).metered.daily_bytes == 0
    with pytest.raises(UsageError, match="METERED_DAILY_BYTES"):
        Settings.load(None, {"FARCAST_METERED_DAILY_BYTES": "-1"})
