"""Muxing: a CMAF track of pictures and one of sound as one MP4 with two tracks (ISO/IEC 14496-12).

Nothing is decoded and no sample moves: boxes are put together and numbers in them set, so the size of
what comes out is known from the sizes of what goes in. A part is one ``moof`` with a ``traf`` of each
track and one ``mdat``; a segment is one ``moof`` and one ``mdat``, as our ingest slices them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from .errors import RemoteError
from .isobmff import HEADER_BYTES, Box, box, boxes, child, malformed, put, uint, whole

VIDEO_ID, AUDIO_ID = 1, 2
CHUNKS = 8
"""Pieces each track of a part is cut into, laid in turn: players read on and need not jump to and fro."""
_RUN_BYTES = HEADER_BYTES + 12
SAVED_BYTES = HEADER_BYTES + 16 + HEADER_BYTES - 2 * (CHUNKS - 1) * _RUN_BYTES
"""A part of two segments has one ``moof`` header, ``mfhd`` and ``mdat`` header less, and more runs."""
SAMPLES_LIMIT = 100_000
PARTS_LIMIT = 65_535
"""Of one ``sidx``: 36 hours of two-second parts."""

_BASE_OFFSET, _DESCRIPTION, _ONE_DURATION, _ONE_SIZE, _BASE_IS_MOOF = 0x1, 0x2, 0x8, 0x10, 0x20000
_DATA_OFFSET, _FIRST_FLAGS = 0x1, 0x4
_DURATION, _SIZE, _FLAGS, _COMPOSITION = 0x100, 0x200, 0x400, 0x800
_SIZE_LIMIT = 1 << 31
_MICRO = 1_000_000
_STARTS_WITH_SAP = 0x90000000


class Indexed(NamedTuple):
    """What an index says of one part: its bytes, and how many microseconds of each track are in it."""

    size_bytes: int
    picture_us: int
    sound_us: int = 0


def part_size(*segments: int) -> int:
    """Return the size of the part that segments of these sizes make; one alone keeps its own."""
    return sum(segments) - SAVED_BYTES * (len(segments) - 1)


def timescale(init: bytes) -> int:
    """Return the ticks per second of an initialisation segment's first track; raises ``RemoteError``."""
    mdhd = child(init, b"mdhd", child(init, b"mdia", child(init, b"trak", child(init, b"moov"))))
    ticks = uint(init, mdhd.body + (20 if init[mdhd.body] else 12), 4)
    if not ticks:
        raise malformed("a track without a time scale")
    return ticks


def mux_init(video: bytes, audio: bytes | None) -> bytes:
    """Return the initialisation segment of both tracks; of one alone with the id of its place.

    Raises:
        RemoteError: ``malformed``, or ``unsupported`` where the movies' time scales differ.

    """
    return _init([(video, VIDEO_ID)] if audio is None else [(video, VIDEO_ID), (audio, AUDIO_ID)], b"")


def movie_head(video: bytes, audio: bytes | None, parts: Sequence[Indexed]) -> bytes:
    """Return all of a progressive MP4 before its parts: the tracks, the length, and an index of each track.

    Players find any moment by the index (``sidx``, section 8.16.3) and ask for it by range. Sound has its
    own: ffmpeg looks for a track without one in the other's, by the wrong time scale, and lands elsewhere.

    Raises:
        RemoteError: ``malformed``, ``unsupported``, or ``too_large`` past what an index can say.

    """
    moov = child(video, b"moov")
    mvhd = child(video, b"mvhd", moov)
    movie_ticks_s = uint(video, mvhd.body + (20 if video[mvhd.body] else 12), 4)
    tracks, sounds = [(video, VIDEO_ID)], b""
    if audio is not None:
        tracks.append((audio, AUDIO_ID))
        sounds = _index(AUDIO_ID, timescale(audio), 0, ((part.size_bytes, part.sound_us) for part in parts))
    pictures = ((part.size_bytes, part.picture_us) for part in parts)
    index = _index(VIDEO_ID, timescale(video), len(sounds), pictures)
    length = _ticks(sum(part.picture_us for part in parts), movie_ticks_s)
    return _init(tracks, box(b"mehd", b"\1\0\0\0", length.to_bytes(8, "big"))) + index + sounds


def mux_part(video: bytes | None, audio: bytes | None, number: int) -> bytes:
    """Return part ``number`` (from 1), of a segment of each track or of one.

    Raises:
        RemoteError: ``malformed``, or ``unsupported`` for a segment of another shape.

    """
    given = [(data, track) for data, track in ((video, VIDEO_ID), (audio, AUDIO_ID)) if data is not None]
    segments = [_segment(data, track) for data, track in given]
    chunks = CHUNKS if len(segments) > 1 else 1
    mfhd = box(b"mfhd", bytes(4), number.to_bytes(4, "big"))
    trafs_bytes = sum(
        HEADER_BYTES + len(one.before) + len(one.run) + (chunks - 1) * _RUN_BYTES for one in segments
    )
    at = HEADER_BYTES + len(mfhd) + trafs_bytes + HEADER_BYTES
    runs: list[list[bytes]] = [[] for _ in segments]
    pieces: list[bytes] = []
    for turn in range(chunks):
        for one, truns in zip(segments, runs, strict=True):
            trun, piece = one.chunk(turn, chunks, at)
            truns.append(trun)
            pieces.append(piece)
            at += len(piece)
    trafs = [box(b"traf", one.before, *truns) for one, truns in zip(segments, runs, strict=True)]
    return box(b"moof", mfhd, *trafs) + box(b"mdat", *pieces)


class _Segment(NamedTuple):
    """One track's segment: what stands before its run, the run, its samples' sizes, and all their bytes."""

    before: bytes
    run: bytes
    sizes: Sequence[int]
    payload: bytes

    def chunk(self, turn: int, chunks: int, at: int) -> tuple[bytes, bytes]:
        """Return one run of so many, whose data begins ``at`` bytes behind the ``moof``, and that data."""
        count = len(self.sizes)
        first, last = turn * count // chunks, (turn + 1) * count // chunks
        flags, head = uint(self.run, HEADER_BYTES, 4), HEADER_BYTES + 12
        special = self.run[head : head + 4] if flags & _FIRST_FLAGS else b""
        head += len(special)
        width = (len(self.run) - head) // count if count else 0
        rows = self.run[head + first * width : head + last * width]
        if turn:
            flags, special = flags & ~_FIRST_FLAGS, b""
        numbers = b"".join(value.to_bytes(4, "big") for value in (flags, last - first, at))
        start = sum(self.sizes[:first])
        return box(b"trun", numbers, special, rows), self.payload[start : start + sum(self.sizes[first:last])]


def _segment(data: bytes, track: int) -> _Segment:
    found = [*boxes(data)]
    if [one.kind for one in found] != [b"moof", b"mdat"]:
        raise RemoteError("a segment that is not one moof and one mdat", reason="unsupported")
    moof, mdat = found
    inside = [*boxes(data, moof.body, moof.end)]
    if [one.kind for one in inside] != [b"mfhd", b"traf"]:
        raise RemoteError("a segment of more than one track", reason="unsupported")
    parts = [*boxes(data, inside[1].body, inside[1].end)]
    if [one.kind for one in parts] != [b"tfhd", b"tfdt", b"trun"]:
        raise RemoteError("a track that is not one run", reason="unsupported")
    tfhd, tfdt, trun = parts
    flags, shape = uint(data, tfhd.body, 4) & 0xFFFFFF, uint(data, trun.body, 4) & 0xFFFFFF
    if flags & _BASE_OFFSET or not flags & _BASE_IS_MOOF:
        raise RemoteError("data offsets that do not count from their moof", reason="unsupported")
    one_size = flags & _ONE_SIZE and not shape & _SIZE
    twice = shape & _FIRST_FLAGS and shape & _FLAGS
    if twice or not shape & _DATA_OFFSET or not (shape & _SIZE or one_size):
        raise RemoteError("a track run without its offset or sizes", reason="unsupported")
    count, head = uint(data, trun.body + 4, 4), trun.body + (16 if shape & _FIRST_FLAGS else 12)
    width = 4 * sum(bool(shape & bit) for bit in (_DURATION, _SIZE, _FLAGS, _COMPOSITION))
    if head + count * width != trun.end or uint(data, trun.body + 8, 4) != mdat.body - moof.start:
        raise malformed("a track run that does not fit its data")
    if one_size:  # the last segment may be a single sample
        at = tfhd.body + 8 + 4 * sum(bool(flags & bit) for bit in (_DESCRIPTION, _ONE_DURATION))
        if count > SAMPLES_LIMIT:
            raise malformed(f"a segment of {count} samples")
        sizes = [uint(data, at, 4)] * count
    else:
        size_at = head + (4 if shape & _DURATION else 0)
        sizes = [uint(data, size_at + index * width, 4) for index in range(count)]
    if sum(sizes) != mdat.end - mdat.body:
        raise malformed("samples that are not all of the data")
    before = bytearray(data[tfhd.start : tfdt.end])
    put(before, HEADER_BYTES + 4, track)
    return _Segment(bytes(before), whole(data, trun), sizes, data[mdat.body : mdat.end])


def _index(track: int, ticks_s: int, first_offset: int, parts: Iterable[tuple[int, int]]) -> bytes:
    """Return the ``sidx`` of one track: bytes and microseconds of each part; one without any joins others."""
    joined: list[tuple[int, int]] = []
    for size_bytes, us in parts:
        before = joined.pop() if joined and not (us and joined[-1][1]) else (0, 0)
        joined.append((before[0] + size_bytes, before[1] + us))
    if len(joined) > PARTS_LIMIT or any(size_bytes >= _SIZE_LIMIT for size_bytes, _ in joined):
        raise RemoteError(f"a film of {len(joined)} parts is too large for one index", reason="too_large")
    ends = [_ticks(us, ticks_s) for us in accumulate(us for _, us in joined)]
    fields = [0, track, ticks_s, 0, first_offset, len(joined)]
    for (size_bytes, _), begin, end in zip(joined, [0, *ends], ends, strict=False):
        fields += [size_bytes, end - begin, _STARTS_WITH_SAP]
    return box(b"sidx", b"".join(value.to_bytes(4, "big") for value in fields))


def _ticks(us: int, ticks_s: int) -> int:
    return us * ticks_s // _MICRO


def _init(tracks: Sequence[tuple[bytes, int]], mehd: bytes) -> bytes:
    first, _ = tracks[0]
    moov = child(first, b"moov")
    mvhd = bytearray(whole(first, child(first, b"mvhd", moov)))
    put(mvhd, len(mvhd) - 4, len(tracks) + 1)  # next_track_ID
    traks, trexs = list[bytes](), list[bytes]()
    for data, track in tracks:
        movie = child(data, b"moov")
        if _movie_ticks(data, movie) != _movie_ticks(first, moov):
            raise RemoteError("two tracks of different movie time scales", reason="unsupported")
        trak = child(data, b"trak", movie)
        copy = bytearray(whole(data, trak))
        tkhd = child(data, b"tkhd", trak)
        put(copy, tkhd.body - trak.start + (20 if data[tkhd.body] else 12), track)
        traks.append(bytes(copy))
        trex = child(data, b"trex", child(data, b"mvex", movie))
        defaults = bytearray(whole(data, trex))
        put(defaults, HEADER_BYTES + 4, track)
        trexs.append(bytes(defaults))
    mvex = box(b"mvex", mehd, *trexs)
    return whole(first, child(first, b"ftyp")) + box(b"moov", bytes(mvhd), *traks, mvex)


def _movie_ticks(data: bytes, moov: Box) -> int:
    mvhd = child(data, b"mvhd", moov)
    return uint(data, mvhd.body + (20 if data[mvhd.body] else 12), 4)
