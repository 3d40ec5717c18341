from __future__ import annotations

import os
from pathlib import Path

import pytest

from farcast.origin.pulses.segments import SegmentLog, read_segments
from farcast.protocol.errors import LocalError, StoreFullError
from farcast.protocol.merkle import root_of

HOUR_MS = 3_600_000
T0 = 1_793_500_000_000


def opened(folder: Path) -> tuple[SegmentLog, list[bytes]]:
    seen: list[bytes] = []
    return SegmentLog(folder, seen.append), seen


def filled(folder: Path, payloads: list[bytes], step_ms: int = 1_000) -> None:
    log, _ = opened(folder)
    for index, payload in enumerate(payloads):
        log.append(payload, T0 + index * step_ms)
    log.close()


def test_frames_come_back_in_order_across_hours_and_restarts(tmp_path: Path) -> None:
    payloads = [f"frame {index}".encode() * 10 for index in range(7)]
    filled(tmp_path, payloads, HOUR_MS // 2)
    assert len(list(tmp_path.glob("*.seg"))) > 2
    log, seen = opened(tmp_path)
    assert seen == payloads == list(read_segments(tmp_path))
    assert log.tree.root() == root_of(payloads)
    log.append(b"one more", T0 + 9 * HOUR_MS)
    log.close()
    assert list(read_segments(tmp_path)) == [*payloads, b"one more"]


def test_a_torn_last_frame_is_cut_at_every_length_and_counted(tmp_path: Path) -> None:
    payloads = [b"first" * 9, b"second" * 9]
    filled(tmp_path, payloads)
    path = next(tmp_path.glob("*.seg"))
    whole = path.read_bytes()
    first = 44 + len(payloads[0])
    for length in range(first + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_segments(tmp_path)) == payloads[:1]
        log, seen = opened(tmp_path)
        assert (seen, log.torn_bytes) == (payloads[:1], length - first)
        assert path.stat().st_size == first
        log.append(b"goes on", T0 + 5_000)
        log.close()
        assert list(read_segments(tmp_path)) == [payloads[0], b"goes on"]


def test_a_frame_of_zeros_at_the_end_is_torn_too(tmp_path: Path) -> None:
    filled(tmp_path, [b"kept"])
    path = next(tmp_path.glob("*.seg"))
    with path.open("ab") as file:
        file.write(bytes(500))
    log, seen = opened(tmp_path)
    assert (seen, log.torn_bytes) == ([b"kept"], 500)


@pytest.mark.parametrize("place", [0, 4, 9, 13, 50, 200])
def test_a_changed_byte_before_the_last_frame_is_damage_not_a_torn_end(tmp_path: Path, place: int) -> None:
    filled(tmp_path, [b"a" * 100, b"b" * 100, b"c" * 100])
    path = next(tmp_path.glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(LocalError, match="is damaged at byte"):
        opened(tmp_path)
    assert path.read_bytes() == data


def test_a_file_taken_out_breaks_the_chain(tmp_path: Path) -> None:
    filled(tmp_path, [b"a", b"b", b"c"], HOUR_MS)
    sorted(tmp_path.glob("*.seg"))[1].unlink()
    with pytest.raises(LocalError, match="damaged"):
        list(read_segments(tmp_path))


def test_a_clock_set_back_opens_no_earlier_file(tmp_path: Path) -> None:
    log, _ = opened(tmp_path)
    log.append(b"now", T0)
    log.append(b"earlier", T0 - 5 * HOUR_MS)
    log.close()
    assert list(read_segments(tmp_path)) == [b"now", b"earlier"]


def test_a_full_disk_takes_nothing_and_the_log_goes_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = opened(tmp_path)
    log.append(b"before", T0)
    real = os.write

    def half(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreFullError, match="disk is full"):
        log.append(b"lost", T0 + 1)
    monkeypatch.setattr(os, "write", real)
    log.append(b"after", T0 + 2)
    assert log.tree.size == 2
    log.close()
    assert list(read_segments(tmp_path)) == [b"before", b"after"]


def test_after_a_failed_sync_the_log_refuses_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = opened(tmp_path)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(LocalError, match="cannot be written"):
            log.append(b"lost", T0)
    with pytest.raises(LocalError, match="restart"):
        log.append(b"more", T0)
    log.close()
    assert opened(tmp_path)[1] == [b"lost"]  # written, and never acked: it may be there, whole
