"""Full disks, read-only homes and interrupted work: a sentence each, and nothing half-made stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from farcast.tests.wire.conftest import Town
from farcast.tests.wire.street import Ran, Street, draw, unchanged, until

SMALL_DISK = """
mount -t tmpfs -o size=8m tmpfs "$DISK" || exit 77
cp -a "$ORIGIN" "$DISK/home"
[ "$LEFT_KIB" -gt 4096 ] || head -c 9M /dev/zero >"$DISK/fill" 2>/dev/null
[ ! -f "$DISK/fill" ] || truncate -s "-${LEFT_KIB}K" "$DISK/fill"
[ -z "$READ_ONLY" ] || mount -o remount,ro "$DISK"
list() { (cd "$DISK" && find . -not -path '*/encodes/*' | sort) >"$LISTED.$1"; }
list before; "$@"; code=$?; list after
[ -n "$LOOK" ] || exit $code
rm "$DISK/fill"
"$PYTHON" -m farcast origin status --json --home "$DISK/home" >"$LISTED.status"
exit $code
"""
"""On a file system of its own, which goes with the process: the command, and what it left behind."""


def on_small_disk(
    street: Street,
    folder: Path,
    *arguments: str | Path,
    left_kib: int = 8_192,
    read_only: bool = False,
    look: bool = False,
) -> Ran:
    """Run a command beside a copy of the origin's home on a disk with so much left, then ``look`` at it."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install util-linux")
    disk, listed = folder / "disk", folder / "listed"
    disk.mkdir(exist_ok=True)
    facts = {
        "DISK": str(disk),
        "LISTED": str(listed),
        "ORIGIN": str(street.home("origin")),
        "LEFT_KIB": str(left_kib),
        "READ_ONLY": "1" if read_only else "",
        "LOOK": "1" if look else "",
        "PYTHON": sys.executable,
    }
    inside = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    inside += ["bash", "-c", SMALL_DISK, "small-disk"]
    done = subprocess.run(
        [*inside, sys.executable, "-m", "farcast", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**street.environment(), **facts},
        timeout=60,
        check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr
    before, after = (set(Path(f"{listed}.{when}").read_text().split()) for when in ("before", "after"))
    left = {
        name for name in after - before if not name.endswith(("-wal", "-shm", ".tmp", "encodes", "blocks"))
    }
    assert left <= {"./home/index.db"}, left  # opened, and empty: a store is there from its first use
    if look:
        assert json.loads(Path(f"{listed}.status").read_text())["titles"] == 0
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_full_disk_is_named_and_nothing_half_made_stays(street: Street, tmp_path: Path) -> None:
    size = ("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=6")
    film = draw(tmp_path / "film.mp4", *size, "-c:v", "libx264", "-preset", "ultrafast")
    home = tmp_path / "disk" / "home"
    init = ("origin", "init", "--endpoint", "127.0.0.1:9", "--home", tmp_path / "disk" / "new")
    root = street.home("origin") / "tuf" / "root.json"
    on_small_disk(street, tmp_path, *init, left_kib=0).refused(1, "disk is full", "make room")
    joined = on_small_disk(street, tmp_path, "join", root, "--home", tmp_path / "disk" / "new", left_kib=0)
    joined.refused(1, "disk is full", "make room")
    added = on_small_disk(street, tmp_path, "origin", "account", "add", "eve", "--home", home, left_kib=0)
    added.refused(1, "disk is full", "make room")
    publish = ("origin", "publish", film, "--preset", "ultrafast", "--home", home)
    on_small_disk(street, tmp_path, *publish).refused(1, "blocks", "make room")
    encoding = on_small_disk(street, tmp_path, *publish, left_kib=400, look=True)
    encoding.refused(1, "film.mp4", "is full", "make room")
    assert not list((tmp_path / "disk").iterdir())  # the file system went with its process


FULL_NODE = """
mount -t tmpfs -o size=8m tmpfs "$DISK" || exit 77
"$PYTHON" -m farcast join "$ROOT" --home "$DISK/home" >/dev/null || exit 1
"$PYTHON" -m farcast run --home "$DISK/home" >/dev/null 2>"$DISK/log" & node=$!
for _ in $(seq 200); do
  "$PYTHON" -m farcast play film --url --home "$DISK/home" 2>/dev/null && break; sleep 0.2
done
"$PYTHON" -c 'import json, sys, urllib.request as r
base = json.load(open(sys.argv[1] + "/home/admin.json"))["url"] + "/watch/film/"
for file in sys.argv[2:]: print(len(r.urlopen(base + file, timeout=20).read()))' "$DISK" $FILES
"$PYTHON" -m farcast keep film --home "$DISK/home"; echo "keep ended with $?"
kill $node; wait $node; echo "run ended with $?"
"""
"""A viewer's node on a disk with less room than any store wants: it plays a film, then is to keep it."""


def test_a_full_disk_stops_keeping_with_a_sentence_but_not_playing(town: Town, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install util-linux")
    files = ("master.m3u8", "v72/init.mp4", "v72/seg-00000.m4s", "audio/seg-00001.m4s")
    facts = {
        "DISK": str(tmp_path),
        "ROOT": str(town.origin.home / "tuf" / "root.json"),
        "FILES": " ".join(files),
        "PYTHON": sys.executable,
        "FARCAST_SATELLITE_ENABLED": "false",
        "FARCAST_MESH_ENABLED": "false",
    }
    done = subprocess.run(
        ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "bash", "-c", FULL_NODE],
        capture_output=True,
        text=True,
        env={**town.street.environment(), **facts},
        timeout=90,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    folder = Path(town.published["folder"])
    assert lines[1:5] == [str((folder / file).stat().st_size) for file in files], done
    assert lines[-2:] == ["keep ended with 1", "run ended with 0"], done
    Ran(1, "", done.stderr).refused(1, "film is not whole", "free some disk")


def test_a_home_that_may_not_be_written_is_named(street: Street, tmp_path: Path) -> None:
    home = tmp_path / "disk" / "home"
    refused = on_small_disk(street, tmp_path, "origin", "run", "--home", home, read_only=True)
    refused.refused(1, str(home), "Read-only file system", "--home")
    root = street.home("origin") / "tuf" / "root.json"
    joined = on_small_disk(street, tmp_path, "join", root, "--home", home.with_name("new"), read_only=True)
    joined.refused(2, str(home.with_name("new")), "Read-only file system", "--home")


@pytest.mark.parametrize("alone", [True, False], ids=["the command alone", "everything in the terminal"])
def test_an_interrupted_publish_leaves_only_what_the_next_goes_on_from(
    street: Street, tmp_path: Path, *, alone: bool
) -> None:
    size = ("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=20")
    film = draw(tmp_path / "long.mp4", *size, "-c:v", "libx264", "-preset", "ultrafast")
    home = street.home("origin")
    encodes = home / "encodes"
    with unchanged(home, but="encodes/.parts"):  # what the next publishing goes on from
        publishing = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "farcast",
                "origin",
                "publish",
                film,
                "--home",
                home,
                "--preset",
                "veryslow",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=street.environment(),
            start_new_session=True,
        )
        try:
            until(lambda: bool(list(encodes.glob(".parts/.*.work/*"))), 30)
            (os.kill if alone else os.killpg)(publishing.pid, signal.SIGINT)
            out, err = publishing.communicate(timeout=20)
        finally:
            publishing.kill()
        assert publishing.returncode == 130
        assert b"Traceback" not in out + err
    assert not encoding(film)


def encoding(film: Path) -> list[int]:
    """Return the processes at work on ``film``."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(film).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    return found
