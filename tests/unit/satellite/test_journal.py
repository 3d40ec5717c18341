"""Symbols on disk: what is found again after the end of a process, however it came."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farcast.protocol.errors import LocalError
from farcast.protocol.generation import describe, seal_descriptor
from farcast.protocol.identity import Identity
from farcast.satellite.journal import OPEN_FILES, Journal

CATALOG = Identity(b"c" * 32)
SENDER = "10.0.0.1:7000"
RECORD_BYTES = 4 + 128 + 4


def envelope(seed: int = 1) -> tuple[int, bytes]:
    described = describe(random.Random(seed).randbytes(5_000), b"o" * 8, 128, 10_000)
    return described.number, seal_descriptor(described, CATALOG)


def symbol(number: int) -> bytes:
    return number.to_bytes(4, "big") + random.Random(number).randbytes(128)


def written(folder: Path, ids: list[int], sender: str = SENDER, seed: int = 1) -> Path:
    """Keep symbols and close; returns the file."""
    before = {*folder.glob("*")}
    journal = Journal(folder)
    journal.load()
    number, signed = envelope(seed)
    journal.open(number, sender, signed)
    for one in ids:
        journal.add(number, sender, symbol(one))
    journal.close()
    return next(iter({*folder.glob("*")} - before))


def test_what_was_kept_is_found_again_and_more_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "carousel"
    written(folder, [3, 1, 2])
    journal = Journal(folder)
    [stored] = journal.load()
    number, signed = envelope()
    assert stored == (number, SENDER, signed, [3, 1, 2])
    journal.add(number, SENDER, symbol(9))
    assert [*journal.read(number, SENDER)] == [symbol(one) for one in (3, 1, 2, 9)]
    journal.close()
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600]
    assert Journal(folder).load()[0].ids == [3, 1, 2, 9]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 20 * RECORD_BYTES + 300))
def test_a_torn_tail_is_cut_and_what_comes_after_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    path = written(folder, [*range(20)])
    data = path.read_bytes()
    path.write_bytes(data[: max(len(data) - cut, 0)])
    journal = Journal(folder)
    found = journal.load()
    head = len(data) - 20 * RECORD_BYTES
    if len(data) - cut < head:
        assert found == []
        assert not path.exists()
        return
    whole = (len(data) - cut - head) // RECORD_BYTES
    assert found[0].ids == [*range(whole)]
    journal.add(found[0].number, SENDER, symbol(77))
    journal.close()
    assert Journal(folder).load()[0].ids == [*range(whole), 77]


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 20 * RECORD_BYTES + 200), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_what_follows_it_and_never_gives_a_false_symbol(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = written(folder, [*range(20)])
    data = bytearray(path.read_bytes())
    at %= len(data)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    journal = Journal(folder)
    for stored in journal.load():
        assert stored.ids == [*range(len(stored.ids))]
        assert [*journal.read(stored.number, SENDER)] == [symbol(one) for one in stored.ids]
        assert len(stored.ids) >= (at - (len(data) - 20 * RECORD_BYTES)) // RECORD_BYTES
    journal.close()


@pytest.mark.parametrize("noise", [b"", b"FSJ\x01", b"FSJ\x01\xff\xff" + bytes(99), b"x" * 5_000])
def test_files_of_no_use_are_removed(tmp_path: Path, noise: bytes) -> None:
    path = tmp_path / "0000000000000001-0000000000000000.symbols"
    path.write_bytes(noise)
    assert Journal(tmp_path).load() == []
    assert not path.exists()


def test_a_file_under_anothers_name_is_removed(tmp_path: Path) -> None:
    path = written(tmp_path, [1])
    path.rename(tmp_path / "0000000000000001-0000000000000000.symbols")
    assert Journal(tmp_path).load() == []


def test_dropped_symbols_are_gone_and_more_files_than_are_open_work(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.load()
    number, signed = envelope()
    senders = [f"10.0.0.1:{port}" for port in range(OPEN_FILES + 3)]
    for sender in senders:
        journal.open(number, sender, signed)
    for one in range(3):
        for sender in senders:
            journal.add(number, sender, symbol(one))
    for sender in senders[1:]:
        assert [*journal.read(number, sender)] == [symbol(one) for one in range(3)]
        journal.drop(number, sender)
    journal.flush()
    journal.close()
    assert len([*tmp_path.iterdir()]) == 1


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    journal = Journal(tmp_path / "file" / "carousel")
    with pytest.raises(LocalError, match="carousel") as caught:
        journal.load()
    assert caught.value.reason == "journal"
    number, signed = envelope()
    with pytest.raises(LocalError):
        journal.open(number, SENDER, signed)
