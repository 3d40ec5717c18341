from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.governor import Governor
from farcast.node.settings import Settings
from farcast.protocol.errors import RefusedError, UsageError
from farcast.relay.contract import KEEP_S, Contract, Rates, Traffic, zone_of
from farcast.relay.contractfile import FILE, ContractFile, Kept
from farcast.relay.contractmetrics import ContractMetrics, PublisherShare
from farcast.relay.volume import Usage

NOON = round(datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp() * 1_000)
TABLE = msgspec.structs.replace(Settings.load(None, {}).contract, zone="UTC")
GB = 10**9


class World:
    """A clock and a network that a test moves."""

    def __init__(self) -> None:
        self.now_ms = NOON
        self.traffic = Traffic(0, 0)

    def contract(self, home: Path, **changes: object) -> Contract:
        """Return a contract of this world."""
        table = msgspec.structs.replace(TABLE, **changes)
        return Contract(home, table, lambda: self.now_ms, lambda: 0.5, lambda: self.traffic)


@pytest.fixture
def world() -> World:
    return World()


def sample(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"farcast_relay_contract_{name}", labels)


async def test_a_month_is_counted_kept_and_found_again(world: World, tmp_path: Path) -> None:
    world.traffic = Traffic(7, 7)  # of this run, before the contract began: somebody else's
    contract = world.contract(tmp_path)
    world.traffic = Traffic(7 + 5 * GB, 7 + GB)
    await contract.tick()
    await contract.keep()
    again = world.contract(tmp_path)
    assert again.volume.used_bytes == 6 * GB
    world.now_ms = again.volume.usage.end_ms
    await again.tick()
    assert again.volume.used_bytes == 0


async def test_what_is_counted_is_written_after_seconds_or_half_a_percent(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = world.contract(tmp_path, volume_bytes=100 * GB)
    world.traffic = Traffic(GB // 4, 0)
    await contract.tick()
    assert not (tmp_path / FILE).exists()
    world.traffic = Traffic(GB // 2, 0)
    await contract.tick()
    assert json.loads((tmp_path / FILE).read_text())["usage"]["up_bytes"] == GB // 2
    world.traffic = Traffic(GB // 2 + 1, 0)
    await contract.tick()
    assert json.loads((tmp_path / FILE).read_text())["usage"]["up_bytes"] == GB // 2
    began = asyncio.get_running_loop().time()
    monkeypatch.setattr("farcast.relay.contract.time.monotonic", lambda: began + KEEP_S + 1)
    await contract.tick()
    assert json.loads((tmp_path / FILE).read_text())["usage"]["up_bytes"] == GB // 2 + 1


async def test_pause_holds_across_runs_and_resume_ends_it(world: World, tmp_path: Path) -> None:
    contract, told = world.contract(tmp_path), list[str]()
    contract.changed = lambda: told.append(contract.state)
    await contract.pause()
    since = contract.paused_ms
    world.now_ms += 5_000
    await contract.pause()
    assert (contract.paused_ms, told) == (since, ["paused"])
    again = world.contract(tmp_path)
    assert again.state == "paused"
    refusal = again.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (503, "paused", 600)
    with pytest.raises(RefusedError, match="paused"):
        await again.fill()
    await again.resume()
    assert (again.state, again.refusal()) == ("serving", None)
    assert world.contract(tmp_path).state == "serving"


async def test_a_spent_volume_hibernates_and_a_larger_one_wakes_it(world: World, tmp_path: Path) -> None:
    contract = world.contract(tmp_path, volume_bytes=10 * GB)
    world.traffic = Traffic(10 * GB, 0)
    await contract.tick()
    assert contract.state == "hibernating"
    assert contract.rules().upload_bytes_s == 1, "even what was under way ends at the very end"
    assert contract.facts()["wakes"] == "2026-12-01T00:00+00:00"
    refusal = contract.refusal()
    assert refusal is not None
    assert refusal.retry_after_s == 86_400, "at most a day: the operator may change his mind"
    contract.change(msgspec.structs.replace(contract.table, volume_bytes=20 * GB))
    assert contract.facts()["state"] == "serving"


def test_rates_follow_the_hour(world: World, tmp_path: Path) -> None:
    contract = world.contract(
        tmp_path, quiet_hours=["23:00-07:00"], rate_up_bps=8_000_000, rate_down_bps=800_000,
        quiet_rate_up_bps=80_000_000,
    )  # fmt: skip
    assert (contract.quiet(), contract.rates()) == (False, Rates(8_000_000, 800_000))
    assert contract.rules().upload_bytes_s == 1_000_000
    world.now_ms += 12 * 3_600_000
    assert (contract.quiet(), contract.rates()) == (True, Rates(80_000_000, 800_000))


async def test_the_hour_changes_the_rates_while_it_runs(world: World, tmp_path: Path) -> None:
    contract = world.contract(tmp_path, quiet_hours=["13:00-14:00"], quiet_rate_up_bps=80_000_000)
    told: list[Rates] = []
    contract.changed = lambda: told.append(contract.rates())
    for _ in range(3):
        await contract.tick()
        world.now_ms += 3_600_000
    assert told == [Rates(80_000_000, 0), Rates(0, 0)]


async def test_fills_wait_for_the_rate_down_and_are_refused_where_that_is_long(
    world: World, tmp_path: Path
) -> None:
    contract = world.contract(tmp_path, rate_down_bps=8_000_000)
    await contract.fill()
    contract.filled(1_100_000)
    began = asyncio.get_running_loop().time()
    await contract.fill()
    assert asyncio.get_running_loop().time() - began >= 0.05
    contract.filled(100_000_000)
    with pytest.raises(RefusedError) as caught:
        await contract.fill()
    assert (caught.value.status, caught.value.reason) == (503, "rate_down")


async def test_every_number_is_a_metric(world: World, tmp_path: Path) -> None:
    contract = world.contract(tmp_path, volume_bytes=100 * GB, rate_up_bps=20_000_000)
    registry = CollectorRegistry()
    metrics = ContractMetrics(contract, registry)
    metrics.publishers = lambda: [PublisherShare("12D3KooWann", 7, None)]
    world.traffic = Traffic(3 * GB, GB)
    await contract.tick()
    assert sample(registry, "limit_bytes") == 100 * GB
    assert sample(registry, "used_bytes") == 4 * GB
    assert sample(registry, "remaining_bytes") == 96 * GB
    assert sample(registry, "month_bytes", direction="up") == 3 * GB
    assert sample(registry, "internet_bytes_total", direction="down") == GB
    assert sample(registry, "resets_timestamp_seconds") == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert sample(registry, "rate_bytes_per_second", direction="up") == 2_500_000
    assert sample(registry, "state", state="serving") == 1
    assert sample(registry, "connections", of="client") == 256
    assert sample(registry, "publisher_bytes", publisher="12D3KooWann", kind="held") == 7
    assert sample(registry, "publisher_bytes", publisher="12D3KooWann", kind="budget") == float("inf")
    await contract.pause()
    assert (sample(registry, "state", state="paused"), sample(registry, "state", state="serving")) == (1, 0)
    contract.change(msgspec.structs.replace(contract.table, volume_bytes=0))
    assert sample(registry, "remaining_bytes") == float("inf")


@pytest.mark.parametrize("data", [b"", b"{", b'{"paused_ms": "x"}', b'{"more": 1}', b"[]"])
def test_a_file_that_cannot_be_read_stops_it_with_a_sentence(
    world: World, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(UsageError, match=r"contract\.json cannot be read") as caught:
        world.contract(tmp_path)
    assert caught.value.reason == "bad_contract"


def test_the_file_holds_the_old_or_the_new(tmp_path: Path) -> None:
    file = ContractFile(tmp_path)
    assert file.read() == Kept()
    kept = Kept(5, Usage(1, 2, 3, 4, 5, 6, 7.5))
    file.write(kept)
    assert file.read() == kept
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_the_zone_is_the_named_one_or_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(zone_of("Europe/Berlin")) == "Europe/Berlin"
    monkeypatch.setenv("TZ", ":Asia/Kathmandu")
    assert str(zone_of("")) == "Asia/Kathmandu"
    monkeypatch.setenv("TZ", "/no/such")
    assert zone_of("") == UTC


def test_what_is_not_limited_is_no_limit_of_nought(world: World, tmp_path: Path) -> None:
    """A box refuses nobody by default: 0 in the settings is no rule, and one connection is not all."""
    rules = world.contract(tmp_path).rules()
    assert (rules.upload_bytes_s, rules.client_requests_s) == (None, None)
    assert rules.connections == 12_000
    governor = Governor(rules)
    for _ in range(200):
        assert governor.connect("11.22.33.44") is None
        assert governor.request("11.22.33.44", 0.0, transfer=True) is None
