from __future__ import annotations

import stat
import time
from pathlib import Path

import msgspec
import pytest

from farcast.node.catalog.rootfile import read_root
from farcast.node.catalog.trust import Trust
from farcast.node.home import Home, write_whole
from farcast.origin import keys as keys_module
from farcast.origin.keys import Keys, init
from farcast.origin.repository import Repository
from farcast.origin.studio.sealedkey import open_key, seal_key
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import LocalError, RemoteError, UsageError

NOW = time.time()
DAY_S = 86_400
HERE = [Endpoint("films.example", 7433, False)]
PASSPHRASE = "correct horse battery"


def make(home: Path) -> Keys:
    init(home, "Acme", HERE, PASSPHRASE, NOW)
    return Keys(home)


def test_init_makes_an_origin_whose_root_names_it_and_whose_keys_fit_together(tmp_path: Path) -> None:
    made = init(tmp_path / "home", "Acme", HERE, PASSPHRASE, NOW, cdn=["https://cdn.example"])
    keys = Keys(tmp_path / "home")
    hint = read_root(made.root_path.read_bytes(), made.root_sha256)
    assert (hint.name, hint.box, hint.endpoints) == ("Acme", keys.box.key, HERE)
    ring = keys.keyring
    assert (ring.box, ring.catalog, ring.ticket) == (keys.box.key, [keys.catalog.key], [keys.ticket.key])
    assert (ring.intake, ring.settlement) == ([keys.intake.key], [keys.settlement.key])
    assert (ring.publishers, ring.endpoints, ring.cdn) == (
        [keys.publisher.key],
        HERE,
        ["https://cdn.example"],
    )
    assert made.peer_id == keys.box.peer_id
    assert len({*ring.catalog, *ring.ticket, *ring.intake, *ring.settlement, *ring.publishers, ring.box}) == 6
    assert any("2 of 3" in warning for warning in made.warnings)
    with Home.open(tmp_path / "home", "origin") as home:
        assert home.identity.key == keys.box.key


def test_every_key_file_is_its_owners_alone_and_the_root_key_is_sealed(tmp_path: Path) -> None:
    make(tmp_path)
    files = [*(tmp_path / "keys").iterdir(), tmp_path / "identity.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    root = open_key((tmp_path / "keys" / "root.sealed").read_bytes(), PASSPHRASE)
    assert all(root not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_passphrase_is_made_where_none_is_given(tmp_path: Path) -> None:
    made = init(tmp_path, "Acme", HERE, None, NOW)
    assert made.passphrase is not None
    assert len(made.passphrase) == 29
    assert len(open_key(made.sealed_root.read_bytes(), made.passphrase)) == 32
    assert init(tmp_path / "other", "Acme", HERE, PASSPHRASE, NOW).passphrase is None


def test_init_twice_is_wrong_use_and_changes_nothing(tmp_path: Path) -> None:
    keys = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="is the home of an origin already") as caught:
        init(tmp_path, "Other", HERE, PASSPHRASE, NOW)
    assert caught.value.reason == "home_exists"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert Keys(tmp_path).box.key == keys.box.key


@pytest.mark.parametrize(
    "arguments", [("", PASSPHRASE), ("Acme", "short"), ("a\nb", PASSPHRASE), ("x" * 101, PASSPHRASE)]
)
def test_a_name_or_passphrase_that_will_not_do_leaves_no_origin(
    tmp_path: Path, arguments: tuple[str, str]
) -> None:
    with pytest.raises(UsageError):
        init(tmp_path, arguments[0], HERE, arguments[1], NOW)
    assert {path.name for path in tmp_path.iterdir()} <= {"lock"}
    assert make(tmp_path).keyring.name == "Acme"


def test_an_init_that_died_half_way_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(path: Path, data: bytes) -> None:
        if path.name == "role":
            raise KeyboardInterrupt
        write_whole(path, data)

    monkeypatch.setattr(keys_module, "write_whole", power_cut)
    with pytest.raises(KeyboardInterrupt):
        init(tmp_path, "Acme", HERE, PASSPHRASE, NOW)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="no origin lives in"):
        Keys(tmp_path)
    assert make(tmp_path).keyring.name == "Acme"
    assert not (tmp_path / ".init").exists()


def test_no_origin_a_missing_key_and_a_readable_key_are_each_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`farcast origin init` makes one"):
        Keys(tmp_path)
    make(tmp_path)
    key = tmp_path / "keys" / "ticket.key"
    key.chmod(0o644)
    with pytest.raises(UsageError, match=r"ticket\.key can be read by others"):
        Keys(tmp_path)
    key.chmod(0o600)
    data = key.read_bytes()
    key.write_bytes(data[:31])
    with pytest.raises(UsageError, match=r"ticket\.key is no key of 32 bytes"):
        Keys(tmp_path)
    key.unlink()
    with pytest.raises(UsageError, match=r"ticket\.key cannot be read"):
        Keys(tmp_path)


def test_online_roles_are_signed_again_at_half_time_and_not_before(tmp_path: Path) -> None:
    repo = make(tmp_path).repository
    before = repo.files()
    assert not repo.refresh(NOW + 14 * DAY_S)
    assert repo.files() == before
    assert repo.refresh(NOW + 16 * DAY_S)
    assert "2.snapshot.json" in repo.files()
    assert "1.targets.json" in repo.files()
    assert repo.refresh(NOW + 46 * DAY_S)
    assert "2.targets.json" in repo.files()
    assert Keys(tmp_path).repository.files() == repo.files()


def test_a_changed_keyring_reaches_a_box_and_the_same_one_is_no_change(tmp_path: Path) -> None:
    keys = make(tmp_path / "home")
    trust = Trust.create(
        tmp_path / "trust", keys.repository.root_bytes, lambda name: keys.repository.files().get(name)
    )
    trust.refresh_now()
    assert not keys.repository.update_keyring(keys.keyring, NOW)
    moved = msgspec.structs.replace(keys.keyring, endpoints=[], cdn=["https://cdn.example"])
    assert keys.repository.update_keyring(moved, NOW)
    trust.refresh_now()
    assert trust.keyring == moved == Keys(tmp_path / "home").keyring


def test_the_root_is_renewed_with_its_passphrase_alone(tmp_path: Path) -> None:
    keys = make(tmp_path / "home")
    first = keys.repository.root_bytes
    with pytest.raises(UsageError, match="does not open the key"):
        keys.renew_root("another passphrase", NOW)
    keys.renew_root(PASSPHRASE, NOW + 300 * DAY_S)
    state = keys.repository.root_state
    assert (state.version, state.threshold, state.keys) == (2, 1, 1)
    assert state.expires_s == pytest.approx(NOW + 665 * DAY_S, abs=2)
    trust = Trust.create(tmp_path / "trust", first, lambda name: keys.repository.files().get(name))
    trust.refresh_now()
    assert trust.files()["root.json"] == keys.repository.root_bytes
    with pytest.raises(LocalError, match="no root key"):
        keys.repository.renew_root(b"\7" * 32, NOW)


def test_trust_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "tuf" / "1.snapshot.json").unlink()
    with pytest.raises(LocalError, match="do not fit together") as caught:
        Repository(tmp_path / "tuf", {})
    assert caught.value.reason == "damaged"


def test_a_sealed_key_changed_by_one_bit_does_not_open() -> None:
    sealed = bytearray(seal_key(b"\1" * 32, PASSPHRASE, b"\2" * 16, b"\3" * 12))
    assert open_key(bytes(sealed), PASSPHRASE) == b"\1" * 32
    sealed[-1] ^= 1
    with pytest.raises(UsageError):
        open_key(bytes(sealed), PASSPHRASE)
    with pytest.raises(RemoteError):
        open_key(b"no sealed key", PASSPHRASE)
