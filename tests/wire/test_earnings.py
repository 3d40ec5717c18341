"""What is earned: one number, soon, from command, metrics, report, and on the box of who earns it."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from farcast.node.demo.troupe import free_port
from farcast.node.home import read_identity
from farcast.protocol.rules import DAY_MS
from farcast.tests.unit.origin.countinghouse import CountingHouse
from farcast.tests.wire.street import Street, ask, until


@pytest.fixture
def street(tmp_path: Path) -> Generator[Street]:
    """Begin with nothing, because what was earned elsewhere would count too."""
    street = Street(tmp_path)
    yield street
    street.close()


def test_a_relay_and_a_payee_see_on_their_own_boxes_what_the_origin_counts(street: Street) -> None:
    home, port, own = street.home("origin"), free_port(), free_port()
    street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", home)
    link = street.must("origin", "invite", "--relay", "--home", home)["link"]
    viewer = street.must("origin", "account", "add", "vera", "--home", home)["link"]
    where = {"FARCAST_LISTEN_PORT": str(own), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{own}"}
    origin = street.start("origin", "origin", "run", settings={"FARCAST_LISTEN_PORT": str(port)})
    relay_home, node_home = street.home("earner"), street.home("node")
    assert street.run("relay", "join", link, "--home", relay_home, settings=where).code == 0
    assert street.run("join", viewer, "--home", node_home).code == 0
    origin.stop()

    key, box = read_identity(relay_home), read_identity(node_home)
    day, settings = time.time_ns() // 1_000_000 // DAY_MS, {"FARCAST_LISTEN_PORT": str(port)}
    house = CountingHouse(home)
    house.now_ms = day * DAY_MS
    film = house.film("film", {"ann": 10_000}, size_bytes=10**12)
    house.office.payees.let_see("ann", box.peer_id)
    # the first minutes of today: whatever the hour, they are past or live
    house.watch(1, film, 5, day=day, kbytes=20_000_000, from_min=0, relay=key.key)
    house.office.money.book("revenue", 10_000)
    house.close()

    origin = street.start("origin", "origin", "run", settings=settings)
    relay = street.start("earner", "relay", "run", settings=where)
    until(lambda: relay.api("/api/status")["earnings"] is not None, 30)
    status = relay.api("/api/status")["earnings"]
    told = street.must("earnings", "--home", relay_home)
    (counted,) = street.must("origin", "earnings", "--relay", key.peer_id, "--home", home)["months"]
    (row,) = counted["relays"]
    assert (row["relay"], row["acknowledged_gb"], row["cents"]) == (key.peer_id, 100.0, 100)
    for found in (status, told):
        (month,) = found["months"]
        assert (month["month"], month["state"]) == (counted["month"], "provisional")
        assert month["relays"] == [row]
    assert relay.metric("farcast_relay_earnings_cents", state="provisional") == 100
    until(lambda: origin.metric("farcast_origin_earnings_cents", kind="relay", id=key.peer_id) == 100, 30)
    page = ask(relay.local, "GET", f"/{relay.token}/").body.decode()
    assert "1.00 EUR provisional for 100.000 GB" in page
    assert "  earned          1.00 EUR provisional" in street.run("relay", "status", "--home", relay_home).out

    street.start("node", "run")
    (payee,) = street.must("earnings", "--home", node_home)["months"][0]["payees"]
    (same,) = street.must("origin", "earnings", "--payee", "ann", "--home", home)["months"][0]["payees"]
    assert payee == same
    assert (payee["payee"], payee["paid_cents"]) == ("ann", 10_000 - 100 - 500)
    assert payee["titles"] == [{"title": "film", "viewed_s": 300.0, "basis_points": 10_000}]
    street.run("earnings", "--home", node_home, "--month", "2026-13").refused(1, "is no month")


SHOWN_WITHIN_S = 60.0


def test_a_pulse_shows_within_a_minute_and_command_metric_report_and_page_say_one_number(
    street: Street,
) -> None:
    home, port = street.home("origin"), free_port()
    street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", home)
    day = time.time_ns() // 1_000_000 // DAY_MS
    house = CountingHouse(home)
    house.now_ms = day * DAY_MS
    films = [house.film("one", {"ann": 10_000}), house.film("two", {"bob": 10_000})]
    posts = [house.sign(n, film, 5, day=day, from_min=0) for n, film in enumerate(films, 1)]
    house.office.money.book("revenue", 10_000)
    house.close()
    origin = street.start("origin", "origin", "run", settings={"FARCAST_LISTEN_PORT": str(port)})
    month = f"{datetime.fromtimestamp(day * DAY_MS // 1_000, UTC):%Y-%m}"

    def shown(state: str) -> dict[str, float]:
        """Return what the metrics say."""
        name = "farcast_origin_earnings_cents"
        return {payee: origin.metric(name, kind="payee", id=payee, state=state) for payee in ("ann", "bob")}

    def told() -> dict[str, int]:
        """Return what the command says."""
        (found,) = street.must("origin", "earnings", "--month", month, "--home", home)["months"]
        return {row["payee"]: row["paid_cents"] for row in found["payees"]}

    def wait(state: str, cents: dict[str, int]) -> None:
        until(lambda: shown(state) == cents, SHOWN_WITHIN_S)

    both = {"ann": 4_750, "bob": 4_750}
    for signed, expected in zip(posts, ({"ann": 9_500, "bob": 0}, both), strict=True):
        for _, data in signed:
            assert ask(f"127.0.0.1:{port}", "POST", "/v1/pulses", body=data).status == 200
        wait("provisional", expected)
        assert {"bob": 0, **told()} == expected
        assert origin.metric("farcast_origin_earnings_refresh_seconds") < SHOWN_WITHIN_S / 2

    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    settled = street.must("origin", "settle", "--month", month, "--as-of", now, "--home", home)
    report = Path(street.must("origin", "report", "--month", month, "--home", home)["folder"])
    paid = {row["payee"]: row["cents"] for row in settled["payouts"]}
    stated = json.loads((report / "report.json").read_text())["settlement"]["payouts"]
    assert {row["payee"]: row["cents"] for row in stated} == paid == told() == both
    assert "47.50" in (report / "index.html").read_text()
    wait("settled", both)
