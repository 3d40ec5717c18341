"""What a relay is paid, and to whom, before and after it has taken another key."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farcast.node.verify import verify
from farcast.origin.accounts import Accounts
from farcast.origin.money import backpay
from farcast.origin.money.closing import Closing
from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.transaction import Posting
from farcast.origin.roster import Roster
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.errors import RefusedError, RemoteError
from farcast.protocol.identity import Identity, peer_id
from farcast.protocol.ports import TierName
from farcast.protocol.pulse import ACTIVE, START, Served, Viewing
from farcast.protocol.rotation import seal_rotation
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CLOSE_MS,
    FIRST_MS,
    MONTH,
    OFFICE,
    RELAY,
    SETTLEMENT,
    Shelf,
    Viewer,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000}, size_bytes=10**13)
NEW, STRANGER = Identity(b"\x71" * 32), Identity(b"\x72" * 32)
NOW_MS = FIRST_MS + 5 * DAY_MS


def record(relay: Identity, payee: str, at_ms: int) -> bytes:
    body = RelayRecord(
        1, relay.key, [Endpoint("relay.example", 7433, False)], payee, at_ms, at_ms + 30 * DAY_MS
    )
    return relay.seal("record", body)


class House:
    """An origin whose relay was enrolled with a payee, or with none."""

    def __init__(self, folder: Path, place: Place | None = None, payee: str = "carla") -> None:
        self.folder = folder
        self.accounts = Accounts(folder / "accounts.db")
        self.roster = Roster(self.accounts, Identity(b"\1" * 32))
        self.roster.enrol(self.accounts.invite("relay", FIRST_MS), record(RELAY, payee, FIRST_MS), RELAY.key, FIRST_MS)  # fmt: skip # noqa: E501
        self.intake = open_intake(folder)
        self.ledger = Ledger(place or folder / "ledger.db")
        self.ledger.book_revenue(50_000, FIRST_MS, b"1")
        self.books = Closing(
            folder / "intake", self.ledger, folder / "reports", OFFICE, SETTLEMENT, SHELF.manifests.get,
            self.roster.paid, lambda _: Rules(), self.roster.payee_of,
        )  # fmt: skip

    def serve(self, number: int, relay: Identity, kbytes: int) -> None:
        """Let a viewer sign that a relay's key brought so many kilobytes."""
        viewer = Viewer(number)
        at_ms = viewer.day * DAY_MS + 3_600_000
        pulses = [
            viewer.signer.sign(at_ms, 0, 0, Viewing(START, FILM, 0, 0, [], bytes(16))),
            viewer.signer.sign(
                at_ms + 60_000, 60_000, 0,
                Viewing(ACTIVE, FILM, 0, 0, [Served(TierName.RELAY, relay.key[:16], kbytes)], bytes(16)),
            ),
        ]  # fmt: skip
        self.intake.post(post([viewer], pulses), NOW_MS)

    def close(self) -> None:
        """Close its files."""
        self.intake.close()
        self.ledger.close()
        self.accounts.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


def test_a_rotated_relay_has_one_line_and_its_payee_one_balance(house: House) -> None:
    house.serve(1, RELAY, 3_000_000)
    house.roster.rotate(seal_rotation(RELAY.key, RELAY, NEW, NOW_MS), NEW.key, NOW_MS)
    house.roster.enrol("", record(NEW, "carla", NOW_MS), NEW.key, NOW_MS)
    house.serve(2, NEW, 2_600_000)
    house.serve(3, STRANGER, 9_000_000)
    outcome = house.books.settle(MONTH, now_ms=CLOSE_MS).outcome
    [line] = outcome.statement.relays
    assert (line.relay, line.keys, line.kbytes, line.cents) == (RELAY.key, [NEW.key], 5_600_000, 11)
    assert house.ledger.balances("payable:carla") == {"payable:carla": -11}
    assert house.ledger.balances("relay:") == {}
    assert outcome.statement.relay_pay_cents == 11, "rounded down once, not once for each key"


def test_what_was_settled_comes_out_again_whatever_becomes_of_the_relay(house: House) -> None:
    house.serve(1, RELAY, 3_000_000)
    house.serve(2, NEW, 2_600_000)  # a key that is nobody's yet
    settled = house.books.settle(MONTH, now_ms=CLOSE_MS).outcome
    assert [(line.kbytes, line.keys) for line in settled.statement.relays] == [(3_000_000, [])]
    house.roster.rotate(seal_rotation(RELAY.key, RELAY, NEW, NOW_MS), NEW.key, NOW_MS)
    assert verify(house.books.report(MONTH), [SETTLEMENT.key]).ok
    house.roster.judge(peer_id(RELAY.key), "refused")
    report = house.books.report(MONTH)
    assert verify(report, [SETTLEMENT.key]).ok
    assert (report / "relays.csv").read_text().splitlines()[1:] == [f"{RELAY.peer_id},3000000,6,0"]


def test_a_payee_is_changed_by_the_relays_own_key_alone(house: House) -> None:
    with pytest.raises(RefusedError):  # signed by the relay long ago, brought by another
        house.roster.enrol("", record(RELAY, "mallory", NOW_MS), STRANGER.key, NOW_MS)
    forged = STRANGER.seal("record", RelayRecord(1, RELAY.key, [Endpoint("x.example", 1, False)], "mallory", NOW_MS, NOW_MS + 1))  # fmt: skip # noqa: E501
    with pytest.raises(RemoteError):
        house.roster.enrol("", forged, RELAY.key, NOW_MS)
    assert house.roster.payee_of(RELAY.key) == "carla"
    house.roster.enrol("", record(RELAY, "dora", NOW_MS), RELAY.key, NOW_MS)
    assert house.roster.payee_of(RELAY.key) == "dora"
    with pytest.raises(RefusedError, match="newer"):  # an old record kept by somebody
        house.roster.enrol("", record(RELAY, "carla", FIRST_MS), RELAY.key, NOW_MS)
    house.roster.rotate(seal_rotation(RELAY.key, RELAY, NEW, NOW_MS), NEW.key, NOW_MS)
    with pytest.raises(RefusedError, match="given up"):
        house.roster.enrol("", record(RELAY, "mallory", NOW_MS + 1), RELAY.key, NOW_MS + 1)
    assert house.roster.payee_of(NEW.key) == "dora"


def test_a_relay_that_names_nobody_keeps_its_pay_under_its_first_key(house: House) -> None:
    house.serve(1, RELAY, 3_000_000)
    house.roster.enrol("", record(RELAY, "", NOW_MS), RELAY.key, NOW_MS)
    house.roster.rotate(seal_rotation(RELAY.key, RELAY, NEW, NOW_MS), NEW.key, NOW_MS)
    house.serve(2, NEW, 2_600_000)
    house.books.settle(MONTH, now_ms=CLOSE_MS)
    assert house.ledger.balances("relay:") == {f"relay:{RELAY.peer_id}": -11}


def test_no_account_pays_a_relay_for_more_of_a_title_than_there_is(house: House) -> None:
    small = SHELF.add("short", {"ann": 10_000}, size_bytes=2_000_000_000)
    viewer = Viewer(9)
    at_ms = viewer.day * DAY_MS + 3_600_000
    served = [Served(TierName.RELAY, RELAY.key[:16], 1_500_000)]
    pulses = [viewer.signer.sign(at_ms, 0, 0, Viewing(START, small, 0, 0, [], bytes(16)))]
    pulses += [
        viewer.signer.sign(at_ms + n * 60_000, 60_000, 0, Viewing(ACTIVE, small, 0, 0, served, bytes(16)))
        for n in range(1, 5)
    ]
    house.intake.post(post([viewer], pulses), NOW_MS)
    [line] = house.books.settle(MONTH, now_ms=CLOSE_MS).outcome.statement.relays
    assert (line.kbytes, line.cents) == (2_000_000, 4)


@pytest.fixture
def nameless(tmp_path: Path, place: Place) -> Iterator[House]:
    """Yield an origin whose relay named no payee, with a month settled and a key rotated since."""
    house = House(tmp_path, place, payee="")
    house.serve(1, RELAY, 3_000_000)
    house.books.settle(MONTH, now_ms=CLOSE_MS)
    house.roster.rotate(seal_rotation(RELAY.key, RELAY, NEW, NOW_MS), NEW.key, NOW_MS)
    yield house
    house.close()


def test_what_stood_for_a_relay_moves_once_to_the_payee_its_new_key_names(
    nameless: House, place: Place
) -> None:
    ledger, roster = nameless.ledger, nameless.roster
    stands = f"relay:{RELAY.peer_id}"
    assert ledger.balances("relay:") == {stands: -6}
    assert backpay.move(ledger, roster.payees, CLOSE_MS + 1) == {}, "nobody is named yet"
    roster.enrol("", record(NEW, "dora", NOW_MS), NEW.key, NOW_MS)
    before = ledger.head()[0]
    assert backpay.move(ledger, roster.payees, CLOSE_MS + 2) == {"dora": 6}
    assert backpay.move(ledger, roster.payees, CLOSE_MS + 3) == {}
    other = Ledger(place)  # another process over the same books
    assert backpay.move(other, roster.payees, CLOSE_MS + 4) == {}
    other.close()
    assert ledger.head()[0] == before + 1
    assert ledger.balances("relay:") == {stands: 0}
    assert ledger.balances("payable:dora") == {"payable:dora": -6}
    (entry,) = ledger.entries("payable:dora")
    assert (entry.kind, entry.memo) == ("relay_payee", f"{stands} names dora")
    assert ledger.verify_chain() == before + 1
    assert nameless.books.settle(MONTH, now_ms=CLOSE_MS).posted is False, "the month stands as it was"
    assert verify(nameless.books.report(MONTH), [SETTLEMENT.key]).ok


def test_what_stands_again_after_a_payee_was_taken_back_moves_again(nameless: House) -> None:
    ledger, roster = nameless.ledger, nameless.roster
    roster.enrol("", record(NEW, "dora", NOW_MS), NEW.key, NOW_MS)
    backpay.move(ledger, roster.payees, CLOSE_MS + 1)
    with ledger.transaction() as tx:  # a month in which it names nobody
        lines = [Posting(f"relay:{RELAY.peer_id}", -6), Posting("pool:costs", 6)]
        tx.post("relay", b"2026-12", CLOSE_MS + 2, lines, "")
    roster.enrol("", record(NEW, "emil", NOW_MS + 1), NEW.key, NOW_MS + 1)
    assert backpay.move(ledger, roster.payees, CLOSE_MS + 3) == {"emil": 6}
    assert (ledger.balances("payable:dora"), ledger.balances("payable:emil")) == (
        {"payable:dora": -6},
        {"payable:emil": -6},
    )
    assert ledger.trial_balance() == 0


def test_eight_at_once_move_it_once(nameless: House, place: Place) -> None:
    nameless.roster.enrol("", record(NEW, "dora", NOW_MS), NEW.key, NOW_MS)
    ledgers = [Ledger(place) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(backpay.move, one, nameless.roster.payees, CLOSE_MS + 1) for one in ledgers]
        found = [job.result() for job in jobs]
    for one in ledgers:
        one.close()
    assert sorted(found, key=len) == [{}] * 7 + [{"dora": 6}]
    assert nameless.ledger.balances("payable:dora") == {"payable:dora": -6}


def test_a_relay_that_was_refused_moves_nothing(nameless: House) -> None:
    nameless.roster.enrol("", record(NEW, "dora", NOW_MS), NEW.key, NOW_MS)
    nameless.roster.judge(peer_id(RELAY.key), "refused")
    assert backpay.move(nameless.ledger, nameless.roster.payees, CLOSE_MS + 1) == {}
    nameless.roster.judge(peer_id(RELAY.key), "approved")
    assert backpay.move(nameless.ledger, nameless.roster.payees, CLOSE_MS + 2) == {"dora": 6}
