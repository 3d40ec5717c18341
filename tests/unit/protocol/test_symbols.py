"""What neighbours ask each other of a generation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.generation import BUNDLE_LIMIT_BYTES, SYMBOL_BYTES, describe
from farcast.protocol.symbols import ASK_LIMIT_BYTES, ASK_SYMBOLS, SymbolAsk, pack_ask, read_ask


@given(
    st.builds(
        SymbolAsk,
        st.just(1),
        st.integers(0, 2**64 - 1),
        st.sampled_from([64, 640, 1_280, 1_408]),
        st.binary(max_size=3_000),
        st.integers(1, ASK_SYMBOLS),
    )
)
def test_what_is_packed_is_read(ask: SymbolAsk) -> None:
    assert read_ask(pack_ask(ask)) == ask


def test_every_symbol_of_the_largest_generation_can_be_held() -> None:
    largest = describe(bytes(BUNDLE_LIMIT_BYTES), b"o" * 8, SYMBOL_BYTES, 0)
    held = bytes(-(-largest.symbol_ids // 8))
    assert len(pack_ask(SymbolAsk(1, 1, SYMBOL_BYTES, held, 1))) <= ASK_LIMIT_BYTES
    assert read_ask(pack_ask(SymbolAsk(1, 1, SYMBOL_BYTES, held, 1))).held == held


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RemoteError):
        read_ask(noise)
