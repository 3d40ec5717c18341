"""What a relay is paid, and to whom, before and after it has taken another key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from farcast.node.verify import verify
from farcast.origin.accounts import Accounts
from farcast.origin.money.closing import Closing
from farcast.origin.money.ledger import Ledger
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
    """An origin whose relay was enrolled with a payee."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accounts = Accounts(folder / "accounts.db")
        self.roster = Roster(self.accounts, Identity(b"\1" * 32))
        self.roster.enrol(self.accounts.invite("relay", FIRST_MS), record(RELAY, "carla", FIRST_MS), RELAY.key, FIRST_MS)  # fmt: skip # noqa: E501
        self.intake = open_intake(folder)
        self.ledger = Ledger(folder / "ledger.db")
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
