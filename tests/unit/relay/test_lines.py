from __future__ import annotations

import pytest

from farcast.relay.lines import rate, size, status_lines, volume

CONTRACT = {
    "used_bytes": 61_200_000_000, "limit_bytes": 500_000_000_000, "resets": "2026-12-01T00:00+01:00",
    "rate_up_bps": 20_000_000, "rate_down_bps": 0,
}  # fmt: skip
STATUS = {
    "verdict": "Serving", "standing": "approved", "contract": CONTRACT,
    "nat": "the router maps 192.0.2.7:7433 to this box (PCP)",
    "reachability": [{"address": "relay.example:7433", "result": "reachable"}],
    "serving": {"connections": 12, "up_bps": 8_400_000, "down_bps": 0},
    "store": {"bytes": 2_521_200, "blocks": 42, "quota_bytes": 20_000_000_000},
    "holdings": [{"publisher": "12D3KooWann", "titles": 1, "bytes": 2_521_200, "budget_bytes": 10**9}],
    "failures": {"damaged_blocks": 1.0, "rejected_blocks": 2}, "pulses_waiting": 3, "version": "0.1.0",
    "earnings": {"currency": "EUR", "months": [{"month": "2026-11", "state": "provisional",
        "relays": [{"cents": 1_234, "acknowledged_gb": 617.25}]}]},
    "hints": {"by": "http", "gossip": None}, "radio": None,
}  # fmt: skip


def test_the_verdict_is_first_and_every_number_is_there() -> None:
    assert status_lines(STATUS) == [
        "Serving",
        "  reachable       relay.example:7433: reachable",
        "  network         the router maps 192.0.2.7:7433 to this box (PCP)",
        "  this month      61.2 GB of 500 GB (12 %) until 2026-12-01",
        "  serving now     12 connections, up 8.4 Mbit/s of 20 Mbit/s, down 0 bit/s",
        "  holds           2.52 MB of 20 GB, 42 blocks",
        "    12D3KooWann  1 titles, 2.52 MB of 1 GB",
        "  failures        1 damaged blocks, 2 rejected",
        "  pulses waiting  3",
        "  earned          12.34 EUR provisional for 617.250 GB in 2026-11",
        "  version         0.1.0",
    ]


def test_a_gossip_process_has_a_line_of_its_own() -> None:
    gossip = {"state": "off", "pid": 0, "peers": 0, "why": "libp2p is not installed"}
    lines = status_lines(STATUS | {"hints": {"by": "p2p", "gossip": gossip}})
    assert "  gossip          off, 0 peers: libp2p is not installed" in lines
    lines = status_lines(STATUS | {"hints": {"by": "p2p", "gossip": gossip | {"state": "up", "peers": 3}}})
    assert "  gossip          up, 3 peers" in lines


def test_what_the_radio_heard_has_lines_of_its_own() -> None:
    waits = {"carrier": "12D3KooWada", "batches": 2, "pulses": 40}
    radio = {"up": False, "why": "no interface", "behind": 3, "waiting": [waits]}
    lines = status_lines(STATUS | {"radio": radio})
    assert [line for line in lines if line.startswith("  radio ")] == [
        "  radio           a catalog with 3 more entries is out",
        "  radio           40 pulses in 2 batches wait with 12D3KooWada",
        "  radio           does not run: no interface",
    ]


def test_without_a_limit_it_says_so() -> None:
    assert volume(CONTRACT | {"limit_bytes": 0}) == "61.2 GB (no limit) until 2026-12-01"


def test_a_relay_without_an_origin_says_what_it_has() -> None:
    found = {
        "verdict": "Serving 1 imported root, standalone", "standing": "standalone", "contract": CONTRACT,
        "store": {"bytes": 5, "blocks": 1}, "imports": ["a.car"],
    }  # fmt: skip
    assert status_lines(found) == [
        found["verdict"],
        "  this month      61.2 GB of 500 GB (12 %) until 2026-12-01",
        "  holds           5 B, 1 blocks",
        "  imports         a.car",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (20 * 10**9, "20 GB"), (10**13, "10 TB")],
)
def test_sizes(value: int, shown: str) -> None:
    assert size(value) == shown


def test_rates() -> None:
    assert (rate(0), rate(64_000), rate(14_640_000)) == ("0 bit/s", "64 kbit/s", "14.6 Mbit/s")
