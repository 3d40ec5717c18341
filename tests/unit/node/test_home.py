from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from farcast.node.home import Home, HomeLock, default_home, not_running, read_identity, write_whole
from farcast.protocol.errors import StoreFullError, UsageError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_private_and_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "home"
    with Home.create(path, "relay") as home:
        peer_id = home.identity.peer_id
        assert mode(path) == 0o700
        assert mode(path / "identity.key") == 0o600
        assert mode(home.folder("trust")) == 0o700
    with Home.open(path, "relay") as home:
        assert home.identity.peer_id == peer_id == read_identity(path).peer_id
        assert home.role == "relay"


def test_a_given_seed_is_the_key(tmp_path: Path) -> None:
    with Home.create(tmp_path, "node", seed=bytes(32)) as home:
        assert (tmp_path / "identity.key").read_bytes() == bytes(32)
        assert home.identity.peer_id.startswith("12D3KooW")


def test_a_second_birth_is_refused_and_the_key_stays(tmp_path: Path) -> None:
    Home.create(tmp_path, "node").close()
    key = (tmp_path / "identity.key").read_bytes()
    with pytest.raises(UsageError, match="farcast run") as caught:
        Home.create(tmp_path, "origin")
    assert caught.value.reason == "home_exists"
    assert (tmp_path / "identity.key").read_bytes() == key
    Home.open(tmp_path, "node").close()  # the refusal left no lock behind


@pytest.mark.parametrize(
    ("role", "command"),
    [("node", "farcast join"), ("relay", "farcast relay join"), ("origin", "farcast origin init")],
)
def test_no_home_names_the_command_that_makes_one(tmp_path: Path, role: str, command: str) -> None:
    with pytest.raises(UsageError, match=command) as caught:
        Home.open(tmp_path / "none", role)  # type: ignore[arg-type]
    assert caught.value.reason == "no_home"


def test_another_roles_home_is_refused(tmp_path: Path) -> None:
    Home.create(tmp_path, "relay").close()
    with pytest.raises(UsageError, match="home of a relay, not of a node"):
        Home.open(tmp_path, "node")


def test_a_home_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with Home.create(tmp_path, "node"):
        with pytest.raises(UsageError, match=r"in use by process \d+") as caught:
            Home.open(tmp_path, "node")
        assert caught.value.reason == "home_in_use"
        script = "import sys; from pathlib import Path; from farcast.node.home import HomeLock; "
        script += "HomeLock(Path(sys.argv[1])).acquire()"
        command = [sys.executable, "-c", script, str(tmp_path)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / ".src")}
        child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
        assert "UsageError" in child.stderr
    lock = HomeLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()


@pytest.mark.parametrize(
    ("data", "bits", "words"),
    [
        (bytes(32), 0o640, "chmod 600"),
        (bytes(32), 0o604, "chmod 600"),
        (bytes(31), 0o600, "from a backup"),
        (bytes(33), 0o600, "from a backup"),
    ],
)
def test_a_key_that_is_open_or_broken_is_refused(tmp_path: Path, data: bytes, bits: int, words: str) -> None:
    Home.create(tmp_path, "node").close()
    (tmp_path / "identity.key").write_bytes(data)
    (tmp_path / "identity.key").chmod(bits)
    with pytest.raises(UsageError, match=words):
        Home.open(tmp_path, "node")


def test_a_failed_birth_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary").write_text("here before")

    def full(fd: int, size: bytes, offset: int) -> int:
        del fd, size, offset
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_key(path: Path, data: bytes) -> None:
        if path.name == "identity.key":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, data)

    monkeypatch.setattr("os.pwrite", full)  # not even the lock's process id finds room
    monkeypatch.setattr("farcast.node.home.write_whole", no_key)
    for path in (mine, tmp_path / "new" / "home"):
        with pytest.raises(StoreFullError, match="disk is full"):
            Home.create(path, "node")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["mine", "mine/diary"]


def test_a_birth_can_be_undone_but_an_opened_home_stays(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("here before")
    home = Home.create(tmp_path, "node")
    (home.folder("trust") / "birth.json").write_text("{}")
    home.unmake()
    home.close()
    assert [path.name for path in tmp_path.iterdir()] == ["diary"]
    Home.create(tmp_path, "node").close()
    with Home.open(tmp_path, "node") as home:
        home.unmake()
    assert (tmp_path / "identity.key").exists()


def test_a_birth_refused_where_another_is_at_work_touches_nothing(tmp_path: Path) -> None:
    with Home.create(tmp_path / "home", "node"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match="in use"):
            Home.create(tmp_path / "home", "node")
        assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file, but a home is a folder"):
        Home.create(tmp_path / "file", "node")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_home_without_a_running_box_names_the_command_that_starts_it(tmp_path: Path) -> None:
    assert "`farcast relay join LINK`" in str(not_running(tmp_path, "relay"))
    Home.create(tmp_path, "relay").close()
    assert "`farcast relay run`" in str(not_running(tmp_path, "relay"))


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        Home.create(tmp_path / "file" / "home", "node")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    write_whole(path, b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert mode(path) == 0o600


def test_default_homes_follow_the_environment() -> None:
    assert default_home("relay", {"FARCAST_HOME": "/srv/box"}) == Path("/srv/box")
    assert default_home("relay", {"XDG_DATA_HOME": "/data"}) == Path("/data/farcast/relay")
    assert default_home("node", {"HOME": "/home/ann"}) == Path("/home/ann/.local/share/farcast/node")
