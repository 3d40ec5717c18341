from __future__ import annotations

from farcast.node.earnings import earnings_lines, money
from farcast.protocol.earnings import (
    EarningsAnswer,
    MonthEarnings,
    PayeeEarning,
    RelayEarning,
    TitleViewed,
    earnings_json,
)
from farcast.protocol.identity import peer_id
from farcast.protocol.statement import CodeLine

RELAY = b"\x31" * 32
PAID = PayeeEarning(
    "ann", [TitleViewed("film", 2_400_000, 7_000)], 60, 40, 15, 5, [CodeLine("session_cap", 2, 120_000)]
)


def test_every_number_is_there_with_its_unit() -> None:
    served = RelayEarning(RELAY, 617_250_000, 1_500_000, 2, 1_234)
    months = [
        MonthEarnings("2026-12", False, 1, False, [RelayEarning(RELAY, 0, 0, 2, 0)], []),
        MonthEarnings("2026-11", True, 1, True, [served], [PAID]),
    ]
    assert earnings_lines(earnings_json(EarningsAnswer(1, "EUR", months))) == [
        "2026-12, provisional",
        "  no revenue is booked for it yet, so there is nothing to share among payees",
        f"  relay {peer_id(RELAY)}: 0.00 EUR for 0.000 GB at 2 cents",
        "2026-11, settled",
        f"  relay {peer_id(RELAY)}: 12.34 EUR for 617.250 GB at 2 cents",
        "    not paid: 1.500 GB (relay_rate)",
        "  payee ann: 0.40 EUR",
        "    film: 2400 s viewed, 70 % of it",
        "    held for a look: 0.15 EUR",
        "    cut by the per-payer cap: 0.05 EUR",
        "    not counted: 120 s (session_cap)",
    ]


def test_nothing_earned_is_said() -> None:
    assert earnings_lines({"currency": "EUR", "months": []}) == ["Nothing is earned yet."]


def test_money_is_exact_however_large() -> None:
    assert money(2**53 - 1, "EUR") == "90071992547409.91 EUR"
    assert money(-7, "EUR") == "-0.07 EUR"
