from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from msgspec.structs import replace

from farcast.origin.money.ledger import Ledger
from farcast.origin.money.report import Report, report_files, write_report
from farcast.protocol.audit import audit
from farcast.protocol.errors import LocalError
from farcast.protocol.identity import peer_id
from farcast.protocol.merkle import root_of
from farcast.protocol.shares import portions
from farcast.protocol.statement import LEAVES, Line, lines_root, open_head, unpack_lines, unpack_tickets
from farcast.tests.unit.origin.mint import (
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    MONTH,
    PUBLISHER,
    RELAY,
    SETTLEMENT,
    Shelf,
    Viewer,
    batch,
    closing,
    open_intake,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann.one": 7_000, "ann-one": 2_000, "ann_one": 1_000}, size_bytes=10**12)
BEAN_CHECK = Path(sys.executable).with_name("bean-check")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A month with viewing, relay pay and a carried-in line, as its report directory."""
    folder = tmp_path_factory.mktemp("origin")
    intake = open_intake(folder)
    for number in range(3):
        viewer = Viewer(number)
        viewer.watch(FILM, 20)
        viewer.beat(FILM, 5_000_000, 30_000, kbytes=40_000_000)
        stamps = [FIRST_MS + 3 * 86_400_000] * len(viewer.pulses)
        intake.batch(batch(RELAY, [viewer], viewer.pulses, stamps, number + 1), stamps[0])
    ledger = Ledger(folder / "ledger.db")
    ledger.book_revenue(123_457, FIRST_MS, b"1", memo="a memo nobody else should read")
    ledger.book_cost(3_400, FIRST_MS, b"2")
    books = closing(folder, ledger, SHELF)
    books.settle(MONTH, now_ms=CLOSE_MS)
    path = books.report()
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    assert {item.name: item.read_bytes() for item in books.report(MONTH).iterdir()} == before
    assert sorted(item.name for item in path.parent.iterdir()) == [MONTH]
    ledger.close()
    return path


def test_the_head_names_every_file_and_the_leaves_hash_to_its_root(report: Path) -> None:
    head = open_head((report / "head.bin").read_bytes(), [SETTLEMENT.key])
    assert sorted([item.name for item in head.files] + ["head.bin"]) == sorted(
        item.name for item in report.iterdir()
    )
    data = (report / LEAVES).read_bytes()
    lines = unpack_lines(data)
    assert [line.payee for line in lines] == ["ann-one", "ann.one", "ann_one"]
    leaves: list[bytes] = []
    while data:
        size = int.from_bytes(data[:2], "big")
        leaves.append(data[2 : 2 + size])
        data = data[2 + size :]
    assert root_of(leaves) == head.statement.leaves_root
    assert list(unpack_tickets((report / "tickets.bin").read_bytes()).values()) == [22, 22, 22]


def test_the_readable_files_say_the_same(report: Path) -> None:
    told = json.loads((report / "report.json").read_text())
    money = told["settlement"]
    rows = [line.split(",") for line in (report / "creators.csv").read_text().splitlines()]
    paid = rows[0].index("paid_cents")
    assert sum(int(row[paid]) for row in rows[1:]) == sum(item["cents"] for item in money["payouts"])
    parts = money["costs_cents"] + money["reserve_cents"] + money["held_cents"] + money["carried_cents"]
    assert money["revenue_cents"] == parts + sum(item["cents"] for item in money["payouts"])
    assert (
        report / "relays.csv"
    ).read_text() == f"relay,kbytes,cents,over_kbytes\n{peer_id(RELAY.key)},120000000,240,0\n"
    assert (report / "platforms.csv").read_text().splitlines()[1].startswith(peer_id(PUBLISHER.key))
    assert (
        report / "daily_traffic.csv"
    ).read_text() == "day,viewers,pulses,viewed_ms\nother,<10,63,3690000\n"
    assert (report / "flags.csv").read_text() == "rule,accounts,held_cents\n"


def test_nothing_in_a_report_names_an_account_ticket_or_memo(report: Path) -> None:
    viewers = [Viewer(number) for number in range(3)]
    secrets = [b"memo nobody"]
    for viewer in viewers:
        secrets += [viewer.tid, viewer.tid.hex().encode()]
    secrets += [number.to_bytes(16, "big").hex().encode() for number in range(1, 3)]
    for item in report.iterdir():
        data = item.read_bytes()
        assert not [secret for secret in secrets if secret in data], item.name


def test_bean_check_accepts_the_month_and_refuses_one_cent_more(report: Path, tmp_path: Path) -> None:
    path = report / "month.beancount"
    assert subprocess.run([BEAN_CHECK, path], check=False, timeout=60).returncode == 0
    text = path.read_text()
    assert "Liabilities:Payee:Pann-done" in text
    amount = next(x for x in text.splitlines() if "Liabilities:Payee:Pann-done  " in x)
    changed = amount[:-5] + str((int(amount[-5]) + 1) % 10) + amount[-4:]
    broken = tmp_path / "broken.beancount"
    broken.write_text(text.replace(amount, changed, 1))
    found = subprocess.run([BEAN_CHECK, broken], check=False, timeout=60, capture_output=True, text=True)
    assert found.returncode == 1


def test_beyond_ten_thousand_payees_the_accountant_sees_sums(report: Path, tmp_path: Path) -> None:
    """With 10,000 each has an account; with one more there is one for each publisher."""
    said = open_head((report / "head.bin").read_bytes(), [SETTLEMENT.key]).statement
    texts: dict[int, str] = {}
    for count in (10_000, 10_001):
        weights = [1] * count
        lines = [
            Line(PUBLISHER.key, f"p{number:05}", MONTH, 1, cents, cents, 0, 0, 0)
            for number, cents in enumerate(portions(said.pool_cents, weights))
        ]
        made = replace(
            said, paid_cents=said.pool_cents, carried_cents=0, leaves=count, leaves_root=lines_root(lines)
        )
        audit(made, lines)
        files = report_files(Report(made, lines, b"", b""), SETTLEMENT)
        texts[count] = files["month.beancount"].decode()
        told = json.loads(files["report.json"])
        assert (told["payees"], told["payouts_listed"]) == (count, count == 10_000)
        assert len(told["settlement"]["payouts"]) == (count if count == 10_000 else 0)
    assert texts[10_000].count("open Liabilities:Payee:Pp") == 10_000
    assert texts[10_001].count("open Liabilities:Payee:") == 1
    path = tmp_path / "month.beancount"
    path.write_text(texts[10_001])
    assert subprocess.run([BEAN_CHECK, path], check=False, timeout=60).returncode == 0
    amount = f"-{said.pool_cents // 100}.{said.pool_cents % 100:02}"
    assert texts[10_001].count(amount) == 2, "its posting and its balance"
    path.write_text(
        texts[10_001].replace(amount, f"-{said.pool_cents // 100}.{said.pool_cents % 100 - 1:02}", 1)
    )
    done = subprocess.run([BEAN_CHECK, path], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 1


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(report: Path) -> None:
    page = _Page()
    text = (report / "index.html").read_text()
    page.feed(text)
    assert page.open == []
    assert {"table", "svg", "rect", "path", "style"} <= page.tags
    assert not page.tags & {"script", "iframe", "link"}
    assert page.links == []
    assert "@media print" in text
    assert "1.0 hours" in " ".join(text.split())


def test_a_report_that_cannot_be_written_leaves_the_old_one(report: Path, tmp_path: Path) -> None:
    head = open_head((report / "head.bin").read_bytes(), [SETTLEMENT.key])
    parts = Report(
        head.statement,
        unpack_lines((report / LEAVES).read_bytes()),
        (report / "intake.bin").read_bytes(),
        (report / "tickets.bin").read_bytes(),
    )
    files = report_files(parts, SETTLEMENT)
    assert files == {item.name: item.read_bytes() for item in report.iterdir()}
    target = write_report(tmp_path / "reports", parts, SETTLEMENT)
    (target / "report.json").write_text("spoiled")
    assert write_report(tmp_path / "reports", parts, SETTLEMENT) == target
    assert (target / "report.json").read_bytes() == files["report.json"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LocalError, match="cannot be written"):
        write_report(blocked, parts, SETTLEMENT)


def test_the_first_day_of_the_month_is_what_the_tests_say() -> None:
    assert FIRST_MS == FIRST_DAY * 86_400_000
