from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from farcast.node.home import Home
from farcast.node.report import quiet
from farcast.origin.backup.restore import restore
from farcast.protocol.catalog import open_entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import FarcastError, LocalError, UsageError
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.livedin import PASSPHRASE, PERSON, bear, live, open_office, watch
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, MONTH

FOLDER = Cid.of(RAW, b"a folder")


class World:
    """A lived-in origin and two backups of it: without and with its blocks."""

    def __init__(self, folder: Path) -> None:
        bear(folder / "template")
        self.home = folder / "home"
        self.report = live(folder / "template", self.home)
        self.plain, self.whole = folder / "plain.backup", folder / "whole.backup"
        office = open_office(self.home)
        try:
            self.found = office.backups.backup(str(self.plain), PASSPHRASE, progress=quiet)
            office.backups.backup(str(self.whole), PASSPHRASE, blocks=True, progress=quiet)
            self.checkpoint = office.log.checkpoint()
            self.statement = office.money.settle(MONTH, dry_run=True) | {"report": ""}
        finally:
            office.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("blocks", [False, True])
def test_a_restored_origin_settles_to_the_same_cent_under_the_same_checkpoint(
    world: World, tmp_path: Path, *, blocks: bool
) -> None:
    home = tmp_path / "home"
    found = restore(world.whole if blocks else world.plain, home, PASSPHRASE, quiet)
    assert (found["name"], found["blocks"], found["intake_entries"]) == ("Acme", blocks, 3)
    Home.open(home, "origin").close()
    office = open_office(home)
    try:
        assert office.log.checkpoint() == world.checkpoint
        assert office.money.settle(MONTH, dry_run=True) | {"report": ""} == world.statement
        assert office.money.settle(MONTH)["posted"] is False
        assert files(Path(office.money.report(MONTH)["folder"])) == files(world.report)
        assert office.accounts.pseudonym(PERSON)
        assert (office.shelf.store.get(FOLDER) is not None) is blocks
        assert office.keys.content_secret == (world.home / "keys" / "content-secret").read_bytes()
    finally:
        office.close()
    assert not [path.name for path in home.iterdir() if path.name.startswith(".")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home / "keys").iterdir())


def test_a_backup_is_whole_while_pulses_and_titles_come_in(world: World, tmp_path: Path) -> None:
    source = tmp_path / "source"
    restore(world.plain, source, PASSPHRASE, quiet)
    office = open_office(source)
    digest = office.log.catalog.titles()["film"].cid.digest
    ended = threading.Event()
    accounts = iter(range(10_000, 20_000))

    def live_on() -> None:
        while not ended.is_set():
            number = next(accounts)
            watch(office, digest, number.to_bytes(16, "big"), 2, day=FIRST_DAY + 29)
            office.log.append("publish", f"film-{number}", Cid(RAW, digest), CLOSE_MS)
            office.members.add(f"viewer-{number}")
            office.money.book("revenue", 100)

    life = threading.Thread(target=live_on)
    life.start()
    try:
        files = [tmp_path / f"{number}.backup" for number in range(3)]
        for file in files:
            office.backups.backup(str(file), PASSPHRASE, progress=quiet)
    finally:
        ended.set()
        life.join()
        office.close()
    found = [restore(file, tmp_path / file.stem, PASSPHRASE, quiet) for file in files]
    sizes = [(one["intake_entries"] - 3, one["catalog"]["size"] - 2) for one in found]
    assert all(entries >= titles >= 0 for entries, titles in sizes), "each title came after a post"
    assert sizes == sorted(sizes)
    assert sizes[-1][1] > 0
    assert all(one["settled"].keys() == {MONTH} for one in found)


def test_a_backup_says_nothing_without_its_passphrase(world: World) -> None:
    data = world.plain.read_bytes()
    assert not [word for word in (b"Acme", b"film", b"keys", PERSON.encode()) if word in data]
    assert world.plain.stat().st_mode & 0o777 == 0o600
    assert world.found["settled"] == MONTH
    assert world.found["ledger"] == "sqlite"


def refused(file: Path, home: Path, passphrase: str = PASSPHRASE) -> FarcastError:
    """Return why a restore is refused; nothing is left behind."""
    with pytest.raises((UsageError, LocalError)) as caught:
        restore(file, home, passphrase, quiet)
    assert not home.exists()
    return caught.value


def test_another_passphrase_a_cut_file_and_any_flipped_byte_are_refused(world: World, tmp_path: Path) -> None:
    home, bad = tmp_path / "home", tmp_path / "bad"
    assert refused(world.plain, home, "wrong horse battery").reason == "wrong_passphrase"
    data = world.plain.read_bytes()
    bad.write_bytes(b"a text, and a long one at that" * 9)
    assert refused(bad, home).reason == "no_backup"
    for cut in (81, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:cut])
        assert refused(bad, home).reason == "damaged"
    for place in (90, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert refused(bad, home).reason == "damaged"
    assert refused(tmp_path / "nothing", home).reason == UsageError("").reason


def test_nothing_is_restored_over_what_is_there(world: World, tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    with pytest.raises(UsageError, match="diary is there"):
        restore(world.plain, tmp_path, PASSPHRASE, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["diary"]
    with pytest.raises(UsageError, match="home of an origin already"):
        restore(world.plain, world.home, PASSPHRASE, quiet)


def test_a_backup_that_cannot_be_written_leaves_nothing(world: World, tmp_path: Path) -> None:
    office = open_office(world.home)
    try:
        for target, passphrase, words in (
            (tmp_path / "none" / "x", PASSPHRASE, "cannot be written"),
            (tmp_path / "x", "short", "at least"),
            (world.home / "x", PASSPHRASE, "own home"),
        ):
            with pytest.raises((UsageError, LocalError), match=words):
                office.backups.backup(str(target), passphrase, progress=quiet)
    finally:
        office.close()
    assert list(tmp_path.iterdir()) == []
    assert not [path.name for path in world.home.iterdir() if "backup" in path.name]


def cut_catalog(home: Path) -> None:
    os.truncate(home / "catalog" / "entries.log", 40)


def keep(home: Path) -> None:
    assert home.is_dir(), "trust files come from memory; the test spoils them there"


def shorten_key(home: Path) -> None:
    (home / "keys" / "intake.key").write_bytes(b"short")


def forge_books(home: Path) -> None:
    _forge(home / "ledger.db")


def scratch_log(home: Path) -> None:
    _scratch(next((home / "intake" / "seg").iterdir()))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_catalog, "entries"), (keep, "trust files"), (shorten_key, "no key"),
        (forge_books, "transaction"), (scratch_log, "damaged"),
    ],
)  # fmt: skip
def test_contents_that_do_not_fit_together_never_become_a_home(
    world: World, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    """The backup is authentic, what went into it was broken before."""
    source, file = tmp_path / "source", tmp_path / "file"
    restore(world.plain, source, PASSPHRASE, quiet)
    office = open_office(source)
    trust = office.keys.repository.files()
    if words == "trust files":
        trust["timestamp.json"] = b"{}"
    office.keys.repository.files = lambda: trust  # type: ignore[method-assign]
    try:
        spoil(source)
        office.backups.backup(str(file), PASSPHRASE, progress=quiet)
    finally:
        office.close()
    error = refused(file, tmp_path / "home")
    assert error.reason == "damaged"
    assert words in str(error)


def _forge(path: Path) -> None:
    with sqlite3.connect(path) as conn:
        for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            conn.execute(f"DROP TRIGGER {name}")
        conn.execute("UPDATE posting SET cents = cents + 1 WHERE tx = 2 AND line = 0")
    conn.close()


def _scratch(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)


def test_the_address_of_a_database_is_left_out(world: World, tmp_path: Path) -> None:
    source, file = tmp_path / "source", tmp_path / "file"
    restore(world.plain, source, PASSPHRASE, quiet)
    (source / "settings.toml").write_text(
        '[money]\nledger = "postgresql://ada:secret@db/books"\ngap_s = 299\n'
    )
    (source / "settings.toml").chmod(0o600)
    office = open_office(world.home)  # opened with the settings of before; the file is what is copied
    office.backups.home = source
    try:
        office.backups.backup(str(file), PASSPHRASE, progress=quiet)
    finally:
        office.close()
    restore(file, tmp_path / "home", PASSPHRASE, quiet)
    assert (tmp_path / "home" / "settings.toml").read_text() == "[money]\ngap_s = 299\n"


def test_manifests_outlive_their_retired_titles_in_a_store_that_is_full(world: World, tmp_path: Path) -> None:
    """Pulses come for ten days after their month, and each names a manifest, which says who is paid."""
    home = tmp_path / "home"
    restore(world.whole, home, PASSPHRASE, quiet)
    quota = 10_000_000
    office = open_office(home, STORE_QUOTA_BYTES=str(quota))
    try:
        entries = [open_entry(data) for data in office.log.catalog.entries]
        before = {entry.cid: office.shelf.manifest_of(entry.cid.digest) for entry in entries}
        assert len(before) == 2
        office.shelf.store.unpin(f"manifest:{entries[-1].cid}")  # as a home of before has it
        office.withdrawals.retire("film", progress=quiet, wait_s=0.0)
        for number in range(24):
            block = number.to_bytes(4, "big") * (1 << 18)
            office.shelf.store.put(Cid.of(RAW, block), block)
        assert office.shelf.store.get(FOLDER) is None, "the film has left; the store is as full as it may be"
        assert {cid: office.shelf.manifest_of(cid.digest) for cid in before} == before
        late = office.accounts.pseudonym("viewer-1")
        watch(office, entries[-1].cid.digest, late[::-1], 7, day=FIRST_DAY + 29, late_ms=9 * DAY_MS)
        assert office.money.settle(MONTH, dry_run=True) | {"report": ""} == world.statement
        office.money.book("revenue", 10_000)
        found = office.treasury.closing.settle("2026-12", now_ms=CLOSE_MS + 31 * DAY_MS, dry_run=True)
        assert {line.payee: line.weight for line in found.outcome.lines if line.month == MONTH} == {
            "ada": 7 * 60_000 * 6_000,
            "ben": 7 * 60_000 * 4_000,
        }
    finally:
        office.close()
