"""Months settled by earlier rules: their reports are written again, and verify, after the rules changed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from farcast.node.verify import verify
from farcast.origin.money.ledger import CAPPED, Ledger
from farcast.origin.money.settlement import Outcome
from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Signed
from farcast.protocol.rules import Rules, rules_fields, rules_hash
from farcast.protocol.statement import (
    HEAD,
    Head,
    digest_of,
    encoded,
    open_head,
    read_statement,
    seal_head,
)
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import (
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    MONTH,
    RELAY,
    SETTLEMENT,
    Shelf,
    Viewer,
    account,
    batch,
    closing,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 7_000, "bob": 3_000}, size_bytes=10**12)
OTHER = SHELF.add("other", {"cat": 10_000})
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
DEC_CLOSE_MS = CLOSE_MS + 31 * DAY_MS


def watched(folder: Path) -> Ledger:
    """Account 1 watches much and pays little, account 2 the other way round; a relay brings it."""
    intake = open_intake(folder)
    for number, title, minutes in ((1, FILM, 90), (2, OTHER, 10)):
        viewer = Viewer(number)
        viewer.watch(title, minutes)
        viewer.beat(title, 3_600_000 + (minutes + 1) * 60_000, 60_000, kbytes=60_000_000)
        stamps = [NOON] * len(viewer.pulses)
        intake.batch(batch(RELAY, [viewer], viewer.pulses, stamps, number), NOON)
    december = Viewer(2, FIRST_DAY + 31)
    intake.post(post([december], december.watch(OTHER, 20)), CLOSE_MS + 2 * DAY_MS)
    intake.close()
    ledger = Ledger(folder / "ledger.db")
    ledger.book_revenue(100, FIRST_MS, b"1", account=account(1))
    ledger.book_revenue(9_900, FIRST_MS, b"2", account=account(2))
    ledger.book_revenue(1_000, CLOSE_MS + DAY_MS, b"3", account=account(2))
    return ledger


def settled(folder: Path, rules: Rules) -> Outcome:
    ledger = watched(folder)
    outcome = closing(folder, ledger, SHELF, rules).settle(MONTH, now_ms=CLOSE_MS).outcome
    ledger.close()
    return outcome


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_report_of_an_old_month_is_written_after_the_rules_changed(tmp_path: Path, version: int) -> None:
    rules = replace(Rules(), v=version)
    old = settled(tmp_path, rules)
    ledger = Ledger(tmp_path / "ledger.db")
    books = closing(tmp_path, ledger, SHELF, Rules(session_cap_ms=3_600_000, payer_factor=1))
    report = books.report(MONTH)
    assert verify(report, [SETTLEMENT.key]).statement == old.statement
    head = open_head((report / HEAD).read_bytes(), [SETTLEMENT.key])
    assert (head.statement.rules, head.statement) == (rules, old.statement)
    december = books.settle("2026-12", now_ms=DEC_CLOSE_MS).outcome.statement
    assert december.previous == old.digest
    later = books.report("2026-12")
    assert verify(later, [SETTLEMENT.key]).follows == MONTH
    ledger.verify_chain()
    ledger.close()


def test_what_the_cap_cut_stays_in_a_carry_over_of_its_own(tmp_path: Path) -> None:
    ledger = watched(tmp_path)
    books = closing(tmp_path, ledger, SHELF)
    first = books.settle(MONTH, now_ms=CLOSE_MS).outcome.statement
    assert 0 < first.capped_cents == first.carried_cents
    assert ledger.balances()[CAPPED] == -first.capped_cents
    second = books.settle("2026-12", now_ms=DEC_CLOSE_MS).outcome.statement
    assert (second.brought_cents, second.pool_cents) == (0, 950)
    assert ledger.balances()[CAPPED] == -first.capped_cents - second.capped_cents
    assert ledger.trial_balance() == 0
    ledger.close()


def test_under_the_first_rules_it_joined_the_next_pool(tmp_path: Path) -> None:
    old = settled(tmp_path, Rules(v=2)).statement
    ledger = Ledger(tmp_path / "ledger.db")
    second = closing(tmp_path, ledger, SHELF).settle("2026-12", now_ms=DEC_CLOSE_MS).outcome.statement
    assert second.brought_cents == old.carried_cents == old.capped_cents > 0
    ledger.close()


def test_a_statement_of_the_first_rules_is_named_by_the_fields_it_had(tmp_path: Path) -> None:
    old = settled(tmp_path, Rules(v=1)).statement
    data = encoded(old)
    fields = msgspec.msgpack.decode(data)
    assert (len(fields[4]), [len(line) for line in fields[20]]) == (18, [3])
    assert read_statement(data) == old
    assert digest_of(data) != digest_of(encode(old))
    assert "relay_bytes_s" not in rules_fields(old.rules)
    assert rules_hash(old.rules) != rules_hash(replace(old.rules, v=2))
    head = Head(1, old, [])
    assert open_head(seal_head(head, SETTLEMENT), [SETTLEMENT.key]) == head
    longer = encode(head)  # version 1 with the fields of version 2 is nobody's statement
    with pytest.raises(RemoteError, match="version 1"):
        open_head(encode(Signed(longer, SETTLEMENT.sign("settle", longer))), [SETTLEMENT.key])
