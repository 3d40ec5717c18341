"""The desk over a real home's accounts and books: commands in, masked facts out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from farcast.node.settings import Settings
from farcast.origin.accounts import Accounts
from farcast.origin.money import bookings
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.treasury import Treasury
from farcast.origin.payout.desk import PayoutDesk
from farcast.origin.payout.payees import Wishes
from farcast.protocol.errors import UsageError

JUNE_5_MS = 1_780_617_600_000
DAY_MS = 86_400_000
IBAN = "DE89370400440532013000"
SETTINGS = {
    "FARCAST_PAYOUT_NAME": "Farcast",
    "FARCAST_PAYOUT_IBAN": "NL91 ABNA 0417 1643 00",
    "FARCAST_MONEY_WITHHOLDING": "DE=1500",
}


class House:
    """A desk, its books and its clock."""

    def __init__(self, home: Path, settings: dict[str, str] = SETTINGS) -> None:
        self.now_ms = JUNE_5_MS
        self.ledger = Ledger(home / "ledger.db", "EUR")
        self.accounts = Accounts(home / "accounts.db")
        self.registry = CollectorRegistry()
        treasury = SimpleNamespace(opened_ledger=lambda: self.ledger, begun=True)
        self.desk = PayoutDesk(
            home, Settings.load(None, settings), self.accounts, cast("Treasury", treasury), b"origin",
            lambda: self.now_ms, self.registry,
        )  # fmt: skip

    def owe(self, payee: str, cents: int) -> None:
        """Let the books owe something."""
        self.ledger.book(bookings.collaboration(cents, {payee: 10_000}), self.now_ms, os.urandom(8))

    def add(self, payee: str, **terms: Any) -> dict[str, Any]:  # noqa: ANN401 - any of the wishes
        """Add a payee."""
        return self.desk.put_payee(payee, Wishes(**terms), new=True)

    def metrics(self) -> str:
        """Return what Prometheus is told."""
        return generate_latest(self.registry).decode()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    it = House(tmp_path)
    yield it
    it.ledger.close()
    it.accounts.close()


def test_a_run_writes_a_file_and_a_bank_ends_it(house: House, tmp_path: Path) -> None:
    house.add("ada", method="sepa", iban=IBAN, region="DE", name="Ada")
    house.owe("ada", 10_000)
    planned = house.desk.run(dry_run=True)
    assert (planned["net_cents"], planned["tax_cents"], planned["payouts"][0]["id"]) == (8_500, 1_500, "")
    assert not (tmp_path / "payouts").exists()
    (row,) = house.desk.run()["payouts"]
    path = tmp_path / "payouts" / row["reference"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"<IBAN>{IBAN}</IBAN>" in path.read_text()
    answer = tmp_path / "camt.xml"
    entry = (
        f"<Ntry><CdtDbtInd>DBIT</CdtDbtInd><Sts>BOOK</Sts><NtryDtls><TxDtls><Refs><EndToEndId>{row['id']}"
        "</EndToEndId></Refs><Amt>{}</Amt></TxDtls></NtryDtls></Ntry>"
    )
    whole = "<Document><BkToCstmrDbtCdtNtfctn><Ntfctn>{}</Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"
    answer.write_text(whole.format(entry.format("84.99")))
    assert "8499 cents, the books 8500" in house.desk.read(str(answer))["ignored"][0]["why"]
    answer.write_text(whole.format(entry.format("85.00")))
    for _ in range(2):
        assert house.desk.read(str(answer))["payouts"] == [{"id": row["id"], "state": "paid", "why": ""}]
    assert house.ledger.balances()["assets:received"] == 10_000 - 8_500
    assert 'farcast_origin_payouts{state="paid"} 1.0' in house.metrics()
    assert 'farcast_origin_payout_cents_total{kind="sepa",state="paid"} 10000.0' in house.metrics()


def test_nothing_prints_a_whole_account(house: House) -> None:
    shown = [house.add("ada", method="sepa", iban=IBAN, bic="DEUTDEFF", account="acct_0123456789")]
    house.owe("ada", 10_000)
    shown += [house.desk.list_payees(), house.desk.run(), house.desk.overview()]
    shown += [house.desk.show(house.desk.overview()["payouts"][0]["id"])]
    with pytest.raises(UsageError) as caught:
        house.desk.put_payee("ada", Wishes(iban=IBAN[:-1] + "1"), new=False)
    text = f"{shown} {caught.value} {house.metrics()}"
    for secret in (IBAN, IBAN[:-1], "DEUTDEFF", "acct_0123456789"):
        assert secret not in text
    assert "DE89...3000" in text
    books = Path(house.ledger.name).read_bytes()
    assert IBAN.encode() not in books


def test_setting_one_term_leaves_the_others(house: House) -> None:
    house.add("ada", method="sepa", iban=IBAN, region="DE", name="Ada")
    found = house.desk.put_payee("ada", Wishes(points=0, blocked="a court says so"), new=False)
    assert found["withholding_basis_points"] == 0
    assert (found["name"], found["iban"], found["region"]) == ("Ada", "DE89...3000", "DE")
    found = house.desk.put_payee("ada", Wishes(points=-1, blocked=""), new=False)
    assert (found["withholding_basis_points"], found["blocked"]) == (None, "")


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"method": "cheque"}, "paid by one of http, manual, sepa"),
        ({"iban": "DE00"}, "an IBAN is"),
        ({"region": "Germany"}, "ISO 3166"),
        ({"points": 10_000}, "from 0 to 9999"),
        ({"name": "a\nb"}, "--name is one line"),
    ],
)
def test_terms_that_cannot_be_are_refused(house: House, wishes: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        house.add("ada", **wishes)
    assert house.desk.list_payees() == {"payees": []}


def test_only_somebody_known_is_changed(house: House) -> None:
    with pytest.raises(UsageError, match="payee add ada"):
        house.desk.put_payee("ada", Wishes(method="manual"), new=False)


def test_what_waits_says_why(house: House) -> None:
    house.add("ada", method="sepa")
    house.add("ben")
    house.add("cyd", method="http", account="acct")
    for payee in ("ada", "ben", "cyd", "dan"):
        house.owe(payee, 6_000)
    why = {row["payee"]: row["reason"] for row in house.desk.overview("accrued")["owed"]}
    assert why["ada"].startswith("no IBAN")
    assert why["ben"].startswith("no method")
    assert why["cyd"].startswith("no provider is set")
    assert why["dan"].startswith("nobody knows dan")
    assert house.desk.overview()["troubles"] == [{"method": "http", "trouble": why["cyd"]}]
    assert house.desk.run()["payouts"] == []


def test_the_month_is_run_once_on_its_day(house: House) -> None:
    house.add("ada", method="manual")
    house.owe("ada", 5_000)
    house.now_ms = JUNE_5_MS - 1
    house.desk.tend()
    assert house.desk.overview()["payouts"] == []
    house.now_ms = JUNE_5_MS + 9 * DAY_MS  # May is not settled: it waits until the 15th
    house.desk.tend()
    assert house.desk.overview()["payouts"] == []
    house.now_ms = JUNE_5_MS + 10 * DAY_MS
    house.desk.tend()
    assert [row["state"] for row in house.desk.overview()["payouts"]] == ["sent"]
    house.owe("ada", 5_000)
    house.now_ms += DAY_MS
    assert house.desk.monthly() is None
    assert len(house.desk.overview()["payouts"]) == 1


def test_a_failed_payout_is_owed_again_and_goes_out_under_a_new_id(house: House) -> None:
    house.add("ada", method="manual", region="DE")
    house.owe("ada", 5_000)
    (first,) = house.desk.run()["payouts"]
    assert house.desk.fail(first["id"], "wrong account")["state"] == "failed"
    assert house.ledger.balances("withheld:")["withheld:DE"] == 0
    (second,) = house.desk.run()["payouts"]
    assert second["id"] != first["id"]
    assert second["gross_cents"] == 5_000
    with pytest.raises(UsageError, match="that stands"):
        house.desk.confirm(first["id"])
    with pytest.raises(UsageError, match="one line"):
        house.desk.fail(second["id"], " ")


def test_a_second_currency_or_a_bad_account_stops_sepa_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    it = House(tmp_path / "a", {**SETTINGS, "FARCAST_PAYOUT_IBAN": "NL91ABNA0417164301"})
    it.add("ada", method="sepa", iban=IBAN)
    it.add("ben", method="manual")
    it.owe("ada", 6_000)
    it.owe("ben", 6_000)
    found = it.desk.run()
    assert [row["payee"] for row in found["payouts"]] == ["ben"]
    assert "check digits" in found["troubles"][0]["trouble"]
    it.ledger.close()
    it.accounts.close()


def test_a_state_that_is_none_is_refused(house: House) -> None:
    with pytest.raises(UsageError, match="--state is one of accrued"):
        house.desk.overview("lost")
