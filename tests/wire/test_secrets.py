"""What must never be read: secrets in logs, process lists and outputs, viewers' addresses anywhere."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.conftest import PASSPHRASE, Town, listen
from farcast.tests.wire.street import VIEWER, Box, ask, until

PUBLIC = ("blocks", "encodes", "tuf", "catalog", "trust")
"""Folders of a home that hold what everybody may read."""


@pytest.fixture(scope="module")
def used(town: Town) -> Town:
    """Let a viewer watch and everybody be asked, so that there is something to give away."""
    token = town.viewer.token
    for file in ("master.m3u8", "v72/index.m3u8", "v72/seg-00000.m4s", "audio/seg-00000.m4s"):
        assert ask(town.viewer.local, "GET", f"/{token}/watch/film/{file}").status == 200
        for box in (town.origin, town.relay):
            ask(f"127.0.0.1:{box.port}", "GET", f"/watch/film/{file}")
    ask(town.viewer.local, "GET", f"/{token}/watch/none/such.m3u8")
    ask(f"127.0.0.1:{town.relay.port}", "POST", "/v1/pulses", body=b"\x93\x01\x02\x03")
    ask(f"127.0.0.1:{town.origin.port}", "POST", "/v1/pulses", body=b"\x93\x01\x02\x03")
    ask(f"127.0.0.1:{town.origin.port}", "POST", "/v1/tickets", body=b"no")
    until(lambda: town.viewer.api("/api/status")["tickets"] > 0)
    return town


def boxes(town: Town) -> list[Box]:
    """Return the three boxes."""
    return [town.origin, town.relay, town.viewer]


def seeds(town: Town) -> dict[str, bytes]:
    """Return every secret that is bytes, by where it is kept."""
    found: dict[str, bytes] = {}
    for box in boxes(town):
        for path in [box.home / "identity.key", *(box.home / "keys").glob("*")]:
            found[str(path)] = path.read_bytes()
    with sqlite3.connect(f"file:{town.viewer.home / 'wallet.db'}?mode=ro", uri=True) as wallet:
        tables = [row[0] for row in wallet.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in wallet.execute(f"PRAGMA table_info({table})")]
            for row in wallet.execute(f"SELECT * FROM {table}"):  # noqa: S608 - its own tables' names
                for column, value in zip(columns, row, strict=True):
                    if column in SECRET_COLUMNS and value:
                        found[f"wallet.db {table}.{column}"] = value
    wallet.close()
    return found


SECRET_COLUMNS = ("seed", "key")


def texts(town: Town) -> Iterator[tuple[str, str]]:
    """Yield every secret as it might be written down."""
    for where, data in seeds(town).items():
        yield where, data.hex()
        yield where, base64.b64encode(data).decode().rstrip("=")
        yield where, base64.urlsafe_b64encode(data).decode().rstrip("=")
        yield where, repr(data)[2:-1]
    for box in boxes(town):
        yield f"{box.home}/token", box.token
    for name, link in town.invites.items():
        yield f"invite {name}", link.split("token=")[1].split("&")[0]
    yield "passphrase", PASSPHRASE


def test_there_are_secrets_to_look_for(used: Town) -> None:
    kept = seeds(used)
    assert len(kept) >= 3 + 10
    assert any("wallet.db" in where for where in kept)
    assert all(len(data) >= 16 for data in kept.values())


def test_files_with_secrets_are_their_owners_alone(used: Town) -> None:
    secrets = {**seeds(used), **{f"token of {box.home.name}": box.token.encode() for box in boxes(used)}}
    kept: set[str] = set()
    for box in boxes(used):
        assert stat.S_IMODE(box.home.stat().st_mode) == 0o700
        for path in box.home.rglob("*"):
            mode, public = stat.S_IMODE(path.stat().st_mode), path.relative_to(box.home).parts[0] in PUBLIC
            if path.is_dir() or public:
                assert not path.is_file() or not any(data in path.read_bytes() for data in secrets.values())
                continue
            assert mode & 0o077 == 0, (path, oct(mode))
            data = path.read_bytes()
            kept |= {where for where, secret in secrets.items() if secret in data}
    assert {f"token of {box.home.name}" for box in boxes(used)} <= kept


def test_no_log_and_no_process_list_shows_a_secret(used: Town) -> None:
    logs = {box.home.name: box.log.read_text(errors="replace") for box in boxes(used)}
    lists = {
        box.home.name: Path(f"/proc/{box.process.pid}/cmdline").read_text().replace("\0", " ")
        for box in boxes(used)
    }
    assert all(logs.values())  # they run with the level debug
    for where, text in texts(used):
        for shown in (logs, lists):
            for name, written in shown.items():
                assert text not in written, f"{where} is shown by {name}"


def test_no_viewers_address_is_written_anywhere(used: Town) -> None:
    for box in boxes(used):
        assert VIEWER not in box.log.read_text(errors="replace"), box.home.name
        metrics = re.sub(r'publisher="[^"]*"', "", ask(box.local, "GET", "/metrics").body.decode())
        for telling in (VIEWER, "bafk", "bafy", "12D3KooW"):
            assert telling not in metrics
        for path in box.home.rglob("*"):
            if path.is_file():
                assert VIEWER.encode() not in path.read_bytes(), path


def test_every_command_prints_one_json_value_without_a_secret(used: Town, tmp_path: Path) -> None:
    origin, relay, viewer = (
        ("--home", used.origin.home),
        ("--home", used.relay.home),
        ("--home", used.viewer.home),
    )
    shown = [
        ("origin", "status", *origin),
        ("origin", "list", *origin),
        ("origin", "relays", *origin),
        ("origin", "account", "list", *origin),
        ("origin", "payee", "list", *origin),
        ("origin", "announce", *origin),
        ("origin", "book", "revenue", "100", *origin),
        ("origin", "publish", used.film, "--dry-run", *origin),
        ("relay", "status", *relay),
        ("list", *viewer),
        ("status", *viewer),
        ("pulses", "show", *viewer),
        ("config", "show", *viewer),
        ("config", "check", *viewer),
        ("key", "show", *viewer),
        ("keep", "film", *viewer),
        ("drop", "film", *viewer),
        ("cid", used.film),
        ("join", used.origin.home / "tuf" / "root.json", "--home", tmp_path / "new"),
        ("relay", "join", used.invite("--relay"), "--home", tmp_path / "relay"),
    ]
    secrets = [*texts(used)]
    settings = {"FARCAST_ADMIN_TOKEN": "a-token-that-nobody-may-see", **listen(free_port())}

    def speaks(command: tuple[str | Path, ...]) -> None:
        ran = used.street.run(*command, "--json", settings=settings)
        assert ran.code == 0, ran
        assert isinstance(json.loads(ran.out), dict | list), command
        assert "a-token-that-nobody-may-see" not in ran.out
        for where, text in secrets:
            assert text not in ran.out + ran.err, (where, command)
        plain = used.street.run(*command, settings=settings)
        assert plain.code == 0, plain
        assert plain.out.strip(), command

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(speaks, shown))
    failed = used.street.run("origin", "retire", "none", "--json", *origin)
    failed.refused(2, "'none'", "origin list")
    assert failed.out == ""
