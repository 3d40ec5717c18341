"""Titles are cut into volumes, and what is damaged in one is told from what is not."""

from __future__ import annotations

from io import BytesIO
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.node.stick.volume import is_whole, pieces, plan, sections
from farcast.protocol.car import Reader, header, section
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError

BLOCKS = {Cid.of(RAW, data): data for data in (bytes([number]) * (100 + number * 37) for number in range(40))}
ROOT = next(iter(BLOCKS))


def volumes(volume_bytes: int) -> list[bytes]:
    """Return the bytes of every volume, and check what was planned."""
    cut = plan(ROOT, ((cid, len(data)) for cid, data in BLOCKS.items()), volume_bytes)
    assert [cid for volume in cut for cid in volume.cids] == [*BLOCKS]
    made = [b"".join(pieces(volume, BLOCKS.__getitem__)) for volume in cut]
    assert [len(data) for data in made] == [volume.size_bytes for volume in cut]
    assert [volume.file for volume in cut[:2]] == ["0001.car", "0002.car"][: len(cut)]
    assert all(is_whole(BytesIO(data), volume) for data, volume in zip(made, cut, strict=True))
    return made


@given(st.integers(1, 50_000))
@settings(max_examples=40)
def test_whatever_the_cut_each_volume_is_a_car_of_known_size_and_together_they_are_the_title(
    volume_bytes: int,
) -> None:
    found: list[Cid] = []
    for data in volumes(volume_bytes):
        assert len(data) <= volume_bytes or len(Reader().push(data)) == 1
        reader = Reader()
        found += [cid for cid, _ in reader.push(data)]
        reader.finish()
        assert reader.roots == (ROOT,)
    assert found == [*BLOCKS]


@given(st.data())
@settings(max_examples=150)
def test_one_wrong_byte_spoils_one_block_or_is_told(data: st.DataObject) -> None:
    [car] = volumes(1 << 20)
    place = data.draw(st.integers(0, len(car) - 1))
    spoilt = car[:place] + bytes([car[place] ^ data.draw(st.integers(1, 255))]) + car[place + 1 :]
    [volume] = plan(ROOT, ((cid, len(block)) for cid, block in BLOCKS.items()), 1 << 20)
    good: dict[Cid, bytes] = {}
    wrong = 0
    try:
        for cid, block in sections(BytesIO(spoilt), lambda _: True):
            if cid in BLOCKS and cid.matches(block):
                good[cid] = block
            else:  # a wrong name is one that nobody wants
                wrong += 1
        told = False
    except RemoteError:
        told = True
    assert good.items() <= BLOCKS.items()
    first_bytes = len(next(pieces(volume, BLOCKS.__getitem__)))
    if place >= first_bytes:  # a header names roots alone; nobody asks it for anything
        assert told or wrong
        assert not is_whole(BytesIO(spoilt), volume)
    if not told:
        assert len(good) >= len(BLOCKS) - 1


@given(st.data())
def test_a_volume_that_was_cut_gives_the_blocks_before_the_cut_and_says_so(data: st.DataObject) -> None:
    [car] = volumes(1 << 20)
    ends = [*accumulate([len(header([ROOT])), *(len(section(*block)) for block in BLOCKS.items())])]
    left = data.draw(st.one_of(st.integers(0, len(car)), st.sampled_from(ends)))
    found: list[Cid] = []
    try:
        for cid, block in sections(BytesIO(car[:left]), lambda _: True):
            assert cid.matches(block)
            found.append(cid)
        whole = True
    except RemoteError:
        whole = False
    assert whole == (left in ends)
    assert found == [*BLOCKS][: max(sum(end <= left for end in ends) - 1, 0)]


def test_what_nobody_wants_is_passed_over_without_being_read() -> None:
    [car] = volumes(1 << 20)
    last = [*BLOCKS][-1]
    assert [cid for cid, _ in sections(BytesIO(car), last.__eq__)] == [last]
    with pytest.raises(RemoteError, match="ends in the middle"):
        list(sections(BytesIO(car[:-1]), lambda _: False))
