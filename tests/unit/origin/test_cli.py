from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from farcast.node.demo.film import draw_film
from farcast.node.home import Home
from farcast.origin import command
from farcast.origin.cli import app
from farcast.origin.keys import init
from farcast.origin.payout.terms import Terms
from farcast.protocol.directory import Endpoint
from farcast.protocol.invite import parse_invite


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command prints
        """What it printed with ``--json``."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("FARCAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str) -> Ran:
        result = CliRunner().invoke(app, list(arguments))
        return Ran(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", time.time())
    return home


@pytest.fixture
def origin(run: Run, template: Path, tmp_path: Path) -> Run:
    shutil.copytree(template, tmp_path / "home")
    return run


def test_init_says_what_it_made_and_shows_the_passphrase_once(run: Run, tmp_path: Path) -> None:
    made = run("init", "--name", "Acme", "--endpoint", "films.example:7433", "--json")
    assert made.code == 0
    assert made.json["home"] == str(tmp_path / "home")
    assert Path(made.json["root"]).is_file()
    assert len(made.json["passphrase"]) == 29
    assert "2 of 3" in made.err
    assert made.json["passphrase"] not in run("status").out


def test_init_reads_the_passphrase_from_a_file_and_renew_needs_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse battery\n")
    made = run("init", "--endpoint", "films.example:7433", "--passphrase-file", str(tmp_path / "secret"))
    assert made.code == 0
    assert "correct horse" not in made.out
    assert run("renew").code == 2
    assert "version 2" in run("renew", "--passphrase-file", str(tmp_path / "secret")).out
    (tmp_path / "secret").write_text("another one, wrong\n")
    wrong = run("renew", "--passphrase-file", str(tmp_path / "secret"))
    assert wrong.code == 2
    assert wrong.err.startswith("farcast: this passphrase does not open the key; ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "nowhere"], "is no HOST:PORT"),
        (["--endpoint", "a.example:1", "--passphrase-file", "/nonexistent"], "cannot be read"),
        (["--endpoint", "a.example:1", "--name", "a\tb"], "--name"),
    ],
)
def test_a_wrong_init_is_one_sentence_and_makes_no_origin(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    made = run("init", *arguments)
    assert (made.code, made.out) == (2, "")
    assert words in made.err
    assert made.err.count("\n") == 1
    assert not (tmp_path / "home" / "identity.key").exists()


def test_init_twice_is_one_sentence_that_names_the_home(origin: Run, tmp_path: Path) -> None:
    again = origin("init", "--endpoint", "films.example:7433")
    assert again.code == 2
    assert again.err.startswith(f"farcast: {tmp_path / 'home'} is the home of an origin already")


def test_without_an_endpoint_this_machines_address_is_taken_with_a_warning(run: Run) -> None:
    made = run("init", "--json")
    assert made.json["endpoints"][0].endswith(":7433")
    assert "origin announce" in made.err


@pytest.mark.parametrize(
    "command", [["invite"], ["list"], ["status"], ["settle"], ["relays"], ["account", "list"]]
)
def test_no_command_works_where_no_origin_lives(run: Run, command: list[str]) -> None:
    found = run(*command)
    assert (found.code, found.out) == (2, "")
    assert "farcast origin init" in found.err


def test_an_invite_is_the_last_line_and_fit_for_a_script(origin: Run) -> None:
    link = origin("invite").out.strip()
    assert parse_invite(link).kind == "viewer"
    relay = origin("invite", "--relay")
    assert "good once and for 30 days" in relay.err
    assert parse_invite(relay.out.strip()).kind == "relay"
    assert parse_invite(origin("account", "add", "alice", "--json").json["link"]).token
    assert parse_invite(origin("invite", "--account", "alice").out.splitlines()[-1]).token


def test_lists_are_tables_for_people_and_objects_for_scripts(origin: Run) -> None:
    assert "account add NAME" in origin("account", "list").out
    origin("account", "add", "alice")
    assert origin("account", "list").out.splitlines()[1].split() == ["alice", "0"]
    assert origin("account", "list", "--json").json["accounts"][0]["account"] == "alice"
    assert "no time counts from now on" in origin("account", "revoke", "alice").out
    assert origin("account", "erase", "alice").code == 0
    assert "(erased)" in origin("account", "list").out
    assert "payee add ID" in origin("payee", "list").out
    assert origin("payee", "add", "anna", "--name", "Anna").code == 0
    assert origin("payee", "list").out.splitlines()[1].split() == ["anna", "Anna"]
    assert "publish MEDIA" in origin("list").out
    assert "invite --relay" in origin("relays").out
    assert origin("relays", "approve", "12D3KooWnobody").code == 2
    assert origin("relays", "refuse", "12D3KooWnobody").code == 2


def test_money_is_booked_and_settled_for_people_and_for_scripts(origin: Run) -> None:
    assert origin("book", "revenue", "1000").out.startswith("Booked revenue of 1000 cents for 20")
    assert origin("book", "theft", "1").code == 2
    refused = origin("settle").err  # the month before has none
    assert "no revenue is booked" in refused
    month = refused.partition("--month ")[2][:7]
    assert origin("book", "revenue", "700", "--month", month, "--json").json["month"] == month
    assert origin("settle", "--json").json["revenue_cents"] == 700
    assert "is settled already" in origin("book", "cost", "1", "--month", month).err
    assert "has not begun" in origin("book", "cost", "1", "--month", "9999-01").err


def test_tips_collaborations_and_refunds_are_booked_and_the_ledger_shows_them(origin: Run) -> None:
    for payee in ("ada", "ben"):
        origin("payee", "add", payee)
    origin("account", "add", "alice")
    tip = origin("book", "tip", "109", "--payee", "ada", "--account", "alice", "--json").json
    assert (tip["fee_cents"], tip["payees"]) == (10, [{"payee": "ada", "cents": 99}])
    shared = origin("book", "collaboration", "101", "--split", "ada=6000,ben=4000").out.splitlines()
    assert [line.split() for line in shared[1:]] == [["ada", "61", "cents"], ["ben", "40", "cents"]]
    month = ("--payee", "ben", "--account", "alice")
    assert origin("book", "patron", "500", *month, "--json").json["posted"]
    assert origin("book", "patron", "500", *month).out.startswith("Already booked: patron of 500 cents")
    assert "another patron is booked" in origin("book", "patron", "600", *month).err
    back = origin("book", "refund", str(tip["transaction"]), "--note", "by mistake").out
    assert back.startswith("Booked refund of transaction 1, -109 cents")
    assert "refunded already" in origin("book", "refund", "1").err
    found = origin("ledger", "--json").json
    assert found["transactions"] == 4
    assert {row["account"]: row["cents"] for row in found["balances"]} == {
        "assets:received": 601, "fees": -50, "payable:ada": -61, "payable:ben": -490,
    }  # fmt: skip
    assert "payable:ben" in origin("ledger").out
    entries = origin("ledger", "--account", "payable:ada", "--json").json["entries"]
    assert [(row["kind"], row["cents"]) for row in entries] == [
        ("tip", -99), ("collaboration", -61), ("refund", 99),
    ]  # fmt: skip
    assert "Balance of fees: -50 cents" in origin("ledger", "--account", "fees").out
    assert "no account fee;" in origin("ledger", "--account", "fee").err


def test_a_wrong_booking_is_one_sentence_and_books_nothing(origin: Run) -> None:
    for payee in ("ada", "ben"):
        origin("payee", "add", payee)
    for words, reason in (
        (("tip", "100"), "--payee is missing"),
        (("tip", "100", "--payee", "eve"), "does not know 'eve'"),
        (("tip", "0", "--payee", "ada"), "0 is no sum to book"),
        (("tip", "100", "--payee", "ada", "--month", "2026-01"), "--month is for revenue"),
        (("collaboration", "100", "--split", "ada=6000,ben=3999"), "sum to 9999, not to 10000"),
        (("collaboration", "100", "--split", "ada"), "is no split"),
        (("revenue", "100", "--payee", "ada"), "takes neither --payee nor --split"),
        (("refund", "7"), "there is no transaction 7"),
    ):
        refused = origin("book", *words)
        assert refused.code == 2
        assert reason in refused.err
    assert origin("ledger", "--json").json["balances"] == []


def test_a_broken_ledger_is_the_first_thing_status_says(origin: Run, tmp_path: Path) -> None:
    origin("book", "revenue", "1000")
    assert "ledger" not in origin("status").out
    with closing(sqlite3.connect(tmp_path / "home" / "ledger.db", isolation_level=None)) as conn:
        conn.execute("DROP TRIGGER tx_no_update")
        conn.execute("UPDATE tx SET memo = 'x'")
    first = origin("status").out.splitlines()[0]
    assert first == "! the ledger is broken: transaction 1 is not what was posted; restore a backup"


def test_the_film_toml_beside_a_link_to_the_media_counts(origin: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    draw_film(tmp_path / "elsewhere" / "film.mkv", 1)
    (tmp_path / "linked.mkv").symlink_to(tmp_path / "elsewhere" / "film.mkv")
    words = 'name = "Linked"\n[[payees]]\npayee = "anna"\npoints = 10000\n'
    (tmp_path / "film.toml").write_text(words)
    origin("payee", "add", "anna")
    seen = origin("publish", str(tmp_path / "linked.mkv"), "--dry-run", "--json")
    assert seen.json["name"] == "Linked"


def test_publishing_what_is_no_film_names_the_file(origin: Run, tmp_path: Path) -> None:
    origin("payee", "add", "anna")
    (tmp_path / "notes.txt").write_text("no film")
    found = origin("publish", str(tmp_path / "notes.txt"))
    assert found.code == 2
    assert "notes.txt" in found.err
    assert "is no file" in origin("publish", str(tmp_path / "absent.mp4")).err
    assert origin("list", "--json").json == {"titles": [], "entries": 0, "running": False}


def test_addresses_are_announced_and_shown(origin: Run) -> None:
    assert "films.example:7433" in origin("announce").out
    assert "https://cdn.example" in origin("announce", "--cdn", "https://cdn.example").out
    status = origin("status", "--json").json
    assert (status["endpoints"], status["cdn"]) == (["films.example:7433"], ["https://cdn.example"])


def test_a_home_in_use_hands_the_work_over(
    origin: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Home.open(tmp_path / "home", "origin"):
        assert "in use by another command" in origin("status").err
        (tmp_path / "home" / "admin.json").write_text('{"url": "http://127.0.0.1:9/token"}')
        assert "does not answer" in origin("status").err
        asked: list[str] = []

        def there(home: Path, action: str, arguments: object, report: object) -> dict[str, object]:
            del home, arguments, report
            asked.append(action)
            return {"payees": [Terms("anna", "Anna", "").facts()]}

        monkeypatch.setattr(command, "call_running", there)
        assert "anna" in origin("payee", "list").out
        assert asked == ["payee_list"]
