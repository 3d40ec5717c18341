from __future__ import annotations

import pytest
from msgspec.structs import replace

from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.rulebook import Rulebook
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.rules import Rules, rules_hash
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_MS

OLD, NEW = Rules(), Rules(gap_ms=1)


def test_the_first_rules_hold_from_the_beginning(ledger: Ledger) -> None:
    book = Rulebook(ledger)
    with pytest.raises(UsageError, match="no rules are noted yet"):
        book.at("2026-11")
    version = book.note(OLD, FIRST_MS)
    assert (version.number, version.month, version.hash) == (1, "", rules_hash(OLD))
    assert book.at("2020-01") == book.at("2026-11") == OLD


def test_a_change_holds_from_the_next_month_on_and_never_before(ledger: Ledger) -> None:
    book = Rulebook(ledger)
    book.note(OLD, FIRST_MS)
    assert book.note(NEW, CLOSE_MS - 300_001).month == "2026-12"
    assert (book.at("2026-11"), book.at("2026-12"), book.at("2030-01")) == (OLD, NEW, NEW)
    assert book.note(NEW, CLOSE_MS).number == 2


def test_a_change_taken_back_in_the_same_month_never_held(ledger: Ledger) -> None:
    book = Rulebook(ledger)
    for rules in (OLD, NEW, OLD):
        book.note(rules, FIRST_MS)
    assert book.at("2026-12") == OLD
    assert [version.number for version in book.versions()] == [1, 2, 3]


def test_a_clock_set_back_brings_no_rule_into_an_earlier_month(ledger: Ledger) -> None:
    book = Rulebook(ledger)
    book.note(OLD, CLOSE_MS)
    book.note(NEW, CLOSE_MS)
    late = book.note(replace(NEW, gap_ms=2), FIRST_MS)
    assert late.month == "2027-01"
    assert book.at("2026-12") == OLD


def test_two_boxes_note_a_change_once(place: Place, ledger: Ledger) -> None:
    other = Ledger(place)
    books = Rulebook(ledger), Rulebook(other)
    for rules in (OLD, NEW):
        for book in books:
            book.note(rules, FIRST_MS)
    assert len(Rulebook(other).versions()) == 2
    other.close()


def test_a_version_is_never_changed(ledger: Ledger) -> None:
    Rulebook(ledger).note(OLD, FIRST_MS)
    with pytest.raises(LocalError), ledger.transaction() as tx:
        tx.execute("UPDATE rulebook SET month = '2030-01'")
