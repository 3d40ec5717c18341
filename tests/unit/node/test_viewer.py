# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from farcast.node.catalog.join import join
from farcast.node.demo.troupe import free_port
from farcast.node.home import Home
from farcast.node.http.exchange import Exchange
from farcast.node.settings import Settings
from farcast.node.viewer import ACKS_WAITING, Viewer
from farcast.origin.keys import init
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import UsageError
from farcast.protocol.ports import Cost, SpooledPulse, TierName
from farcast.protocol.pulse import read_pulse
from farcast.tests.unit.origin.mint import Viewer as Watcher
from farcast.tests.wire.starlink import DishServer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Make one origin that nobody reaches, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("origin") / "home"
    nowhere = Endpoint("127.0.0.1", 9, False)
    return init(home, "Acme", [nowhere], "correct horse battery", time.time()).root_path.read_bytes()


@asynccontextmanager
async def started(path: Path) -> AsyncGenerator[Viewer]:
    """Wire a node up as a start does, listeners aside."""
    viewer = Viewer(Home.open(path, "node"), Settings.load(path, {}))
    try:
        yield viewer
    finally:
        viewer.box.abandon()


async def call(viewer: Viewer, method: str, path: str, body: object, *, status: int = 200) -> object:
    async def read(_: int) -> bytes:
        return json.dumps(body).encode()

    headers = {"host": "127.0.0.1", "content-type": "application/json"}
    target = f"/{viewer.box.token}{path}"
    exchange = Exchange.of(method, target, headers, peer="127.0.0.1", secure=False, reader=read)
    answer = await viewer.box.local.handle(exchange)
    assert answer.status == status, answer.body
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body or b"null")


async def nothing(_: int) -> bytes:
    """Return a request's body."""
    return b""


async def test_pulses_switched_off_stay_off_when_the_node_starts_again(root: bytes, tmp_path: Path) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    async with started(home) as viewer:
        assert viewer.desk.pulses()["on"]
        await call(viewer, "POST", "/api/pulses", {"on": False})
        assert not viewer.heartbeat.enabled
    async with started(home) as viewer:
        assert not viewer.heartbeat.enabled
        await call(viewer, "POST", "/api/pulses", {"on": True})
    async with started(home) as viewer:
        assert viewer.desk.pulses()["on"]


async def test_the_desk_says_how_much_viewing_waits_for_an_uplink_and_since_when(
    root: bytes, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    async with started(home) as viewer:
        assert viewer.desk.status()["waits"] == ""
        ann = Watcher(1)
        for pulse in ann.watch(b"f" * 32, 14):
            seq, seen_ms = read_pulse(pulse)[0].seq, 1_795_791_600_000
            viewer.box.spool.add([SpooledPulse(ann.tid, seq, pulse, ann.ticket, seen_ms, own=True)])
        said = viewer.desk.status()["waits"]
        assert said.startswith("14 minutes of viewing wait for an uplink, the first since "), said
        viewer.courier.reachable = True
        assert viewer.desk.status()["waits"] == "", "they are on their way"


async def test_a_metered_node_says_what_today_has_cost(root: bytes, tmp_path: Path) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    (home / "settings.toml").write_text('[metered]\ndaily_bytes = "500 MB"\n')
    async with started(home) as viewer:
        ration = viewer.box.ration
        assert ration is not None
        await ration.take(12_000_000, first=False)
        await ration.settle(12_000_000, 12_000_000, first=False)
        assert viewer.desk.status()["metered"] == {"used_bytes": 12_000_000, "daily_bytes": 500_000_000}
        assert ration.sentence() == "12 of 500 MB today"
        assert not viewer.fetcher.spent()
        paid = [viewer.fetcher._ways[tier] for tier in (TierName.CDN, TierName.RELAY)]
        assert [way.cost for way in paid] == [Cost.METERED] * 2
        await ration.take(467_000_000, first=False)
        await ration.settle(467_000_000, 467_000_000, first=False)
        assert "today's 500 MB of this link are used up" in viewer.fetcher.spent()
        assert [way.tier.sources() for way in paid] == [()] * 2


async def test_a_node_with_a_radio_says_what_it_heard(root: bytes, tmp_path: Path) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    async with started(home) as viewer:
        assert viewer.desk.status()["radio"] is None
    (home / "settings.toml").write_text("[reticulum]\nenabled = true\n")
    async with started(home) as viewer:
        assert viewer.radio is not None
        viewer.radio.hear(b"whatever")
        assert viewer.desk.status()["radio"] == {"up": False, "why": "", "behind": 0, "waiting": []}
        counted = viewer.box.registry.get_sample_value(
            "farcast_node_radio_heard_total", {"result": "no_keys"}
        )
        assert counted == 1, "the origin's keys are not here yet"


async def test_page_and_status_say_why_the_dish_carries_nothing(root: bytes, tmp_path: Path) -> None:
    server, home = DishServer(), tmp_path / "node"
    try:
        await join(home, "node", Settings.load(home, {}), root)
        (home / "settings.toml").write_text(f'[metered]\ndish = "127.0.0.1:{server.port}"\n')
        async with started(home) as viewer:
            assert viewer.desk.status()["dish"] is None, "nothing was told yet"
            assert viewer.desk._offline().startswith("Offline: no relay or origin answers;")
            server.says = {"outage": {"cause": 6}}
            assert viewer.dish is not None
            await viewer.dish.look()
            assert viewer.desk.status()["dish"]["outage"] == "obstructed"
            assert viewer.desk._offline().startswith("Offline: the Starlink dish is obstructed: ")
            target, headers = f"/{viewer.box.token}/", {"host": "127.0.0.1"}
            page = await viewer.box.local.handle(
                Exchange.of("GET", target, headers, peer="127.0.0.1", secure=False, reader=nothing)
            )
            assert isinstance(page.body, bytes)
            said = b"The Starlink dish is obstructed: something stands between it and the satellite."
            assert said in page.body
    finally:
        server.close()


async def test_the_desk_of_an_empty_catalog_says_no_clearly_and_changes_nothing(
    root: bytes, tmp_path: Path
) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    async with started(home) as viewer:
        assert await call(viewer, "GET", "/api/titles?q=anything", None) == []
        assert await call(viewer, "GET", "/api/bookmarks", None) == []
        assert await call(viewer, "GET", "/api/pulses/sent", None) == []
        refused: list[tuple[str, str, object, str]] = [
            ("GET", "/api/live/nothing", None, "unknown_title"),
            ("POST", "/api/bookmarks/nothing", {"position_ms": 1}, "unknown_title"),
            ("POST", "/api/bookmarks/nothing", {"position_ms": -1}, "bad_arguments"),
            ("POST", "/api/bookmarks/nothing", {"position_ms": 2**32}, "bad_arguments"),
            ("POST", "/api/bookmarks/nothing", {"position": 1}, "bad_arguments"),
            ("POST", "/api/bookmarks/nothing", ["position_ms"], "bad_arguments"),
        ]
        for method, path, body, reason in refused:
            found = await call(viewer, method, path, body, status=404 if "title" in reason else 400)
            assert isinstance(found, dict)
            assert found["reason"] == reason
        assert not (home / "bookmarks.json").exists()
        for path in ("/api/bookmarks", "/api/bookmarks/nothing"):
            await call(viewer, "DELETE", path, None, status=204)


async def test_without_the_satellites_package_a_node_says_so_and_has_the_other_tiers(
    root: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    monkeypatch.setitem(sys.modules, "raptorq", None)
    async with started(home) as viewer:
        assert viewer.antenna is None
        assert viewer.desk.status()["role"] == "node"
    assert "pip install raptorq" in caplog.text


async def test_a_node_that_joined_nobody_says_what_to_do(tmp_path: Path) -> None:
    Home.create(tmp_path / "node", "node").close()
    with pytest.raises(UsageError, match="farcast join LINK"):
        async with started(tmp_path / "node"):
            pass


async def test_a_failure_in_the_mesh_does_not_end_it_for_good(
    root: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box starts the service again, and carrying is work of its own."""
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    ports = "[listen]\nport = 0\n[admin]\nport = 0\n"
    (home / "settings.toml").write_text(f"{ports}[mesh]\nport = {free_port()}\nzeroconf = false\n")
    async with started(home) as viewer:
        await viewer._carry()  # before there is a mesh: nothing to do
        await viewer.box._listen()
        sharing = viewer.sharer.run

        async def broken() -> None:
            raise OSError("the link went away")

        monkeypatch.setattr(viewer.sharer, "run", broken)
        with pytest.raises(ExceptionGroup, match="unhandled errors"):
            await viewer._mesh()
        monkeypatch.setattr(viewer.sharer, "run", sharing)
        mesh = asyncio.ensure_future(viewer._mesh())
        try:
            async with asyncio.timeout(30):
                while viewer.discovery is None or not viewer.discovery._links:
                    assert not mesh.done(), mesh.exception()
                    await asyncio.sleep(0.01)
            await viewer._carry()
        finally:
            mesh.cancel()
            await asyncio.gather(mesh, return_exceptions=True)
            for listener in (viewer.box.local_listener, viewer.box.listener):
                assert listener is not None
                await listener.close(0)


async def test_acks_from_the_air_wait_in_bounds_and_a_bad_one_stops_none(root: bytes, tmp_path: Path) -> None:
    home = tmp_path / "node"
    await join(home, "node", Settings.load(home, {}), root)
    async with started(home) as viewer:
        for number in range(2 * ACKS_WAITING):
            viewer._heard("ack", "0", b"no ack %d" % number)
        assert viewer._acks_heard.qsize() == ACKS_WAITING
        applying = asyncio.ensure_future(viewer._accept_heard())
        async with asyncio.timeout(30):
            while not viewer._acks_heard.empty():  # noqa: ASYNC110 - what a thread empties
                await asyncio.sleep(0.01)
        applying.cancel()
        await asyncio.gather(applying, return_exceptions=True)
        refused = sum(
            sample.value
            for metric in viewer.box.registry.collect()
            if metric.name == "farcast_node_acks"
            for sample in metric.samples
        )
        assert refused >= ACKS_WAITING - 1
