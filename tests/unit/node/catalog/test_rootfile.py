from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.catalog.rootfile import find_root, read_root
from farcast.origin.repository import Repository
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import RemoteError, UnreachableError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring

SEEDS = {"targets": b"\1" * 32, "snapshot": b"\2" * 32, "timestamp": b"\3" * 32}
ROOT_SEED = b"\4" * 32
BOX = Identity(b"\5" * 32)


def repository(folder: Path) -> Repository:
    key = [Identity(b"\6" * 32).key]
    here = [Endpoint("films.example", 7433, False)]
    keyring = Keyring(1, "Acme", BOX.key, key, key, key, key, key, here, [])
    return Repository.create(folder, keyring, root=ROOT_SEED, seeds=SEEDS, now=time.time())


def test_root_json_alone_tells_whose_it_is(tmp_path: Path) -> None:
    hint = read_root(repository(tmp_path / "tuf").root_bytes)
    assert (hint.name, hint.peer_id) == ("Acme", BOX.peer_id)
    assert hint.endpoints == [Endpoint("films.example", 7433, False)]
    assert hint.settlement == hint.intake == [Identity(b"\6" * 32).key]


def test_a_root_changed_by_one_letter_is_refused(tmp_path: Path) -> None:
    data = repository(tmp_path / "tuf").root_bytes.replace(b"Acme", b"Acne")
    with pytest.raises(RemoteError) as caught:
        read_root(data)
    assert caught.value.reason == "bad_root"


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_as_root_are_a_remote_error(data: bytes) -> None:
    with pytest.raises(RemoteError):
        read_root(data)


def test_other_metadata_is_no_root(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"no root\.json"):
        read_root(repository(tmp_path / "tuf").files()["timestamp.json"])


def test_an_invites_root_is_found_among_older_versions(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    first = repo.root_bytes
    repo.renew_root(ROOT_SEED, time.time())
    assert find_root(repo.files().get, sha256(first).hexdigest()) == first
    assert find_root(repo.files().get, repo.root_sha256) == repo.root_bytes
    with pytest.raises(RemoteError) as caught:
        find_root(repo.files().get, "0" * 64)
    assert caught.value.reason == "wrong_root"
    with pytest.raises(UnreachableError):
        find_root(lambda _: None, "0" * 64)
