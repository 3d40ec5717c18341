from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcast.origin.accounts import INVITE_DAYS, MAX_DEVICES, Account, Accounts, Payee
from farcast.protocol.errors import LocalError, RefusedError, UsageError
from farcast.protocol.ticket import DAY_MS

NOW_MS = 1_700_000_000_000
PHONE, TELEVISION, OTHER = b"\1" * 32, b"\2" * 32, b"\3" * 32


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    accounts = Accounts(tmp_path / "accounts.db")
    yield accounts
    accounts.close()


def refused(accounts: Accounts, token: str, device: bytes, now_ms: int = NOW_MS) -> str:
    with pytest.raises(RefusedError) as caught:
        accounts.enrol(token, device, now_ms)
    assert caught.value.status in (403, 409)
    return caught.value.reason


def test_an_account_is_a_random_pseudonym_that_survives_a_restart(accounts: Accounts, tmp_path: Path) -> None:
    accounts.add("alice", NOW_MS)
    accounts.add("bob", NOW_MS)
    alice, bob = accounts.pseudonym("alice"), accounts.pseudonym("bob")
    assert len(alice) == len(bob) == 16
    assert alice != bob
    again = Accounts(tmp_path / "accounts.db")
    assert again.pseudonym("alice") == alice
    assert again.accounts() == [Account(alice, "alice", 0, None), Account(bob, "bob", 0, None)]
    again.close()


def test_a_token_enrols_one_device_once(accounts: Accounts) -> None:
    token = accounts.add("alice", NOW_MS)
    assert accounts.enrol(token, PHONE, NOW_MS) == 1
    assert accounts.enrol(token, PHONE, NOW_MS) == 1  # its first answer may have been lost
    assert refused(accounts, token, TELEVISION) == "spent_invite"
    holder = accounts.holder(PHONE)
    assert (holder.account, holder.device) == (accounts.pseudonym("alice"), 1)


def test_another_token_enrols_another_device_of_the_account(accounts: Accounts) -> None:
    accounts.enrol(accounts.add("alice", NOW_MS), PHONE, NOW_MS)
    assert accounts.enrol(accounts.invite("viewer", NOW_MS, account="alice"), TELEVISION, NOW_MS) == 2
    assert accounts.accounts()[0].devices == 2


def test_a_device_belongs_to_one_account(accounts: Accounts) -> None:
    accounts.enrol(accounts.add("alice", NOW_MS), PHONE, NOW_MS)
    token = accounts.add("bob", NOW_MS)
    assert refused(accounts, token, PHONE) == "other_account"
    assert accounts.enrol(token, OTHER, NOW_MS) == 1  # the refusal did not spend the token


def test_a_wrong_an_expired_and_a_relays_token_are_refused(accounts: Accounts) -> None:
    token = accounts.add("alice", NOW_MS)
    assert refused(accounts, token[:-1] + ("A" if token[-1] != "A" else "B"), PHONE) == "bad_invite"
    assert refused(accounts, token, PHONE, NOW_MS + INVITE_DAYS * DAY_MS) == "old_invite"
    assert refused(accounts, accounts.invite("relay", NOW_MS), PHONE) == "bad_invite"


def test_no_token_is_on_the_disk_in_the_clear(accounts: Accounts, tmp_path: Path) -> None:
    token = accounts.add("alice", NOW_MS)
    assert all(token.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_an_account_has_a_bounded_number_of_devices(accounts: Accounts) -> None:
    token = accounts.add("alice", NOW_MS)
    for number in range(MAX_DEVICES):
        accounts.enrol(token, bytes([number + 1]) * 32, NOW_MS)
        token = accounts.invite("viewer", NOW_MS, account="alice")
    assert refused(accounts, token, b"\xff" * 32) == "too_many_devices"


def test_two_devices_racing_for_one_token_end_with_one_enrolled(accounts: Accounts) -> None:
    token = accounts.add("alice", NOW_MS)
    outcomes: list[str] = []

    def race(device: bytes) -> None:
        try:
            accounts.enrol(token, device, NOW_MS)
            outcomes.append("enrolled")
        except RefusedError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=race, args=(bytes([number]) * 32,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == ["enrolled", *["spent_invite"] * 7]


def test_revocation_is_by_account_and_day(accounts: Accounts) -> None:
    accounts.add("alice", NOW_MS)
    alice = accounts.pseudonym("alice")
    assert not accounts.revoked(alice, 20_000)
    assert accounts.revoke("alice", 20_000 * DAY_MS + 5) == 20_000 * DAY_MS + 5
    assert not accounts.revoked(alice, 19_999)
    assert accounts.revoked(alice, 20_000)
    assert accounts.revoked(b"\0" * 16, 1)


def test_a_revocation_is_known_by_its_moment_stays_and_outlives_a_restart(
    accounts: Accounts, tmp_path: Path
) -> None:
    live = accounts.revocations
    accounts.add("alice", NOW_MS)
    accounts.add("bob", NOW_MS)
    alice, bob = accounts.pseudonym("alice"), accounts.pseudonym("bob")
    accounts.revoke("alice", NOW_MS)
    assert accounts.revoke("alice", NOW_MS + DAY_MS) == NOW_MS, "the first word holds"
    accounts.erase("bob", NOW_MS + 7)
    assert dict(live) == {alice: NOW_MS, bob: NOW_MS + 7}
    again = Accounts(tmp_path / "accounts.db")
    assert again.revocations == live
    again.close()


def test_a_revocation_of_a_home_that_knew_days_alone_begins_with_its_day(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.db")
    accounts.add("alice", NOW_MS)
    alice = accounts.pseudonym("alice")
    with accounts.writing() as conn:
        conn.execute("ALTER TABLE account DROP COLUMN revoked_ms")
        conn.execute("ALTER TABLE account ADD COLUMN revoked_day INTEGER")
        conn.execute("UPDATE account SET revoked_day = 20000")
        conn.execute("DELETE FROM _sqlite_migrations WHERE name = '0006_revoked_ms'")
    accounts.close()
    again = Accounts(tmp_path / "accounts.db")
    assert again.revocations == {alice: 20_000 * DAY_MS}
    again.close()


def test_erasing_forgets_the_person_and_keeps_the_pseudonym(accounts: Accounts, tmp_path: Path) -> None:
    accounts.enrol(accounts.add("alice the great", NOW_MS), PHONE, NOW_MS)
    alice = accounts.pseudonym("alice the great")
    accounts.erase("alice the great", 20_000 * DAY_MS)
    assert accounts.accounts() == [Account(alice, "", 0, 20_000 * DAY_MS)]
    assert accounts.revoked(alice, 20_000)
    with pytest.raises(UsageError):
        accounts.pseudonym("alice the great")
    with pytest.raises(RefusedError):
        accounts.holder(PHONE)
    accounts.add("alice the great", NOW_MS)  # the name is free again
    assert accounts.pseudonym("alice the great") != alice
    assert (tmp_path / "accounts.db").exists()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_name_that_cannot_be_shown_is_wrong_use(accounts: Accounts, name: str) -> None:
    with pytest.raises(UsageError):
        accounts.add(name, NOW_MS)


def test_a_taken_name_an_unknown_one_and_a_token_for_nobody_are_wrong_use(accounts: Accounts) -> None:
    accounts.add("alice", NOW_MS)
    with pytest.raises(UsageError, match="there is an account 'alice' already"):
        accounts.add("alice", NOW_MS)
    with pytest.raises(UsageError, match="there is no account 'bob'"):
        accounts.revoke("bob", 1)
    with pytest.raises(UsageError):
        accounts.invite("viewer", NOW_MS)
    with pytest.raises(UsageError):
        accounts.invite("relay", NOW_MS, account="alice")


def test_an_unknown_device_is_told_to_ask_for_an_invite(accounts: Accounts) -> None:
    with pytest.raises(RefusedError, match="ask the origin for an account invite") as caught:
        accounts.holder(PHONE)
    assert caught.value.status == 403


def test_payees_are_added_corrected_and_listed(accounts: Accounts) -> None:
    accounts.add_payee(Payee("studio.one", "Studio", ""), NOW_MS)
    accounts.add_payee(Payee("anna", "Anna", "bank"), NOW_MS)
    accounts.add_payee(Payee("studio.one", "Studio One", "bank"), NOW_MS)
    assert accounts.payees() == [Payee("anna", "Anna", "bank"), Payee("studio.one", "Studio One", "bank")]
    with pytest.raises(UsageError, match="a payee id is"):
        accounts.add_payee(Payee("Studio One", "x", ""), NOW_MS)


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LocalError, match=r"accounts\.db is damaged"):
        Accounts(tmp_path / "accounts.db")
