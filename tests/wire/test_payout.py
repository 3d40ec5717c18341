"""Payouts against a provider that misbehaves, killed at every step: each key paid once, no cent lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger
from farcast.origin.money.transaction import Transaction
from farcast.origin.payout import sepa
from farcast.origin.payout.method import Errand
from farcast.origin.payout.order import HOUR_MS, KEY_LIFE_MS, LEASE_MS, Order, Verdict
from farcast.origin.payout.payservice import PayService
from farcast.protocol.errors import StoreFullError, UsageError
from farcast.tests.wire.payhouse import (
    OWED,
    T0,
    TERMS,
    TIMEOUT_S,
    PayHouse,
    bank_process,
    call,
    check_bank,
    fates,
    mover,
    paid,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FATES = ("late", "late_booking", "twice", "500_after", "500_before", "drop_before", "drop_after", "busy",
         "pending", "nonsense", "look_500", "look_drop", "look_html")  # fmt: skip


@pytest.fixture
def bank() -> Iterator[str]:
    with bank_process() as url:
        yield url


def house(folder: Path, url: str, now_ms: int = T0, place: Place | None = None) -> PayHouse:
    folder.mkdir(exist_ok=True)
    found = PayHouse(place or folder / "ledger.db", folder / "payouts", url, now_ms)
    OPENED.append(found)
    return found


OPENED: list[PayHouse] = []


@pytest.fixture(autouse=True)
def close_houses() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().ledger.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return the place of new books, in SQLite and then in PostgreSQL."""
    if request.param == "postgres":
        address: str = request.getfixturevalue("postgres").fresh()
        return address
    return tmp_path / "ledger.db"


def check(house: PayHouse) -> None:
    """Look through books, bank and folder when everything has ended."""
    check_bank(house)
    ended = house.ended()
    assert house.ledger.trial_balance() == 0
    house.ledger.verify_chain()
    balances = house.ledger.balances()
    assert not any(cents for account, cents in balances.items() if account.startswith("clearing:"))
    whole = sum(OWED.values())
    left = -sum(cents for account, cents in balances.items() if account.startswith(("payable:", "withheld:")))
    assert left + sum(row[3] for row in ended.values()) == whole
    house.take_files()
    assert not list(house.folder.iterdir()), "a draft was left"
    by_file = [key for key, row in ended.items() if TERMS[row[0]].method == "sepa"]
    for key in by_file:
        assert sum(key in text for text in house.taken) == 1, "a transfer is in two files, or in none"


def test_a_calm_month_pays_who_is_due_and_keeps_the_tax(bank: str, tmp_path: Path, place: Place) -> None:
    it = house(tmp_path, bank, place=place)
    it.finish(mover(bank))
    check(it)
    assert {row[0]: row[2:] for row in it.ended().values()} == {
        "ada": (1_500, 8_500),
        "ben": (1_166, 6_611),
        "cyd": (0, 5_000),
        "fay": (37_037, 86_420),
        "gil": (0, 9_001),
    }
    assert it.ledger.balances("payable:")["payable:dan"] == -6_001, "refused, so it is owed again"
    assert it.ledger.balances("payable:")["payable:eve"] == -4_999
    assert it.ledger.balances("withheld:") == {
        "withheld:DE": -2_666, "withheld:US": -37_037,
    }  # fmt: skip


@pytest.mark.parametrize("fate", FATES)
def test_each_way_to_misbehave_pays_once_all_the_same(bank: str, tmp_path: Path, fate: str) -> None:
    it = house(tmp_path, bank)
    before = "500_before" if fate.startswith("look_") else fate
    fates(bank, before, fate, fate)
    it.finish(mover(bank))
    assert call(bank, "/_books")["waiting"] in (0, 1), "the fates did not happen"
    check(it)


def test_a_request_that_is_booked_after_the_look_up_meets_its_own_key(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path, bank)
    it.terms = {"ada": TERMS["ada"]}
    call(bank, "/_fates", {"fates": ["late_booking"], "late_s": 0.6})
    it.pay()
    assert [order.state for order in it.book.orders()] == ["unknown"]
    it.now_ms += HOUR_MS
    it.paymaster.drain(it.clock_ms)  # it finds nothing
    assert [order.state for order in it.book.orders()] == ["reserved"]
    it.paymaster.drain(it.clock_ms)  # it goes again while the first is still on its way
    time.sleep(0.6)
    it.finish(mover(bank))
    assert len(paid(bank)) == 1
    assert [order.state for order in it.book.orders()] == ["paid"]


def test_after_a_day_nothing_is_sent_again_and_a_person_decides(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path, bank)
    it.terms = {"ada": TERMS["ada"]}
    fates(bank, "500_after")
    it.pay()
    (order,) = it.book.orders()
    assert order.state == "unknown"
    for hours in (25, 200):
        it.now_ms += hours * HOUR_MS
        call(bank, "/_clock", {"ms": hours * HOUR_MS})
        it.paymaster.run(it.clock_ms)
        (order,) = it.book.orders()
        assert (order.state, order.attempt) == ("unknown", 1), "the bank forgot the key: it would pay again"
    assert call(bank, "/_books")["requests"] == 1
    assert it.paymaster.decide(order.key[:8], it.now_ms, paid=True).state == "paid"
    assert len(paid(bank)) == 1


def test_books_from_an_old_backup_do_not_pay_again(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path / "first", bank)
    it.ledger.close()
    shutil.copytree(tmp_path / "first", tmp_path / "backup")
    it = house(tmp_path / "first", bank)
    it.finish(mover(bank))
    it.ledger.close()
    restored = house(tmp_path / "backup", bank)
    restored.finish(mover(bank))
    check(restored)
    assert {order.state for order in restored.book.orders() if order.payee in ("ada", "fay")} == {"paid"}


def test_two_processes_at_once_send_once(bank: str, tmp_path: Path, place: Place) -> None:
    house(tmp_path, bank, place=place).ledger.close()
    both = [house(tmp_path, bank, place=place) for _ in range(2)]
    for one in both:
        del one.terms["dan"]  # who is refused is owed again, and the other run may try again
    start = threading.Barrier(2)

    def pay(one: PayHouse) -> None:
        start.wait()
        one.pay()

    threads = [threading.Thread(target=pay, args=(one,)) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call(bank, "/_books")["requests"] == len({"ada", "fay"}), "a request left twice"
    both[1].ledger.close()
    both[0].finish(mover(bank))
    check(both[0])


class Killed(BaseException):
    """The process dies here."""


class Steps:
    """Counts everything that lasts or leaves the process, and dies at one of it: before it or behind it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.count = 0
        self._patch = patch
        self._wrap(PayService, "send")
        self._wrap(PayService, "find")
        self._wrap(sepa, "_write")
        self._wrap(sepa, "_publish")
        transaction = Ledger.transaction

        @contextmanager
        def counted(ledger: Ledger) -> Generator[Transaction]:
            with transaction(ledger) as tx:
                yield tx
                self.step()  # all is written, nothing is committed
            self.step()

        patch.setattr(Ledger, "transaction", counted)

    def step(self) -> None:
        """Count one, and die if it is the last."""
        self.count += 1
        self.left -= 1
        if self.left == 0:
            raise Killed

    def _wrap(self, where: object, name: str) -> None:
        inner = getattr(where, name)

        def counted(*arguments: Any) -> Any:  # noqa: ANN401 - whatever it takes
            self.step()
            result = inner(*arguments)
            self.step()
            return result

        self._patch.setattr(where, name, counted)


def die_at(steps: Steps, step: int, folder: Path, url: str) -> list[str] | None:
    """Do the month's run until that step; returns the files an operator finds, None where it ended."""
    it = house(folder, url)
    steps.left = step
    try:
        it.pay()
    except Killed:
        it.take_files()
        return it.taken
    finally:
        steps.left = -1
        it.ledger.close()
    return None


def nonzero(house: PayHouse) -> dict[str, int]:
    return {name: cents for name, cents in house.ledger.balances().items() if cents}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: a killed process needs no disk that is flushed."""
    shm = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    folder = Path(tempfile.mkdtemp(dir=shm)) if os.access(shm, os.W_OK) else tmp_path
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("away_ms", [LEASE_MS, 25 * HOUR_MS])
def test_a_run_killed_at_any_step_ends_as_if_nobody_had(
    bank: str, memory: Path, monkeypatch: pytest.MonkeyPatch, away_ms: int
) -> None:
    """After 25 hours the provider has forgotten every key, and a person may have to say what it did."""
    steps = Steps(monkeypatch)
    calm = house(memory / "calm", bank)
    calm.finish(mover(bank))
    check(calm)
    whole, balances, made = steps.count, nonzero(calm), calm.ended()
    calm.ledger.close()
    rng = random.Random(6)
    hit = 0
    for step in range(1, whole + 1):
        call(bank, "/_reset", {})
        fates(
            bank, *(rng.choice(("late", "late_booking", "500_after", "drop_after", "", "")) for _ in range(3))
        )
        folder = memory / str(step)
        found = die_at(steps, step, folder, bank)
        if found is None:
            break
        hit += 1
        it = house(folder, bank, T0 + away_ms)
        it.taken = found
        call(bank, "/_clock", {"ms": away_ms})
        it.finish(mover(bank))
        check(it)
        if away_ms < KEY_LIFE_MS:
            assert it.ended() == made
            assert nonzero(it) == balances
        it.ledger.close()
        shutil.rmtree(folder)
    assert hit > 40, f"only {hit} steps were counted"


@pytest.mark.timeout(180)
def test_a_process_killed_from_outside_ends_the_same(bank: str, tmp_path: Path) -> None:
    house(tmp_path, bank).ledger.close()
    rng = random.Random(7)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    command = [sys.executable, str(HERE / "payhouse.py"), str(tmp_path), bank]
    fates(bank, "late", "500_after", "late_booking", "drop_before", "twice", "late")
    killed, now_ms, started = 0, T0, time.monotonic()
    while killed < 8 and time.monotonic() - started < 60:
        with subprocess.Popen([*command, str(now_ms)], env=environment) as running:
            try:
                running.wait(rng.uniform(0.3, 1.6))
            except subprocess.TimeoutExpired:
                os.kill(running.pid, signal.SIGKILL)
                killed += 1
            else:
                assert running.returncode == 0
                break
        now_ms += HOUR_MS // 2
        call(bank, "/_clock", {"ms": HOUR_MS // 2})
    it = house(tmp_path, bank, now_ms + LEASE_MS)
    call(bank, "/_clock", {"ms": LEASE_MS})
    it.finish(mover(bank))
    check(it)
    assert killed > 0


def test_a_full_disk_leaves_no_file_and_everything_reserved(
    bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = house(tmp_path, bank)
    real = os.fsync

    def full(fd: int) -> None:
        del fd
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    it.pay()
    by_file = [order for order in it.book.orders() if order.method == "sepa"]
    assert [(order.state, order.attempt) for order in by_file] == [("reserved", 0)] * 2
    assert list((tmp_path / "payouts").iterdir()) == []
    with pytest.raises(StoreFullError, match="make room"):
        it.methods["sepa"].prepare([Errand(one, it.terms[one.payee]) for one in by_file], T0)
    monkeypatch.setattr(os, "fsync", real)
    it.finish(mover(bank))
    check(it)


def test_who_is_blocked_after_the_order_gets_it_back(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path, bank)
    it.book.reserve(TERMS["ada"], 5_000, {}, T0)
    it.terms["ada"] = TERMS["ada"]._replace(blocked="a court says so")
    it.pay()
    (order,) = [order for order in it.book.orders() if order.payee == "ada"]
    assert (order.state, order.reason) == ("failed", "blocked: a court says so")
    assert it.ledger.balances("payable:ada")["payable:ada"] == -10_000


def test_a_payout_is_found_by_the_beginning_of_its_id(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path, bank)
    it.pay()
    order = it.book.orders()[0]
    assert it.book.find(order.key[:9]).key == order.key
    for name in ("", "zz", order.key + "0", "%"):
        with pytest.raises(UsageError, match="payout list"):
            it.book.find(name)


def test_what_happened_is_recorded(bank: str, tmp_path: Path) -> None:
    it = house(tmp_path, bank)
    it.terms = {"ada": TERMS["ada"]}
    fates(bank, "500_after")
    it.finish(mover(bank))
    (order,) = it.book.orders()
    assert [event.state for event in it.book.events(order.key)] == ["reserved", "sent", "unknown", "paid"]


def test_the_client_trusts_no_other_answer(bank: str) -> None:
    service = PayService(_place(bank), "EUR", TIMEOUT_S)
    order = Order(
        key="k", payee="a", method="http", region="", gross_cents=5, tax_cents=0, net_cents=5,
        created_ms=T0, changed_ms=T0, due_ms=T0,
    )  # fmt: skip
    assert service.find(order).outcome == "absent"
    nobody = PayService(_place("http://127.0.0.1:1"), "EUR", TIMEOUT_S)
    assert nobody.find(order) == Verdict("unsent", "", "the provider cannot be reached")
    assert "neither https" in PayService(_place("http://pay.example"), "EUR").trouble()


def _place(url: str) -> Any:  # noqa: ANN401 - a NamedTuple
    from farcast.origin.payout.payservice import Place

    return Place(url, "")
