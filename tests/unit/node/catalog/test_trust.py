from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.catalog.rootfile import FILE_LIMIT_BYTES
from farcast.node.catalog.trust import Trust
from farcast.origin.repository import Repository
from farcast.protocol.codec import encode
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import LocalError, RemoteError, UnreachableError, UsageError
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring

DAY_S = 86_400
SEEDS = {"targets": b"\1" * 32, "snapshot": b"\2" * 32, "timestamp": b"\3" * 32}
ROOT_SEED = b"\4" * 32
BOX = Identity(b"\5" * 32)

Make = Callable[..., Repository]


def keyring(name: str = "Acme", box: Identity = BOX, cdn: tuple[str, ...] = ()) -> Keyring:
    key = [Identity(b"\6" * 32).key]
    return Keyring(
        1, name, box.key, key, key, key, key, key, [Endpoint("films.example", 7433, False)], list(cdn)
    )


def repository(
    folder: Path, *, now: float | None = None, of: Keyring | None = None, seed: bytes = ROOT_SEED
) -> Repository:
    return Repository.create(folder, of or keyring(), root=seed, seeds=SEEDS, now=now or time.time())


def nobody(name: str) -> bytes | None:
    raise UnreachableError(f"nobody to ask for {name}")


def offer_all(trust: Trust, files: dict[str, bytes]) -> list[str]:
    return [name for name, data in files.items() if trust.offer(name, data)]


def test_a_box_born_from_root_json_learns_the_keys_and_keeps_them_across_restarts(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    trust = Trust.create(
        tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name), repo.root_sha256
    )
    assert trust.keyring is None
    trust.refresh_now()
    assert trust.keyring == keyring()
    assert trust.files() == repo.files()
    again = Trust(tmp_path / "trust", nobody)
    assert again.keyring == keyring()
    assert again.files() == repo.files()
    assert again.origin_id == sha256(BOX.key).digest()[:8]


async def test_refresh_runs_in_a_thread(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name))
    await trust.refresh()
    assert trust.keyring == keyring()


def test_a_root_that_is_not_the_invites_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    with pytest.raises(RemoteError, match="not the one the invite names") as caught:
        Trust.create(tmp_path / "trust", repo.root_bytes, nobody, "0" * 64)
    assert caught.value.reason == "wrong_root"
    assert not (tmp_path / "trust").exists()


def test_a_box_trusts_one_origin_for_good(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    other = repository(tmp_path / "other", of=keyring("Other", Identity(b"\7" * 32)), seed=b"\x08" * 32)
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, nobody)
    assert trust.adopt(repo.root_bytes).name == "Acme"
    with pytest.raises(UsageError, match="already trusts Acme"):
        trust.adopt(other.root_bytes)


def test_without_a_root_nothing_is_trusted(tmp_path: Path) -> None:
    trust = Trust(tmp_path / "trust", nobody)
    assert trust.files() == {}
    assert not trust.offer("timestamp.json", repository(tmp_path / "tuf").files()["timestamp.json"])
    with pytest.raises(UsageError, match="farcast join"):
        trust.refresh_now()
    with pytest.raises(UsageError, match="farcast join"):
        _ = trust.origin_id


def test_an_update_is_accepted_and_an_older_repository_is_refused(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    old = repo.files()
    source = dict(old)

    def fetch(name: str) -> bytes | None:
        return source.get(name)

    registry = CollectorRegistry()
    trust = Trust(tmp_path / "trust", fetch, registry)
    trust.adopt(repo.root_bytes)
    trust.refresh_now()
    newer = keyring(cdn=("https://cdn.example/",))
    assert repo.update_keyring(newer, time.time())
    source = repo.files()
    trust.refresh_now()
    assert trust.keyring == newer
    source = old
    with pytest.raises(RemoteError) as caught:
        trust.refresh_now()
    assert caught.value.reason == "rollback"
    assert trust.keyring == newer
    count = registry.get_sample_value
    assert count("farcast_node_trust_refreshes_total", {"result": "ok"}) == 2
    assert count("farcast_node_trust_refreshes_total", {"result": "rollback"}) == 1


def test_no_uplink_leaves_the_last_keys_in_force(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    Trust.create(tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name)).refresh_now()
    nothing: dict[str, bytes] = {}
    for fetch in (nobody, nothing.get):
        trust = Trust(tmp_path / "trust", fetch)
        with pytest.raises(UnreachableError):
            trust.refresh_now()
        assert trust.keyring == keyring()


def test_expired_metadata_is_refused_but_never_stops_what_was_accepted(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    Trust.create(tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name)).refresh_now()
    assert repo.update_keyring(keyring(cdn=("https://cdn.example/",)), time.time() - 31 * DAY_S)
    trust = Trust(tmp_path / "trust", lambda name: repo.files().get(name))
    with pytest.raises(RemoteError) as caught:
        trust.refresh_now()
    assert caught.value.reason == "expired"
    assert trust.keyring == keyring()


def test_an_expired_repository_gives_a_fresh_box_no_keys(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf", now=time.time() - 31 * DAY_S)
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name))
    with pytest.raises(RemoteError) as caught:
        trust.refresh_now()
    assert (caught.value.reason, trust.keyring) == ("expired", None)


def test_a_changed_target_is_refused(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    files = {
        name: encode(keyring("Evil")) if name.endswith("msgpack") else data
        for name, data in repo.files().items()
    }
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, files.get)
    with pytest.raises(RemoteError) as caught:
        trust.refresh_now()
    assert (caught.value.reason, trust.keyring) == ("bad_metadata", None)


def test_a_box_with_no_uplink_lives_on_what_was_offered(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, nobody)
    files = repo.files()
    assert not trust.wants(files)
    assert len(offer_all(trust, files)) == 4  # all but the root it has
    assert trust.wants(files)
    trust.refresh_now()
    assert trust.keyring == keyring()
    assert not trust.wants(files)


def test_a_new_root_offered_with_files_of_its_own_is_followed(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, nobody)
    repo.renew_root(ROOT_SEED, time.time())
    assert "2.root.json" in offer_all(trust, repo.files())
    trust.refresh_now()
    assert trust.files()["root.json"] == repo.root_bytes


def test_offers_signed_by_strangers_or_out_of_bounds_are_not_kept(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    stranger = Repository.create(
        tmp_path / "x",
        keyring("Evil"),
        root=b"\x09" * 32,
        seeds=dict.fromkeys(SEEDS, b"\x0a" * 32),
        now=time.time(),
    )
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, nobody)
    files = stranger.files()
    target = next(name for name in files if name.endswith("msgpack"))
    assert offer_all(trust, files) == [target]  # a target vouches for nothing by itself
    good = repo.files()
    assert not trust.offer("timestamp.json", b"{}")
    assert not trust.offer("timestamp.json", b" " * (FILE_LIMIT_BYTES + 1))
    assert not trust.offer("5.timestamp.json", good["timestamp.json"])
    assert not trust.offer("2.snapshot.json", good["1.snapshot.json"])
    assert not trust.offer("snapshot.json", good["1.snapshot.json"])
    assert not trust.offer("../timestamp.json", good["timestamp.json"])
    assert not trust.offer("f" * 64 + ".origin.msgpack", b"another hash")
    assert not trust.wants(files)
    with pytest.raises(UnreachableError):
        trust.refresh_now()


def test_of_two_offered_timestamps_the_newer_one_stays(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    old = repo.files()
    repo.update_keyring(keyring(cdn=("https://cdn.example/",)), time.time())
    trust = Trust.create(tmp_path / "trust", repo.root_bytes, nobody)
    offer_all(trust, repo.files())
    kept = offer_all(trust, old)
    assert all(name.endswith("msgpack") for name in kept)
    trust.refresh_now()
    assert trust.keyring == keyring(cdn=("https://cdn.example/",))


def test_a_damaged_cache_names_the_file_and_the_mend(tmp_path: Path) -> None:
    repo = repository(tmp_path / "tuf")
    Trust.create(tmp_path / "trust", repo.root_bytes, lambda name: repo.files().get(name)).refresh_now()
    (tmp_path / "trust" / "accepted").write_bytes(b"\0garbage")
    with pytest.raises(LocalError, match="accepted is damaged; remove it"):
        Trust(tmp_path / "trust", nobody)
