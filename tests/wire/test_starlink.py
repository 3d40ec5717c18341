"""A Starlink dish is asked over real gRPC how it is; what is no dish is counted, and nobody waits for it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.dish import dish as module
from farcast.node.dish.dish import FRESH_S, Dish
from farcast.node.doctor.dish import check_dish
from farcast.node.doctor.finding import Finding, State
from farcast.node.doctor.patient import examine
from farcast.node.home import Home
from farcast.protocol.errors import RemoteError
from farcast.tests.wire.starlink import DishServer

CONNECTED = {
    "pop_ping_drop_rate": 0.0125,
    "pop_ping_latency_ms": 41.5,
    "downlink_throughput_bps": 9e6,
    "uplink_throughput_bps": 1e6,
    "obstruction_stats": {"fraction_obstructed": 0.0031, "valid_s": 90_000.0},
    "alerts": {"roaming": True, "is_heating": True, "motors_stuck": False},
    "disablement_code": 1,
}
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def server() -> Generator[DishServer]:
    """A dish of this machine."""
    made = DishServer()
    yield made
    made.close()


def counted(registry: CollectorRegistry) -> dict[str, int]:
    """Return what came of the looks so far."""
    samples = [one for metric in registry.collect() for one in metric.samples if one.name.endswith("_total")]
    return {one.labels["result"]: int(one.value) for one in samples if one.value}


async def test_a_dish_says_how_it_stands_and_why_it_carries_nothing(server: DishServer) -> None:
    registry = CollectorRegistry()
    dish = Dish(f"127.0.0.1:{server.port}", registry)
    server.says = dict(CONNECTED)
    await dish.look()
    found = dish.standing
    assert found is not None
    assert found.facts == {
        "connected": True,
        "outage": "",
        "limit": "",
        "obstructed": False,
        "obstructed_share": pytest.approx(0.0031),
        "lost_share": pytest.approx(0.0125),
        "latency_ms": 41.5,
        "down_bps": 9e6,
        "up_bps": 1e6,
        "alerts": ["is_heating", "roaming"],
        "sentence": "the Starlink dish is connected, 0.3 % of its sky obstructed",
    }
    server.says = {
        **CONNECTED,
        "outage": {"cause": 6, "duration_ns": 4_000_000_000},
        "obstruction_stats": {"currently_obstructed": True, "fraction_obstructed": 0.2},
    }
    await dish.look()
    assert dish.standing is not None
    assert (dish.standing.outage, dish.standing.obstructed) == ("OBSTRUCTED", True)
    assert dish.standing.sentence().endswith("something stands between it and the satellite")
    server.says = {"outage": {}}
    await dish.look()
    assert dish.standing is not None
    assert dish.standing.outage == "UNKNOWN", "the first cause is left out on the wire"
    server.says = {"disablement_code": 7}
    await dish.look()
    assert dish.standing is not None
    assert dish.standing.trouble == "the Starlink dish is restricted: the data of its plan is used up"
    server.says = {"outage": {"cause": 77}}
    await dish.look()
    assert dish.standing is not None
    assert dish.standing.trouble == "the Starlink dish has an outage (77)", "a firmware newer than its schema"
    assert counted(registry) == {"ok": 5}
    assert server.asked == 5


async def test_names_hold_where_a_firmware_counts_its_fields_otherwise() -> None:
    server = DishServer(shift=300)
    try:
        server.says = dict(CONNECTED)
        found = await Dish(f"127.0.0.1:{server.port}", CollectorRegistry()).ask()
        assert (found.latency_ms, found.connected, found.alerts) == (41.5, True, ("is_heating", "roaming"))
    finally:
        server.close()


async def test_a_dish_that_is_gone_is_shown_for_a_while_and_then_not(server: DishServer) -> None:
    registry, now_s = CollectorRegistry(), [0.0]
    dish = Dish(f"127.0.0.1:{server.port}", registry, now_s=lambda: now_s[0])
    assert dish.standing is None
    server.says = dict(CONNECTED)
    await dish.look()
    server.close()
    await dish.look()
    assert dish.standing is not None
    now_s[0] = FRESH_S
    assert dish.standing is None
    assert counted(registry) == {"ok": 1, "unreachable": 1}


async def test_a_server_without_a_schema_is_no_dish() -> None:
    server = DishServer(reflects=False)
    try:
        with pytest.raises(RemoteError) as caught:
            await Dish(f"127.0.0.1:{server.port}", CollectorRegistry()).ask()
        assert caught.value.reason == "grpc", "it does not know that method"
    finally:
        server.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    del writer
    await reader.read()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a router's page would."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close at once."""
    await reader.read(1)
    writer.close()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send settings for ever."""
    del reader
    while not writer.is_closing():
        writer.write(struct.pack(">I", 6)[1:] + b"\x04\x00\0\0\0\0" + struct.pack(">HI", 3, 100))
        await writer.drain()


@pytest.mark.parametrize(
    ("talk", "reason"),
    [(silent, "timeout"), (web, "malformed"), (hang_up, "unreachable"), (endless, "oversized")],
)
async def test_what_is_no_dish_is_counted_and_let_go(
    talk: Talk, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if talk is silent:
        monkeypatch.setattr(module, "DEADLINE_S", 0.3)
    else:
        monkeypatch.setattr(module, "DEADLINE_S", 30.0)

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    registry = CollectorRegistry()
    async with server:
        dish = Dish(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", registry)
        await dish.look()
        assert counted(registry) == {reason: 1}
        assert dish.standing is None


async def test_the_doctor_says_how_the_dish_stands_or_what_is_wrong_with_its_address(
    server: DishServer, tmp_path: Path
) -> None:
    Home.create(tmp_path / "node", "node").close()

    async def found(address: str) -> Finding:
        return await check_dish(examine(tmp_path / "node", {"FARCAST_METERED_DISH": address}))

    here = f"127.0.0.1:{server.port}"
    server.says = dict(CONNECTED)
    fine = await found(here)
    assert (fine.state, fine.sentence) == (
        State.OK,
        "the Starlink dish is connected, 0.3 % of its sky obstructed; it warns: is heating, roaming",
    )
    server.says = {"outage": {"cause": 5}}
    assert await found(here) == Finding(
        "dish", State.WARNING, "the Starlink dish sees no satellite",
        "look at the dish and its app; what is here plays on",
    )  # fmt: skip
    server.close()
    gone = await found(here)
    assert (gone.state, gone.sentence) == (State.WARNING, f"nothing answers at {here}")
