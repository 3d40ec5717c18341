from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcast.origin.accounts import Accounts
from farcast.origin.roster import DIRECTORY_TTL_MS, MAX_PENDING, RESIGN_MS, Roster
from farcast.protocol.directory import Endpoint, RelayRecord, open_directory
from farcast.protocol.enrol import Fault, Wish
from farcast.protocol.errors import RefusedError, RemoteError, UsageError
from farcast.protocol.identity import Identity
from farcast.protocol.rotation import seal_rotation

NOW_MS = 1_700_000_000_000
CATALOG = Identity(b"\1" * 32)
RELAY, OTHER = Identity(b"\2" * 32), Identity(b"\3" * 32)
HOUR_MS = 3_600_000


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    accounts = Accounts(tmp_path / "accounts.db")
    yield accounts
    accounts.close()


@pytest.fixture
def roster(accounts: Accounts) -> Roster:
    return Roster(accounts, CATALOG)


def record(
    relay: Identity = RELAY,
    *,
    at_ms: int = NOW_MS,
    ttl_ms: int = 24 * HOUR_MS,
    host: str = "relay.example",
    payee: str = "",
) -> bytes:
    body = RelayRecord(1, relay.key, [Endpoint(host, 7433, False)], payee, at_ms, at_ms + ttl_ms)
    return relay.seal("record", body)


def listed(roster: Roster, now_ms: int = NOW_MS) -> list[bytes]:
    directory, records = open_directory(roster.sign(now_ms), CATALOG.key)
    assert directory.expires_ms - directory.issued_ms == DIRECTORY_TTL_MS
    return [item.relay for item in records]


def test_a_relay_with_an_invite_is_approved_at_once_and_listed(accounts: Accounts, roster: Roster) -> None:
    token = accounts.invite("relay", NOW_MS)
    assert roster.enrol(token, record(payee="anna"), RELAY.key, NOW_MS) == "approved"
    assert roster.is_relay(RELAY.key)
    assert listed(roster) == [RELAY.key]
    assert roster.payee_of(RELAY.key) == "anna"
    assert roster.payee_of(OTHER.key) == ""
    assert Roster(accounts, CATALOG).is_relay(RELAY.key)
    with pytest.raises(RefusedError, match="used already"):
        roster.enrol(token, record(OTHER), OTHER.key, NOW_MS)


def test_a_relay_without_an_invite_waits_until_it_is_judged(roster: Roster) -> None:
    assert roster.enrol("", record(), RELAY.key, NOW_MS) == "pending"
    assert not roster.is_relay(RELAY.key)
    assert listed(roster) == []
    assert roster.judge(RELAY.peer_id[-8:], "approved") == RELAY.key
    assert listed(roster) == [RELAY.key]
    roster.judge(RELAY.peer_id, "refused")
    assert (listed(roster), roster.is_relay(RELAY.key)) == ([], False)


def test_a_known_relay_renews_its_record_without_a_token_and_keeps_its_standing(
    accounts: Accounts, roster: Roster
) -> None:
    roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS)
    later_ms = NOW_MS + 20 * HOUR_MS
    assert roster.enrol("", record(at_ms=later_ms, host="new.example"), RELAY.key, later_ms) == "approved"
    assert listed(roster, NOW_MS + 30 * HOUR_MS) == [RELAY.key]
    with pytest.raises(RefusedError, match="a newer record") as caught:
        roster.enrol("", record(), RELAY.key, NOW_MS)
    assert caught.value.status == 409
    assert roster.relays()[0].record.endpoints[0].host == "new.example"


def test_a_refused_relay_stays_refused_whatever_it_brings(accounts: Accounts, roster: Roster) -> None:
    roster.enrol("", record(), RELAY.key, NOW_MS)
    roster.judge(RELAY.peer_id, "refused")
    assert roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS) == "refused"


def test_an_expired_record_is_not_listed(accounts: Accounts, roster: Roster) -> None:
    roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS)
    assert listed(roster, NOW_MS + 25 * HOUR_MS) == []


def test_the_directory_is_signed_again_when_it_changes_or_grows_old_and_not_otherwise(roster: Roster) -> None:
    assert roster.directory() is None
    first = roster.sign(NOW_MS)
    assert roster.sign(NOW_MS + RESIGN_MS - 1) == first
    second = roster.sign(NOW_MS + RESIGN_MS)
    assert second != first
    roster.enrol("", record(), RELAY.key, NOW_MS)
    roster.judge(RELAY.peer_id, "approved")
    third, _ = open_directory(roster.sign(NOW_MS), CATALOG.key)
    assert third.issued_ms == NOW_MS + RESIGN_MS + 1  # a follower takes only a later one
    assert roster.directory() == roster.sign(NOW_MS)


def test_a_record_signed_by_or_sent_for_another_is_refused(roster: Roster) -> None:
    with pytest.raises(RefusedError, match="another relay's"):
        roster.enrol("", record(), OTHER.key, NOW_MS)
    forged = bytearray(record())
    forged[-1] ^= 1
    with pytest.raises(RemoteError) as caught:
        roster.enrol("", bytes(forged), RELAY.key, NOW_MS)
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (record(at_ms=NOW_MS - 25 * HOUR_MS), "bad_times"),
        (record(at_ms=NOW_MS + HOUR_MS), "bad_times"),
        (record(ttl_ms=32 * 24 * HOUR_MS), "bad_times"),
        (record(host="127.0.0.1"), "private_endpoint"),
        (record(host="192.168.1.9"), "private_endpoint"),
        (record(host="224.0.0.1"), "private_endpoint"),
        (record(host="::1"), "private_endpoint"),
        (record(host="localhost"), "private_endpoint"),
        (record(host="box.local"), "private_endpoint"),
    ],
)
def test_a_record_with_useless_times_or_addresses_is_refused(
    roster: Roster, data: bytes, reason: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        roster.enrol("", data, RELAY.key, NOW_MS)
    assert (caught.value.reason, caught.value.status) == (reason, 400)
    assert roster.relays() == []


def test_private_addresses_are_taken_where_they_are_allowed(accounts: Accounts) -> None:
    roster = Roster(accounts, CATALOG, allow_private=True)
    assert roster.enrol("", record(host="127.0.0.1"), RELAY.key, NOW_MS) == "pending"


def test_only_so_many_strangers_may_wait(accounts: Accounts, roster: Roster) -> None:
    with accounts.writing() as conn:
        conn.executemany(
            """INSERT INTO relay (key, used, record, standing, payee, enrolled_ms, created_ms)
               VALUES (?1, ?1, ?2, 'pending', '', 0, 0)""",
            [(number.to_bytes(32, "big"), record()) for number in range(MAX_PENDING)],
        )
    with pytest.raises(RefusedError) as caught:
        roster.enrol("", record(OTHER), OTHER.key, NOW_MS)
    assert (caught.value.status, caught.value.reason) == (429, "too_many_relays")
    assert roster.enrol(accounts.invite("relay", NOW_MS), record(OTHER), OTHER.key, NOW_MS) == "approved"


def test_judging_needs_exactly_one_relay(roster: Roster) -> None:
    roster.enrol("", record(), RELAY.key, NOW_MS)
    roster.enrol("", record(OTHER), OTHER.key, NOW_MS)
    for wanted, words in (("nobody", "no relay of"), ("12D3KooW", "2 relays of"), ("", "2 relays of")):
        with pytest.raises(UsageError, match=words):
            roster.judge(wanted, "approved")


def test_why_a_relay_was_refused_is_kept_until_it_is_approved(roster: Roster) -> None:
    roster.enrol("", record(), RELAY.key, NOW_MS)
    roster.judge(RELAY.peer_id, "refused", "two in one house")
    found = roster.relay(RELAY.key)
    assert found is not None
    assert (found.standing, found.reason) == ("refused", "two in one house")
    roster.judge(RELAY.peer_id, "approved")
    found = roster.relay(RELAY.key)
    assert found is not None
    assert found.reason == ""
    assert roster.relay(OTHER.key) is None


@pytest.mark.parametrize("wish", ["unlisted", "paused", "left"])
def test_who_does_not_wish_to_be_listed_is_not_and_stays_enrolled(
    accounts: Accounts, roster: Roster, wish: Wish
) -> None:
    roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS, wish)
    assert (listed(roster), roster.is_relay(RELAY.key)) == ([], True)
    assert roster.enrol("", record(at_ms=NOW_MS + 1), RELAY.key, NOW_MS + 1, "listed") == "approved"
    assert listed(roster, NOW_MS + 1) == [RELAY.key]


def test_a_relay_that_nobody_reaches_is_left_out_until_somebody_does(
    accounts: Accounts, roster: Roster
) -> None:
    roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS)
    roster.mark(RELAY.key, [Fault("relay.example:7433", "udp", "silent")], NOW_MS)
    assert listed(roster) == [RELAY.key], "by one protocol it is reached"
    roster.mark(RELAY.key, [Fault("relay.example:7433", "both", "refused")], NOW_MS)
    assert listed(roster) == []
    assert roster.relays()[0].faults[0].why == "refused"
    roster.mark(RELAY.key, [], NOW_MS)
    assert listed(roster) == [RELAY.key]


def test_books_of_before_the_wishes_are_read_on(tmp_path: Path) -> None:
    path = tmp_path / "accounts.db"
    conn = sqlite3.connect(path)
    conn.executescript(
        """CREATE TABLE relay (key BLOB PRIMARY KEY, record BLOB NOT NULL, standing TEXT NOT NULL,
           payee TEXT NOT NULL, enrolled_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL) STRICT;
           CREATE TABLE account (pseudonym BLOB PRIMARY KEY, name TEXT, created_ms INTEGER NOT NULL,
           revoked_day INTEGER) STRICT;
           CREATE TABLE invite (hash BLOB PRIMARY KEY, kind TEXT, used_by BLOB, expires_ms INTEGER) STRICT;
           CREATE TABLE payee (id TEXT PRIMARY KEY, name TEXT, method TEXT, added_ms INTEGER) STRICT;
           CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT,
           applied_at TEXT);
           INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
           VALUES ('accounts', '0001_accounts', '2026-11-01');"""
    )
    conn.execute(
        "INSERT INTO relay VALUES (?, ?, 'approved', '', ?, ?)", (RELAY.key, record(), NOW_MS, NOW_MS)
    )
    conn.commit()
    conn.close()
    accounts = Accounts(path)
    try:
        assert listed(Roster(accounts, CATALOG)) == [RELAY.key]
    finally:
        accounts.close()


def test_a_relay_that_takes_a_new_key_stays_who_it_is(accounts: Accounts, roster: Roster) -> None:
    new, newest = Identity(b"n" * 32), Identity(b"m" * 32)
    roster.enrol(accounts.invite("relay", NOW_MS), record(payee="anna"), RELAY.key, NOW_MS)
    rotation = seal_rotation(RELAY.key, RELAY, new, NOW_MS)
    for _ in range(2):  # the answer may be lost
        assert roster.rotate(rotation, new.key, NOW_MS) == RELAY.key
    assert listed(roster) == [], "until the new key has signed a record"
    assert (roster.is_relay(RELAY.key), roster.is_relay(new.key)) == (False, True)
    assert roster.enrol("", record(new, payee="anna"), new.key, NOW_MS) == "approved"
    assert listed(roster) == [new.key]
    [relay] = roster.relays()
    assert relay.peer_id == RELAY.peer_id
    with pytest.raises(RefusedError, match="given up for another key"):
        roster.enrol("", record(), RELAY.key, NOW_MS)
    roster.rotate(seal_rotation(RELAY.key, new, newest, NOW_MS), newest.key, NOW_MS)
    assert roster.paid() == dict.fromkeys((RELAY.key, new.key, newest.key), RELAY.key)
    assert {roster.payee_of(key) for key in roster.paid()} == {"anna"}
    assert Roster(accounts, CATALOG).paid() == roster.paid()
    roster.judge(RELAY.peer_id, "refused")
    assert roster.paid() == {}


def test_a_rotation_that_cannot_be_is_refused(accounts: Accounts, roster: Roster) -> None:
    new = Identity(b"n" * 32)
    roster.enrol(accounts.invite("relay", NOW_MS), record(), RELAY.key, NOW_MS)
    roster.enrol("", record(OTHER), OTHER.key, NOW_MS)
    for data, signer, reason in (
        (seal_rotation(RELAY.key, RELAY, new, NOW_MS), RELAY.key, "wrong_key"),
        (seal_rotation(new.key, new, OTHER, NOW_MS), OTHER.key, "unknown_relay"),
        (seal_rotation(OTHER.key, RELAY, new, NOW_MS), new.key, "unknown_relay"),
        (seal_rotation(RELAY.key, RELAY, OTHER, NOW_MS), OTHER.key, "known_key"),
        (seal_rotation(RELAY.key, RELAY, new, NOW_MS + 2 * HOUR_MS), new.key, "bad_times"),
    ):
        with pytest.raises(RefusedError) as caught:
            roster.rotate(data, signer, NOW_MS)
        assert caught.value.reason == reason
    assert roster.is_relay(RELAY.key)
