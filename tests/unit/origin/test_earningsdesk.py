"""One number: a report, a command, a metric and the answer to a relay or payee say the same."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.http.nonces import NonceBook
from farcast.node.report import quiet
from farcast.origin import earningsdesk
from farcast.origin.earningsdesk import EarningsDesk
from farcast.origin.service import OriginService
from farcast.protocol.codec import decode, encode
from farcast.protocol.earnings import EARNINGS_PATH, EarningsAnswer, EarningsRequest
from farcast.protocol.errors import UsageError
from farcast.protocol.identity import Identity
from farcast.protocol.request import authorization, read_challenge
from farcast.protocol.rules import DAY_MS
from farcast.tests.unit.origin.countinghouse import CountingHouse
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, MONTH, RELAY

BOX, STRANGER = Identity(b"\x21" * 32), Identity(b"\x22" * 32)


class Counter:
    """The desk behind a router, on channels that count as private."""

    def __init__(self, house: CountingHouse) -> None:
        self.house = house
        house.bursary.open()
        self.registry = CollectorRegistry()
        office = house.office
        self.audience = office.keys.box.key
        service = OriginService(
            office.keys, office.accounts, office.roster, office.log, office.treasury.intake,
            NonceBook(b"\6" * 32, self.audience), lambda: house.now_ms, self.registry,
        )  # fmt: skip
        self.desk = EarningsDesk(
            house.bursary.book, office.accounts, office.roster, service, lambda: house.now_ms, self.registry
        )
        self.router = Router(Hosts())
        self.desk.add_to(self.router)

    async def send(self, body: bytes = b"", *, proof: str = "", secure: bool = True) -> Answer:
        """Make one request from the Internet."""

        async def read(limit_bytes: int) -> bytes:
            assert len(body) <= limit_bytes
            return body

        headers = {"host": "203.0.113.1:7433", **({"authorization": proof} if proof else {})}
        return await self.router.handle(
            Exchange.of("POST", EARNINGS_PATH, headers, peer="203.0.113.9", secure=secure, reader=read)
        )

    async def ask(self, signer: Identity, month: str = "") -> Answer:
        """Ask as a box does: for a nonce, then signed over it."""
        body, first = encode(EarningsRequest(1, month)), await self.send()
        assert first.status == 401
        proof = authorization(
            signer, method="POST", path=EARNINGS_PATH, body=body, audience=self.audience,
            at_ms=self.house.now_ms, nonce=read_challenge(first.headers["www-authenticate"]),
        )  # fmt: skip
        return await self.send(body, proof=proof)

    async def told(self, signer: Identity, month: str = "") -> EarningsAnswer:
        """Ask and read the answer."""
        answer = await self.ask(signer, month)
        assert answer.status == 200, answer.body
        assert isinstance(answer.body, bytes)
        return decode(EarningsAnswer, answer.body, limit_bytes=1 << 20)


@pytest.fixture
def counter(house: CountingHouse) -> Counter:
    """A relay that serves, two payees, an account that is held, and one pulse that does not count."""
    film = house.film("film", {"ann": 7_000, "bob": 3_000})
    solo = house.film("solo", {"ann": 10_000})
    house.relay()
    house.office.payees.let_see("ann", BOX.peer_id)
    for number in range(1, 5):
        house.watch(number, film, 10, kbytes=100_000)
    house.watch(5, solo, 100, kbytes=1_000)
    house.office.money.book("revenue", 100_000)
    house.now_ms = (FIRST_DAY + 20) * DAY_MS
    return Counter(house)


ENVIRON = {"FARCAST_MONEY_MEDIAN_ACCOUNTS": "5", "FARCAST_MONEY_RELAY_CENTS_PER_GB": "70"}


@pytest.fixture
def house(open_house: Any) -> CountingHouse:  # noqa: ANN401 - a fixture's factory
    house: CountingHouse = open_house(ENVIRON)
    return house


def settle(house: CountingHouse) -> None:
    house.now_ms = CLOSE_MS
    house.office.money.settle(MONTH)


def cents(found: dict[str, Any], side: str, name: str, field: str) -> int:
    (row,) = [row for row in found["months"][0][side] if row[side.rstrip("s")] == name]
    return int(row[field])


def test_command_and_metric_say_what_the_report_says(counter: Counter) -> None:
    house, ids = counter.house, RELAY.peer_id
    before = house.bursary.earnings()
    settle(house)
    folder = house.office.money.report(MONTH)["folder"]
    rows = {name: _rows(folder, f"{name}.csv") for name in ("relays", "creators")}
    relay_cents = sum(int(row["cents"]) for row in rows["relays"] if row["relay"] == ids)
    paid = {name: _sum(rows["creators"], name, "paid_cents") for name in ("ann", "bob")}
    held = {name: _sum(rows["creators"], name, "held_cents") for name in ("ann", "bob")}
    assert relay_cents == 287
    assert held["ann"] > 0
    after = house.office.perform("earnings", {"month": MONTH}, quiet)
    for found, state in ((before, "provisional"), (after, "settled")):
        assert found["months"][0]["state"] == state
        assert cents(found, "relays", ids, "cents") == relay_cents
        for name, value in paid.items():
            assert cents(found, "payees", name, "paid_cents") == value
            assert cents(found, "payees", name, "held_cents") == held[name]
    house.bursary.book.refresh(house.now_ms)
    metric = house.registry.get_sample_value
    for name, value in paid.items():
        labels = {"kind": "payee", "id": name, "state": "settled"}
        assert metric("farcast_origin_earnings_cents", labels) == value
        assert metric("farcast_origin_earnings_held_cents", {"id": name, "state": "settled"}) == held[name]
    labels = {"kind": "relay", "id": ids, "state": "settled"}
    assert metric("farcast_origin_earnings_cents", labels) == relay_cents
    totals = json.loads((house.home / "reports" / MONTH / "report.json").read_text())["settlement"]
    assert totals["payouts"] == [{"payee": name, "cents": paid[name]} for name in sorted(paid)]
    assert totals["relay_pay_cents"] == relay_cents


async def test_a_relay_is_told_its_own_number_before_and_after_settlement(counter: Counter) -> None:
    (open_,) = (await counter.told(RELAY)).months
    assert (open_.settled, open_.payees) == (False, [])
    (line,) = open_.relays
    assert (line.relay, line.kbytes, line.cents_per_gb, line.cents) == (RELAY.key, 4_100_000, 70, 287)
    settle(counter.house)
    counter.house.now_ms = CLOSE_MS + 1
    december, november = (await counter.told(RELAY)).months
    assert (december.month, december.settled, december.relays[0].cents) == ("2026-12", False, 0)
    assert (november.month, november.settled, november.relays) == (MONTH, True, [line])
    assert (await counter.told(RELAY, MONTH)).months == [november]


async def test_a_payees_box_is_told_of_titles_held_money_and_why_seconds_do_not_count(
    counter: Counter,
) -> None:
    (month,) = (await counter.told(BOX)).months
    assert month.relays == []
    (ann,) = month.payees
    assert [(one.title, one.viewed_ms, one.points) for one in ann.titles] == [
        ("solo", 100 * 60_000, 10_000),
        ("film", 40 * 60_000, 7_000),
    ]
    assert ann.share_cents == ann.paid_cents + ann.held_cents + ann.capped_cents
    assert ann.held_cents > ann.paid_cents > 0


async def test_a_pulse_shows_as_soon_as_it_is_in(counter: Counter) -> None:
    house = counter.house
    before = (await counter.told(BOX)).months[0].payees[0].titles[0].viewed_ms
    film = house.film("solo", {"ann": 10_000})
    house.now_ms += 3_600_000
    house.watch(6, film, 3, day=FIRST_DAY + 19)
    house.watch(6, film, 3, day=FIRST_DAY + 19, from_min=900, late_ms=130_000)
    (month,) = (await counter.told(BOX)).months
    assert month.payees[0].titles[0].viewed_ms - before == 6 * 60_000


async def test_what_is_not_counted_is_named_by_its_code(counter: Counter) -> None:
    house = counter.house
    film = house.film("solo", {"ann": 10_000})
    house.watch(7, film, 6 * 60 + 5)  # six hours are the most of one session
    (ann,) = (await counter.told(BOX)).months[0].payees
    assert {one.code: one.ms for one in ann.uncounted} == {"session_cap": 5 * 60_000}


async def test_nobody_is_told_of_others(counter: Counter) -> None:
    answer = await counter.ask(STRANGER)
    assert answer.status == 403
    assert b"payee key" in (answer.body if isinstance(answer.body, bytes) else b"")
    assert (await counter.send(secure=False)).status == 403
    assert (await counter.told(BOX)).months[0].relays == []


async def test_a_month_to_come_is_refused_and_questions_are_bounded(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await counter.ask(RELAY, "2027-03")).status == 404
    monkeypatch.setattr(earningsdesk, "ASKS_A_DAY", 1)
    assert (await counter.ask(RELAY)).status == 429
    counter.house.now_ms += DAY_MS
    assert (await counter.ask(RELAY)).status == 200


async def test_without_revenue_the_relay_sees_its_pay_and_the_payee_why_not(house: CountingHouse) -> None:
    film = house.film("film", {"ann": 10_000})
    house.relay()
    house.watch(1, film, 10, kbytes=100_000)
    house.office.payees.let_see("ann", BOX.peer_id)
    house.now_ms += DAY_MS
    counter = Counter(house)
    (relay,) = (await counter.told(RELAY)).months
    (payee,) = (await counter.told(BOX)).months
    assert (relay.revenue_known, relay.relays[0].cents) == (False, 70)
    assert (payee.payees[0].share_cents, payee.payees[0].titles[0].viewed_ms) == (0, 600_000)


def test_unknown_names_are_refused(house: CountingHouse) -> None:
    with pytest.raises(UsageError, match="no relay of this origin fits"):
        house.bursary.earnings(relay="12D3KooWx")
    with pytest.raises(UsageError, match="has not begun"):
        house.bursary.earnings(month="2027-03")
    with pytest.raises(UsageError, match="is no month"):
        house.bursary.earnings(month="2026-13")
    with pytest.raises(UsageError, match="no payee 'eve'"):
        house.office.payees.let_see("eve", BOX.peer_id)
    with pytest.raises(UsageError, match="is no box's id"):
        house.office.payees.let_see("eve", "12D3KooW")


def _rows(folder: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((Path(folder) / name).read_text().splitlines()))


def _sum(rows: list[dict[str, str]], payee: str, field: str) -> int:
    return sum(int(row[field]) for row in rows if row["payee"] == payee)
