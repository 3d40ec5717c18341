"""The code itself, and what it must not be given."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.satellite.fec import RaptorQ

FEC = RaptorQ()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60_000), st.integers(0, 200), st.randoms(use_true_random=False))
def test_a_later_window_alone_gives_the_whole(length: int, skip: int, rng: random.Random) -> None:
    data = rng.randbytes(length)
    source = -(-length // 640)
    symbols = FEC.encode(data, 640, source + 4, skip)
    assert [int.from_bytes(one[1:4], "big") for one in symbols] == [*range(skip, skip + source + 4)]
    rng.shuffle(symbols)
    assert FEC.decode(length, 640, symbols) == data


def test_a_source_symbol_is_a_piece_of_the_data() -> None:
    data = random.Random(1).randbytes(3_000)
    pieces = [data[at : at + 1_280].ljust(1_280, b"\0") for at in range(0, 3_000, 1_280)]
    assert FEC.encode(data, 1_280, 3) == [at.to_bytes(4, "big") + piece for at, piece in enumerate(pieces)]


def test_too_few_symbols_give_nothing() -> None:
    symbols = FEC.encode(bytes(50_000), 1_280, 39)
    assert FEC.decode(50_000, 1_280, symbols) is None


@pytest.mark.parametrize("symbol", [b"", b"abc", b"\x07" + bytes(1_283)])
def test_what_makes_the_library_panic_is_the_senders_fault(symbol: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        FEC.decode(50_000, 1_280, [symbol])
    assert caught.value.reason == "panic"
