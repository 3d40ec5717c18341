from __future__ import annotations

import json
import logging
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farcast.node.cli import app as node_app
from farcast.origin.cli import app
from farcast.origin.keys import init
from farcast.origin.money import postgresbooks
from farcast.origin.money.ledger import Ledger
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import LocalError, UsageError
from farcast.tests.postgres import PASSWORD, PostgresServer

NOW_MS = 1_795_000_000_000


class Thief:
    """A socket between ledger and server that takes a connection away around its first COMMIT."""

    def __init__(self, folder: Path, server: Path, *, lets_commit: bool) -> None:
        self.folder = folder
        self.stolen = 0
        self._server = str(server / ".s.PGSQL.5432")
        self._lets_commit = lets_commit
        self.armed = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            back = threading.Thread(target=self._copy, args=(server, client))
            back.start()
            while data := client.recv(65_536):
                if self.armed and b"COMMIT" in data:
                    self.armed = False
                    self.stolen += 1
                    with suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)
                    if self._lets_commit:
                        server.sendall(data)
                        time.sleep(0.2)  # the server answers into nothing
                    break
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            back.join(5)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def thief(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[..., Thief]]:
    """Return a maker of thieves."""
    made: list[Thief] = []

    def make(*, lets_commit: bool) -> Thief:
        made.append(Thief(tmp_path_factory.mktemp("t"), postgres.folder, lets_commit=lets_commit))
        return made[0]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("lets_commit", [True, False])
def test_a_connection_lost_while_it_commits_is_asked_about(
    postgres: PostgresServer, thief: Callable[..., Thief], *, lets_commit: bool
) -> None:
    direct = postgres.fresh()
    between = thief(lets_commit=lets_commit)
    schema = direct.rpartition("%3D")[2]
    ledger = Ledger(postgres.address(schema, folder=between.folder))
    between.armed = True
    if lets_commit:
        assert ledger.book_revenue(500, NOW_MS, b"1")
    else:
        with pytest.raises(LocalError, match="nothing was posted"):
            ledger.book_revenue(500, NOW_MS, b"1")
    assert between.stolen == 1
    assert ledger.verify_chain() == (1 if lets_commit else 0)
    assert ledger.book_revenue(500, NOW_MS, b"1") is not lets_commit  # either way it is there once now
    assert ledger.balances() == {"assets:received": 500, "pool:revenue": -500}
    ledger.close()


def test_a_restarted_server_is_connected_to_again(postgres: PostgresServer) -> None:
    ledger = Ledger(postgres.fresh())
    assert ledger.book_revenue(500, NOW_MS, b"1")
    postgres.stop()
    with pytest.raises(LocalError, match="does not answer, nothing was posted"):
        ledger.book_revenue(600, NOW_MS, b"2")
    with pytest.raises(LocalError, match="does not answer"):
        ledger.balances()
    postgres.start()
    assert ledger.book_revenue(600, NOW_MS, b"2")
    postgres.stop()
    postgres.start()
    assert ledger.balances()["pool:revenue"] == -1_100
    assert ledger.verify_chain() == 2
    ledger.close()


def test_a_writer_waits_for_another_and_not_for_ever(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = postgres.fresh()
    ledger, other = Ledger(place), Ledger(place)
    monkeypatch.setattr(postgresbooks, "LOCK_WAIT_MS", 100)
    with ledger.transaction():
        with pytest.raises(LocalError, match=r"another origin keeps .* busy"):
            other.book_revenue(1, NOW_MS, b"1")
        assert other.balances() == {}  # readers wait for nobody
    assert other.book_revenue(1, NOW_MS, b"1")
    ledger.close()
    other.close()


def test_a_statement_that_failed_takes_the_transaction_with_it(postgres: PostgresServer) -> None:
    ledger = Ledger(postgres.fresh())
    with pytest.raises(LocalError, match="nothing was posted"), ledger.transaction() as tx:  # noqa: PT012
        tx.execute("INSERT INTO ledger VALUES (1, ?)", ("EUR",))
        with suppress(Exception):
            tx.execute("INSERT INTO ledger VALUES (1, ?)", ("EUR",))
    with ledger.reading() as tx:
        assert tx.execute("SELECT count(*) FROM ledger").fetchone() == (0,)
    ledger.close()


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://farcast:{secret}@127.0.0.1:1/books",
        "postgresql://farcast:{secret}@/postgres?host=/nowhere",
        "postgresql://farcast:wrong-{secret}@/postgres?host={folder}&port=5432",
        "postgresql://farcast:{secret}@127.0.0.1:notaport/books",
        "postgresql://farcast:{secret}@host/books?nonsense={secret}",
        "postgresql://[farcast:{secret}",
    ],
)
def test_an_address_that_does_not_answer_is_one_sentence_without_its_password(
    postgres: PostgresServer, dsn: str
) -> None:
    with pytest.raises(LocalError) as caught:
        Ledger(dsn.format(secret=PASSWORD, folder=str(postgres.folder).replace("/", "%2F")))
    text, cause = str(caught.value), repr(caught.value.__cause__)
    assert PASSWORD not in text + cause
    assert "\n" not in text
    assert "does not answer, nothing was posted" in text or "write postgresql://USER@HOST/DATABASE" in text


def test_a_missing_driver_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "farcast.origin.money.postgresbooks")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"pip install 'farcast\[scale\]'"):
        Ledger("postgresql://host/books")


def test_the_commands_keep_their_books_in_postgresql(
    postgres: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    home = tmp_path / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", time.time())
    monkeypatch.setenv("FARCAST_HOME", str(home))
    monkeypatch.setenv("FARCAST_MONEY_LEDGER", postgres.fresh())
    runner, said = CliRunner(), ""

    def run(*words: str, code: int = 0) -> str:
        nonlocal said
        result = runner.invoke(
            node_app if words[0] == "config" else app, [*words, *(["--json"] if not code else [])]
        )
        assert result.exit_code == code, result.output
        said += result.output
        return result.stdout

    booked = json.loads(run("book", "revenue", "500"))
    assert (booked["transaction"], booked["posted"]) == (1, True)
    found = json.loads(run("ledger"))
    assert found["ledger"] == f"PostgreSQL postgres at {postgres.folder}"
    assert found["balances"] == [
        {"account": "assets:received", "cents": 500},
        {"account": "pool:revenue", "cents": -500},
    ]
    assert not (home / "ledger.db").exists()
    assert not any("ledger" in warning for warning in json.loads(run("status"))["warnings"])
    rows = {row["key"]: row["value"] for row in json.loads(run("config", "show"))}
    assert rows["money.ledger"] == "(set)"
    monkeypatch.setenv("FARCAST_MONEY_LEDGER", f"postgresql://farcast:{PASSWORD}@/x?host=/nowhere")
    run("book", "revenue", "500", code=1)
    assert "does not answer" in json.loads(run("status"))["warnings"][0]
    assert PASSWORD not in said + caplog.text
    shutil.rmtree(home)
