from __future__ import annotations

from pathlib import Path

from farcast.node.settings import Settings
from farcast.origin.money.treasury import rules_of
from farcast.protocol.rules import HOUR_MS


def test_the_rules_of_settlement_are_those_of_the_settings(tmp_path: Path) -> None:
    environ = {
        "FARCAST_MONEY_CURRENCY": "USD",
        "FARCAST_MONEY_GAP_S": "120",
        "FARCAST_MONEY_SESSION_CAP_H": "5",
        "FARCAST_MONEY_DAY_CAP_H": "12",
        "FARCAST_MONEY_RESERVE_BASIS_POINTS": "700",
        "FARCAST_MONEY_RESERVE_BASE": "net",
        "FARCAST_MONEY_RELAY_CENTS_PER_GB": "4",
    }
    rules = rules_of(Settings.load(tmp_path, environ))
    assert (rules.currency, rules.gap_ms) == ("USD", 120_000)
    assert (rules.session_cap_ms, rules.day_cap_ms) == (5 * HOUR_MS, 12 * HOUR_MS)
    assert (rules.reserve_points, rules.reserve_base, rules.relay_cents_per_gb) == (700, "surplus", 4)
