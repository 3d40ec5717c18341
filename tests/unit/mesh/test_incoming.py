"""Units out of pieces, one after another."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.incoming import Incoming
from farcast.mesh.partner import Unit
from farcast.protocol.errors import RemoteError


def put(incoming: Incoming, unit: Unit, data: bytes, cuts: list[int], *, keep: bool = True) -> bytes | None:
    """Let a unit come cut into pieces; every one but the last leaves it unfinished."""
    edges = [0, *sorted(cuts), len(data)]
    pieces = [(start, data[start:end]) for start, end in pairwise(edges) if end > start]
    for start, piece in pieces or [(0, b"")]:
        whole = incoming.take(unit, start, len(data), memoryview(piece), keep=keep)
        assert whole == (start + len(piece) == len(data))
    kept = incoming.whole()
    return None if kept is None else bytes(kept)


@given(st.lists(st.tuples(st.binary(max_size=64), st.lists(st.integers(0, 64)), st.booleans()), max_size=6))
def test_units_come_whole_one_after_another_however_they_are_cut(
    units: list[tuple[bytes, list[int], bool]],
) -> None:
    incoming = Incoming()
    for block, (data, cuts, keep) in enumerate(units):
        came = put(incoming, Unit(block, 0), data, [min(cut, len(data)) for cut in cuts], keep=keep)
        assert came == (data if keep else None)
        assert incoming.whole() is None, "handed out once"


@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 9), st.integers(1, 8))
def test_only_the_piece_that_goes_on_is_taken(block: int, offset: int, size: int, begun: int) -> None:
    incoming = Incoming()
    assert not incoming.take(Unit(0, 0), 0, 9, memoryview(b"x" * begun), keep=True)
    if block == 0 and offset == begun and 0 < size <= 9 - begun:
        assert incoming.take(Unit(0, 0), offset, 9, memoryview(b"y" * size), keep=True) == (begun + size == 9)
        return
    with pytest.raises(RemoteError) as caught:
        incoming.take(Unit(block, 0), offset, 9, memoryview(b"y" * size), keep=True)
    assert caught.value.reason == "malformed"


def test_no_unit_begins_in_its_middle() -> None:
    with pytest.raises(RemoteError, match="out of its order"):
        Incoming().take(Unit(0, 0), 1, 9, memoryview(b"x"), keep=True)
