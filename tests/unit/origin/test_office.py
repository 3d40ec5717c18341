from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from farcast.node.catalog.rootfile import read_root
from farcast.node.ffmpeg import find_ffmpeg
from farcast.node.ladder.tiers import origin_sources
from farcast.node.report import quiet
from farcast.node.settings import Settings
from farcast.origin.keys import init
from farcast.origin.office import Office
from farcast.origin.trust.places import parse_endpoint
from farcast.protocol.catalog import Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.errors import LocalError, UsageError
from farcast.protocol.identity import Identity
from farcast.protocol.invite import parse_invite
from farcast.protocol.ticket import DAY_MS

PASSPHRASE = "correct horse battery"
NOW_MS = time.time_ns() // 1_000_000
RELAY = Identity(b"\x13" * 32)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "bunny.mp4"
    command = [
        find_ffmpeg(),
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=96x64:r=25:d=3",
        "-q:v",
        "9",
    ]
    subprocess.run([*command, "-c:v", "mpeg4", str(path)], check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], PASSPHRASE, NOW_MS / 1_000)
    return home


@pytest.fixture
def office(template: Path, tmp_path: Path, clock: Clock) -> Iterator[Office]:
    home = tmp_path / "home"
    shutil.copytree(template, home)
    office = Office(home, Settings.load(home, {}), clock)
    yield office
    office.close()


def do(office: Office, action: str, **arguments: object) -> dict[str, Any]:
    return office.perform(action, arguments, quiet)


def test_an_invite_names_the_origin_and_its_root(office: Office) -> None:
    found = do(office, "invite")
    invite = parse_invite(found["link"])
    assert (invite.address, invite.root) == ("films.example:7433", office.keys.repository.root_sha256)
    assert (invite.token, invite.kind, found["valid_days"]) == ("", "viewer", None)


def test_a_web_endpoint_gives_invitations_a_link_for_browsers(office: Office) -> None:
    assert do(office, "account_add", name="alice")["web"] is None
    do(office, "announce", endpoints=["https://films.example", "films.example:7433"])
    found = do(office, "account_add", name="bob")
    invite = parse_invite(found["link"])
    assert invite.address == "films.example:7433", "a node comes where the key is shown"
    assert found["web"] == f"https://films.example/web/#token={invite.token}"
    assert do(office, "invite", account="bob")["web"].startswith("https://films.example/web/#token=")
    assert do(office, "invite")["web"] is None
    keyring = office.keys.keyring
    assert [source.address for source in origin_sources(keyring)] == ["films.example:7433"]
    root = read_root(office.keys.repository.files()["root.json"])
    assert [endpoint.port for endpoint in root.endpoints] == [7433]


def test_web_endpoints_are_read_with_and_without_a_port() -> None:
    assert parse_endpoint("https://films.example") == Endpoint("films.example", 443, web=True)
    assert parse_endpoint("https://films.example:8443") == Endpoint("films.example", 8443, web=True)
    assert parse_endpoint("https://[2001:db8::1]") == Endpoint("2001:db8::1", 443, web=True)
    assert parse_endpoint("films.example:7433") == Endpoint("films.example", 7433, web=False)


def test_account_and_relay_invites_carry_tokens_that_enrol(office: Office) -> None:
    first = parse_invite(do(office, "account_add", name="alice")["link"])
    assert office.accounts.enrol(first.token, b"\1" * 32, NOW_MS) == 1
    second = parse_invite(do(office, "invite", account="alice")["link"])
    assert office.accounts.enrol(second.token, b"\2" * 32, NOW_MS) == 2
    relay = parse_invite(do(office, "invite", relay=True)["link"])
    body = RelayRecord(1, RELAY.key, [Endpoint("relay.example", 7433, False)], "", NOW_MS, NOW_MS + DAY_MS)
    assert office.roster.enrol(relay.token, RELAY.seal("record", body), RELAY.key, NOW_MS) == "approved"
    assert relay.kind == "relay"
    with pytest.raises(UsageError):
        do(office, "invite", relay=True, account="alice")


def test_accounts_are_listed_revoked_and_erased(office: Office) -> None:
    do(office, "account_add", name="alice")
    do(office, "account_add", name="bob")
    do(office, "account_revoke", name="alice")
    do(office, "account_erase", name="bob")
    rows = do(office, "account_list")["accounts"]
    today = time.strftime("%Y-%m-%d", time.gmtime(NOW_MS / 1_000))
    assert [(row["account"], row["revoked_from"]) for row in rows] == [("", today), ("alice", today)]


def test_a_film_is_published_once_then_superseded_then_retired(office: Office, film: Path) -> None:
    do(office, "payee_add", payee="anna")
    stages: set[str] = set()

    def note(stage: str, done: float, total: float = 1.0) -> None:
        assert 0 <= done <= total
        stages.add(stage)

    arguments = {"media": str(film), "title": "bunny", "preset": "ultrafast"}
    found = office.perform("publish", arguments, note)
    assert (found["version"], found["changed"], found["payees"]) == (
        1,
        True,
        [{"payee": "anna", "basis_points": 10_000}],
    )
    assert {"read", "encode", "package"} <= stages
    again = do(office, "publish", **arguments)
    assert (again["version"], again["changed"], again["new_blocks"]) == (1, False, 0)
    (film.parent / "film.toml").write_text('name = "Bunny"\n')
    try:
        second = do(office, "publish", **arguments)
    finally:
        (film.parent / "film.toml").unlink()
    assert (second["version"], second["name"], second["root_cid"]) == (2, "Bunny", found["root_cid"])
    (row,) = do(office, "list")["titles"]
    assert (row["title"], row["version"], row["payees"]) == ("bunny", 2, ["anna"])
    do(office, "retire", title="bunny")
    assert do(office, "list") == {"titles": [], "entries": 3}
    entries = [decode(Entry, data) for data in office.log.catalog.entries]
    assert [entry.action for entry in entries] == ["publish", "supersede", "retire"]
    kept = [
        cid
        for label, cids in office.shelf.store.pinned().items()
        if label.startswith("manifest:")
        for cid in cids
    ]
    assert {str(cid) for cid in kept} == {found["manifest_cid"], second["manifest_cid"]}


def test_a_dry_run_looks_and_leaves_nothing(office: Office, film: Path) -> None:
    do(office, "payee_add", payee="anna")
    found = do(office, "publish", media=str(film), dry_run=True)
    assert (found["title"], found["listed"], found["dry_run"]) == ("bunny", False, True)
    assert found["duration_s"] == pytest.approx(3, abs=0.1)
    assert office.log.catalog.size == 0
    assert not (office.home / "encodes").exists()
    assert [rung["name"] for rung in found["rungs"]] == ["v64", "v32"]
    assert (found["encoded"], found["encoded_s"], found["sounds"], found["subtitles"]) == (False, 0, [], [])
    real = do(office, "publish", media=str(film), preset="ultrafast")
    assert (
        real["bytes"] < found["bytes_at_most"] + 50_000
    )  # playlists and pictures are small, but not nothing
    again = do(office, "publish", media=str(film), preset="ultrafast", dry_run=True)
    assert (again["encoded"], again["listed"], again["encoded_s"]) == (True, True, found["duration_s"])


def test_a_draft_is_kept_but_not_listed_until_it_is_released(office: Office, film: Path) -> None:
    do(office, "payee_add", payee="anna")
    arguments = {"media": str(film), "title": "bunny", "preset": "ultrafast"}
    drafted = do(office, "publish", **arguments, draft=True)
    assert (drafted["draft"], drafted["kubo"], office.log.catalog.size) == (True, None, 0)
    (row,) = do(office, "list")["titles"]
    assert (row["title"], row["draft"], row["published"]) == ("bunny", True, None)
    pinned = {cid for cids in office.shelf.store.pinned().values() for cid in cids}
    assert len(pinned) == drafted["blocks"]
    released = do(office, "release", title="bunny")
    assert (released["version"], released["manifest_cid"]) == (1, drafted["manifest_cid"])
    (row,) = do(office, "list")["titles"]
    assert (row["draft"], row["version"]) == (False, 1)
    assert {cid for cids in office.shelf.store.pinned().values() for cid in cids} == pinned
    assert not any(label.startswith("draft:") for label in office.shelf.store.pinned())
    with pytest.raises(UsageError, match="there is no draft of 'bunny'"):
        do(office, "release", title="bunny")


def test_a_draft_of_a_listed_title_follows_what_is_listed_when_it_is_released(
    office: Office, film: Path
) -> None:
    do(office, "payee_add", payee="anna")
    arguments = {"media": str(film), "title": "bunny", "preset": "ultrafast"}
    first = do(office, "publish", **arguments)
    toml = film.parent / "film.toml"
    try:
        toml.write_text('name = "Draft"\nlanguage = "fr"\n')
        do(office, "publish", **arguments, draft=True)
        assert [(row["name"], row["draft"]) for row in do(office, "list")["titles"]] == [
            (first["name"], False), ("Draft", True),
        ]  # fmt: skip
    finally:
        toml.unlink()
    drafts = office.home / "drafts" / "bunny"
    held = drafts.read_bytes()
    (film.parent / "film.toml").write_text('name = "Between"\n')
    try:
        between = do(office, "publish", **arguments)
    finally:
        toml.unlink()
    assert between["version"] == 2
    assert not drafts.exists(), "publishing a title ends its draft"
    office.shelf.drafts.put(
        "bunny", Cid.parse(held.decode()), [Cid.parse(held.decode())]
    )  # as if drafted since
    released = do(office, "release", title="bunny")
    assert released["version"] == 3
    (row,) = do(office, "list")["titles"]
    assert (row["name"], row["version"], row["draft"]) == ("Draft", 3, False)


def test_a_draft_can_be_purged_and_its_blocks_may_leave(office: Office, film: Path) -> None:
    do(office, "payee_add", payee="anna")
    do(office, "publish", media=str(film), title="bunny", preset="ultrafast", draft=True)
    do(office, "purge", title="bunny")
    assert do(office, "list")["titles"] == []
    assert office.shelf.store.pinned() == {}
    with pytest.raises(UsageError, match="was ever published here"):
        do(office, "purge", title="bunny")


def test_a_film_that_would_pay_nobody_known_is_wrong_use(office: Office, film: Path) -> None:
    with pytest.raises(UsageError, match="nobody would be paid"):
        do(office, "publish", media=str(film))
    with pytest.raises(UsageError, match="farcast origin payee add bob"):
        do(office, "publish", media=str(film), payee="bob")
    do(office, "payee_add", payee="anna")
    do(office, "payee_add", payee="bob")
    with pytest.raises(UsageError, match="nobody would be paid"):
        do(office, "publish", media=str(film))


def test_a_denied_title_is_taken_down_and_an_unknown_one_is_named(office: Office, film: Path) -> None:
    do(office, "payee_add", payee="anna")
    found = do(office, "publish", media=str(film), preset="ultrafast")
    do(office, "deny", title="bunny")
    assert [str(cid) for cid in office.log.catalog.denied()] == [found["manifest_cid"]]
    with pytest.raises(UsageError, match="no title 'bunny' is listed"):
        do(office, "retire", title="bunny")


def test_a_lost_manifest_is_named_with_its_mend(office: Office) -> None:
    office.log.append("publish", "bunny", Cid.of(RAW, b"lost"), NOW_MS)
    with pytest.raises(LocalError, match="bring it back from a backup"):
        do(office, "list")


def test_relays_are_listed_and_judged(office: Office) -> None:
    body = RelayRecord(
        1, RELAY.key, [Endpoint("relay.example", 7433, False)], "anna", NOW_MS, NOW_MS + DAY_MS
    )
    office.roster.enrol("", RELAY.seal("record", body), RELAY.key, NOW_MS)
    (row,) = do(office, "relays")["relays"]
    assert (row["id"], row["standing"], row["endpoints"]) == (
        RELAY.peer_id,
        "pending",
        ["relay.example:7433"],
    )
    assert do(office, "relay_judge", relay=RELAY.peer_id, approve=True)["standing"] == "approved"
    assert office.roster.directory() is not None
    assert do(office, "relay_judge", relay=RELAY.peer_id[-6:], approve=False)["id"] == RELAY.peer_id
    assert do(office, "status")["relays"] == {"approved": 0, "pending": 0, "refused": 1}


def test_new_addresses_are_announced_and_shown(office: Office) -> None:
    found = do(office, "announce", endpoints=["[2001:db8::1]:9000"], cdn=["https://cdn.example"])
    assert found == {"changed": True, "endpoints": ["[2001:db8::1]:9000"], "cdn": ["https://cdn.example"]}
    assert do(office, "announce")["changed"] is False
    for text in (
        "cdn.example",
        "ftp://cdn.example",
        "https://",
        "https://c:x/",
        "http://c/?q",
        "http://c/\n",
    ):
        with pytest.raises(UsageError, match="no base URL"):
            do(office, "announce", cdn=[text])
    assert parse_invite(do(office, "invite")["link"]).address == "[2001:db8::1]:9000"
    do(office, "announce", endpoints=[])
    with pytest.raises(UsageError, match="farcast origin announce"):
        do(office, "account_add", name="alice")
    assert do(office, "account_list") == {"accounts": []}
    assert any("no address" in warning for warning in do(office, "status")["warnings"])


def test_a_pull_zones_token_is_told_to_boxes_and_shown_to_nobody(
    template: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNNY_TOKEN_KEY", "a-token-key")
    shutil.copytree(template, tmp_path / "home")
    line = "https://films.b-cdn.net kind=bunny token=$BUNNY_TOKEN_KEY"
    settings = Settings.load(tmp_path / "home", {"FARCAST_CDN_ZONES": line})
    office = Office(tmp_path / "home", settings, clock)
    try:
        assert any("no box is told of" in warning for warning in do(office, "status")["warnings"])
        found = do(office, "announce", cdn=["https://films.b-cdn.net"])
        assert found["cdn"] == do(office, "status")["cdn"] == ["https://films.b-cdn.net"]
        (first,) = office.keys.keyring.cdn
        assert first.startswith("https://films.b-cdn.net/bcdn_token=HS256-")
        office.trust.sign_edges()
        assert do(office, "announce")["changed"] is False
        clock.now_ms += DAY_MS // 2
        office.trust.sign_edges()
        (second,) = office.keys.keyring.cdn
        assert second != first
        with pytest.raises(UsageError, match="no base URL"):
            do(office, "announce", cdn=[first])
    finally:
        office.close()


@pytest.mark.parametrize(
    "text", ["films.example", "films.example:", ":7433", "films.example:0", "films.example:65536"]
)
def test_what_is_no_address_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="is no HOST:PORT"):
        parse_endpoint(text)


def test_money_is_booked_settled_once_and_reported(office: Office, clock: Clock) -> None:
    do(office, "account_add", name="alice")
    do(office, "book", kind="revenue", cents=1_000, account="alice", note="November")
    do(office, "book", kind="cost", cents=100)
    with pytest.raises(UsageError, match="book `revenue`"):
        do(office, "book", kind="gift", cents=1)
    with pytest.raises(UsageError, match="there is no account 'bob'"):
        do(office, "book", kind="revenue", cents=1, account="bob")
    as_of = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW_MS / 1_000 + 1))
    clock.now_ms = NOW_MS + 2_000
    dry = do(office, "settle", as_of=as_of, dry_run=True)
    assert (dry["revenue_cents"], dry["costs_cents"], dry["reserve_cents"], dry["pool_cents"]) == (
        1_000,
        100,
        50,
        850,
    )
    assert (dry["posted"], dry["month"]) == (False, as_of[:7])
    assert do(office, "settle", as_of=as_of)["posted"] is True
    assert do(office, "settle", as_of=as_of)["posted"] is False
    folder = Path(do(office, "report", month=as_of[:7])["folder"])
    assert (folder / "head.bin").is_file()
    with pytest.raises(UsageError, match="is no time"):
        do(office, "settle", as_of="yesterday")


def test_a_month_still_open_is_not_settled_by_accident(office: Office) -> None:
    do(office, "book", kind="revenue", cents=0)
    month = time.strftime("%Y-%m", time.gmtime(NOW_MS / 1_000))
    with pytest.raises(UsageError, match="still open") as caught:
        do(office, "settle", month=month)
    assert caught.value.reason == "still_open"


def test_the_root_is_renewed_and_its_age_is_a_warning(office: Office, clock: Clock) -> None:
    assert do(office, "renew", passphrase=PASSPHRASE)["version"] == 2
    assert not any("expires in" in warning for warning in do(office, "status")["warnings"])
    clock.now_ms = NOW_MS + 340 * DAY_MS
    assert any("farcast origin renew" in warning for warning in do(office, "status")["warnings"])


def test_unknown_actions_and_arguments_are_wrong_use(office: Office) -> None:
    for action, arguments, words in (
        ("close", {}, "no action 'close'"),
        ("invite", {"colour": "red"}, "takes no colour"),
        ("invite", {"relay": "perhaps"}, "invite: "),
        ("account_add", {}, "account_add: "),
    ):
        with pytest.raises(UsageError, match=words):
            office.perform(action, arguments, quiet)


def test_no_office_opens_where_no_origin_lives(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no origin lives in"):
        Office(tmp_path, Settings.load(tmp_path, {}), lambda: NOW_MS)


def test_a_damaged_catalog_keeps_the_office_shut_and_no_file_open(office: Office) -> None:
    office.close()
    (office.home / "catalog" / "checkpoint").write_bytes(b"note")
    with pytest.raises(LocalError, match="checkpoint is damaged"):
        Office(office.home, office.settings, lambda: NOW_MS)
    (office.home / "catalog" / "checkpoint").unlink()
    reopened = Office(office.home, office.settings, lambda: NOW_MS)
    assert do(reopened, "status")["titles"] == 0
    reopened.close()
