"""Two tracks become one file without a sample lost, moved or changed, and of the size foretold."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError
from farcast.protocol.isobmff import Box, box, boxes, child, uint
from farcast.protocol.mux import CHUNKS, Indexed, movie_head, mux_init, mux_part, part_size, timescale
from farcast.tests.unit.cmaf import AUDIO_TICKS_S, VIDEO_TICKS_S, init, segment, u32

PICTURE, SOUND = init(VIDEO_TICKS_S, label=b"picture"), init(AUDIO_TICKS_S, label=b"sound")


def samples(part: bytes) -> dict[int, list[bytes]]:
    """Read a part as a player does: by the data offsets and sizes of each track's runs."""
    found: dict[int, list[bytes]] = {}
    moof, mdat = boxes(part)
    assert (moof.kind, mdat.kind) == (b"moof", b"mdat")
    for traf in boxes(part, moof.body, moof.end):
        if traf.kind != b"traf":
            continue
        track = uint(part, child(part, b"tfhd", traf).body + 4, 4)
        for trun in boxes(part, traf.body, traf.end):
            if trun.kind != b"trun":
                continue
            at = moof.start + uint(part, trun.body + 8, 4)
            rows = trun.body + (16 if uint(part, trun.body, 4) & 0x4 else 12)
            for number in range(uint(part, trun.body + 4, 4)):
                size = uint(part, rows + 4 * number, 4)
                assert mdat.body <= at <= at + size <= mdat.end
                found.setdefault(track, []).append(part[at : at + size])
                at += size
    return found


def tracks(data: bytes) -> list[tuple[int, bytes]]:
    """Return the id and sample description of each track of an initialisation segment."""
    moov = child(data, b"moov")
    found: list[tuple[int, bytes]] = []
    for trak in boxes(data, moov.body, moov.end):
        if trak.kind == b"trak":
            stbl = _down(data, trak, b"mdia", b"minf", b"stbl")
            stsd = child(data, b"stsd", stbl)
            found.append((uint(data, child(data, b"tkhd", trak).body + 12, 4), data[stsd.body : stsd.end]))
    return found


def _down(data: bytes, start: Box, *kinds: bytes) -> Box:
    for kind in kinds:
        start = child(data, kind, start)
    return start


BYTES = st.lists(st.binary(max_size=40), max_size=12)


@given(BYTES, BYTES, st.integers(0, 1), st.integers(1, 2**32 - 1))
def test_a_part_holds_every_sample_of_both_tracks_and_weighs_what_was_foretold(
    pictures: list[bytes], sounds: list[bytes], first: int, number: int
) -> None:
    video = segment(7, 1_000, pictures, first_flags=bool(first))
    audio = segment(7, 2_000, sounds)
    part = mux_part(video, audio, number)
    assert len(part) == part_size(len(video), len(audio))
    found = samples(part)
    assert found.get(1, []) == pictures
    assert found.get(2, []) == sounds
    moof = child(part, b"moof")
    assert uint(part, child(part, b"mfhd", moof).body + 4, 4) == number
    assert mux_part(video, audio, number) == part


@given(BYTES)
def test_one_segment_alone_keeps_its_size_and_gets_the_id_of_its_track(sounds: list[bytes]) -> None:
    audio = segment(1, 0, sounds)
    part = mux_part(None, audio, 3)
    assert len(part) == part_size(len(audio)) == len(audio)
    assert samples(part).get(2, []) == sounds


def test_a_segment_whose_samples_share_one_size_is_read_by_it() -> None:
    parts = [box(b"mfhd", bytes(4), u32(1)), box(b"tfhd", u32(0x2003A, 1, 1, 512, 2, 0))]
    parts += [box(b"tfdt", u32(0x1000000), bytes(8))]
    moof_bytes = 8 + len(parts[0]) + 8 + len(parts[1]) + len(parts[2]) + 20
    traf = box(b"traf", parts[1], parts[2], box(b"trun", u32(0x1, 2, moof_bytes + 8)))
    shared = box(b"moof", parts[0], traf) + box(b"mdat", b"abcd")
    part = mux_part(shared, segment(1, 0, [b"s"]), 1)
    assert len(part) == part_size(len(shared), len(segment(1, 0, [b"s"])))
    mdat = child(part, b"mdat")
    assert sorted(part[mdat.body : mdat.end]) == sorted(b"abcds")
    assert mux_part(shared, None, 1).endswith(b"abcd")


def test_tracks_lie_in_turns_so_that_a_player_reads_straight_on() -> None:
    pictures, sounds = [b"P" * 100] * 50, [b"s" * 10] * 94
    part = mux_part(segment(1, 0, pictures, first_flags=True), segment(1, 0, sounds), 1)
    mdat = child(part, b"mdat")
    turns = len(re.findall(rb"P+s+", part[mdat.body : mdat.end]))
    assert turns == CHUNKS
    assert samples(part) == {1: pictures, 2: sounds}


def test_the_decode_times_of_both_tracks_stay() -> None:
    part = mux_part(segment(1, 25_600, [b"a"]), segment(1, 96_256, [b"b"]), 2)
    moof = child(part, b"moof")
    times = [
        uint(part, child(part, b"tfdt", traf).body + 4, 8)
        for traf in boxes(part, moof.body, moof.end)
        if traf.kind == b"traf"
    ]
    assert times == [25_600, 96_256]


def test_the_two_tracks_keep_their_descriptions_under_ids_of_their_own() -> None:
    assert tracks(mux_init(PICTURE, SOUND)) == [(1, b"picture"), (2, b"sound")]
    assert tracks(mux_init(PICTURE, None)) == [(1, b"picture")]
    assert timescale(PICTURE) == VIDEO_TICKS_S


PARTS = st.lists(
    st.builds(Indexed, st.integers(1, 2**24), st.integers(1, 10**7), st.integers(0, 10**7)),
    min_size=1,
    max_size=40,
)


def index(head: bytes, sidx: Box) -> list[tuple[int, int, int]]:
    """Read an index as a player does: the first byte, the first tick and the ticks of each entry."""
    found: list[tuple[int, int, int]] = []
    at, tick = sidx.end + uint(head, sidx.body + 16, 4), uint(head, sidx.body + 12, 4)
    for row in range(sidx.body + 24, sidx.end, 12):
        found.append((at, tick, uint(head, row + 4, 4)))
        at, tick = at + uint(head, row, 4), tick + uint(head, row + 4, 4)
    return [*found, (at, tick, 0)]


@given(PARTS)
def test_the_index_of_each_track_leads_to_every_part_of_it(parts: list[Indexed]) -> None:
    head = movie_head(PICTURE, SOUND, parts)
    pictures, sounds = [one for one in boxes(head) if one.kind == b"sidx"]
    assert sounds.end == len(head), "the first part follows at once"
    offsets = [*accumulate((part.size_bytes for part in parts), initial=len(head))]
    for sidx, track, ticks_s, lengths in (
        (pictures, 1, VIDEO_TICKS_S, [part.picture_us for part in parts]),
        (sounds, 2, AUDIO_TICKS_S, [part.sound_us for part in parts]),
    ):
        assert [uint(head, sidx.body + at, 4) for at in (4, 8)] == [track, ticks_s]
        starts = [us * ticks_s // 10**6 for us in accumulate(lengths, initial=0)]
        found = index(head, sidx)
        assert found[-1][:2] == (offsets[-1], starts[-1]), "it ends where the film ends"
        whole = {(at, tick) for at, tick in zip(offsets, starts, strict=True)}
        assert {(at, tick) for at, tick, _ in found} <= whole, "each entry begins with a part, at its time"
        assert len(found) - 1 == max(1, sum(us > 0 for us in lengths))
    mehd = _down(head, child(head, b"moov"), b"mvex", b"mehd")
    assert uint(head, mehd.body + 4, 8) == sum(part.picture_us for part in parts) // 1_000


def test_a_film_without_sound_has_one_index() -> None:
    head = movie_head(PICTURE, None, [Indexed(10, 2_000_000)] * 3)
    assert [one.kind for one in boxes(head)].count(b"sidx") == 1


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"moof",
        segment(1, 0, [b"a"])[:-1],
        segment(1, 0, [b"a"]) + segment(2, 0, [b"a"]),
        segment(1, 0, [b"a"]).replace(b"traf", b"free"),
        segment(1, 0, [b"a"]).replace(u32(0x20000, 1), u32(0, 1)),
        segment(1, 0, [b"a"]).replace(u32(0x201, 1), u32(0x200, 1)),
        segment(1, 0, [b"a"]).replace(u32(0x201, 1, 100), u32(0x201, 1, 9_999)),
    ],
)
def test_a_segment_of_another_shape_is_refused(wrong: bytes) -> None:
    with pytest.raises(RemoteError):
        mux_part(wrong, segment(1, 0, [b"b"]), 1)


def test_tracks_whose_movies_count_time_differently_are_refused() -> None:
    with pytest.raises(RemoteError, match="time scales"):
        mux_init(PICTURE, init(AUDIO_TICKS_S, movie_ticks_s=600))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_part_or_a_remote_error(data: bytes) -> None:
    for call in (lambda: mux_part(data, None, 1), lambda: mux_init(data, None), lambda: timescale(data)):
        try:
            call()
        except RemoteError:
            continue
