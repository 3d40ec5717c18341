from __future__ import annotations

import os
from pathlib import Path

import pytest

from farcast.origin.pulses.admission import Admission
from farcast.protocol.errors import LocalError
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import FIRST_DAY, Viewer, open_intake, post, read

NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
FILM = b"f" * 32


def filled(folder: Path) -> tuple[Viewer, list[bytes]]:
    """Leave a log of two hours and a checkpoint behind."""
    intake, viewer = open_intake(folder), Viewer(1)
    pulses = viewer.watch(FILM, 5)
    intake.post(post([viewer], pulses[:2]), NOON)
    intake.post(post([viewer], pulses[2:4]), NOON + 3_600_000)
    intake.close()
    return viewer, pulses


def replayed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Open the intake and return how many entries it had to apply."""
    count = 0

    def apply(self: object, frame: object) -> None:
        nonlocal count
        count += 1
        real(self, frame)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        real = Admission.apply
        patch.setattr(Admission, "apply", apply)
        intake = open_intake(folder)
    assert intake.counts().accepted == 4
    return count


def test_a_start_applies_only_what_came_after_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, pulses = filled(tmp_path)
    assert replayed(tmp_path, monkeypatch) == 0
    intake = open_intake(tmp_path)
    ack = read(intake.post(post([viewer], pulses[4:]), NOON + 3_600_001))
    assert ack.tids[0].upto == 6
    again = open_intake(tmp_path)
    assert (again.counts(), again.head()) == (intake.counts(), intake.head())


@pytest.mark.parametrize("harm", ["cut", "flip", "version"])
def test_a_checkpoint_that_is_not_whole_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    filled(tmp_path)
    path = tmp_path / "intake" / "checkpoint"
    data = bytearray(path.read_bytes())
    if harm == "version":
        monkeypatch.setattr("farcast.origin.pulses.checkpoint.VERSION", 99)
    elif harm == "cut":
        path.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert replayed(tmp_path, monkeypatch) == 3, "two posts, and the seal between them"


def test_a_segment_file_that_changed_since_is_read_and_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    paths = sorted((tmp_path / "intake" / "seg").glob("*.seg"))
    os.utime(paths[0], ns=(1, 1))
    assert replayed(tmp_path, monkeypatch) == 3, "two posts, and the seal between them"
    for path in paths:
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
        with pytest.raises(LocalError, match=f"{path.name} is damaged at byte 0") as caught:
            open_intake(tmp_path)
        assert caught.value.reason == "damaged"
        data[60] ^= 1
        path.write_bytes(data)


def test_a_log_shorter_than_its_checkpoint_is_read_again(tmp_path: Path) -> None:
    filled(tmp_path)
    max((tmp_path / "intake" / "seg").glob("*.seg")).unlink()
    intake = open_intake(tmp_path)
    assert intake.counts().accepted == 2
