"""The intake on a disk that is full: refused with a sentence, nothing acked lost, and on it goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from farcast.node.http.problem import problem_of
from farcast.protocol.batch import covers
from farcast.protocol.errors import StoreFullError
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import FIRST_DAY, Viewer, open_intake, post, read

NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
FILM = b"f" * 32
SIZE = "256k"


@pytest.fixture
def small(tmp_path: Path) -> Generator[Path, None, None]:
    """Return a folder on a tmpfs of 256 KiB."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE}", "farcast-small", str(tmp_path)],
        check=False, capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def test_a_full_disk_refuses_loses_nothing_acked_and_goes_on(small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(100_000))
    intake = open_intake(small)
    acked: list[tuple[Viewer, int]] = []
    refused: list[tuple[Viewer, bytes]] = []
    told: list[tuple[int, bool]] = []
    for number in range(40):
        viewer = Viewer(number)
        body = post([viewer], viewer.watch(FILM, 19))
        try:
            ack = read(intake.post(body, NOON + number))
        except StoreFullError as error:
            refused.append((viewer, body))
            told.append((problem_of(error).status, "the disk is full" in str(error)))
        else:
            assert covers(ack.tids[0], 20)
            acked.append((viewer, 20))
    assert acked
    assert refused
    assert set(told) == {(507, True)}
    assert intake.counts().accepted == 20 * len(acked)
    for viewer, _ in refused:
        assert intake.acks_for([viewer.tid], NOON) == []
    ballast.unlink()
    for viewer, body in refused[:10]:
        assert covers(read(intake.post(body, NOON + 100)).tids[0], 20)
        acked.append((viewer, 20))
    head = intake.head()
    intake.close()
    (small / "intake" / "checkpoint").unlink(missing_ok=True)  # as if it had been killed
    again = open_intake(small)
    assert (again.torn_bytes, again.head()) == (0, head)
    for viewer, last in acked:
        assert covers(read(again.acks_for([viewer.tid], NOON)[0]).tids[0], last)
    again.close()
