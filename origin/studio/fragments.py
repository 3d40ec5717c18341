"""Fragmented MP4, read just far enough to write a playlist: boxes in, exact times and codecs out.

Pure: bytes in, tuples out. Box layouts are those of ISO/IEC 14496-12 (boxes), 14496-15 (``avcC``)
and 14496-14 with 14496-1 (``esds``); codec strings are those of RFC 6381.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Literal, NamedTuple

from ...protocol.errors import RemoteError

BOXES_LIMIT = 1_000_000
"""More boxes than this in one buffer is no film: 23 days of two-second fragments need fewer."""
SAMPLES_LIMIT = 100_000
"""More samples than this in one fragment is no fragment of ours."""

Buffer = bytes | mmap.mmap

_HEADER_BYTES = 8
_LARGE_HEADER_BYTES = 16
_VIDEO_ENTRY_BYTES, _AUDIO_ENTRY_BYTES = 78, 28
_AAC = 0x40
_NON_SYNC = 0x10000
_BASE_OFFSET, _DESCRIPTION, _DEFAULT_DURATION, _DEFAULT_SIZE, _DEFAULT_FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20
_DATA_OFFSET, _FIRST_FLAGS = 0x1, 0x4
_DURATION, _SIZE, _FLAGS, _COMPOSITION = 0x100, 0x200, 0x400, 0x800


class Box(NamedTuple):
    """One box: its four letters, where it starts, where its payload starts, where it ends."""

    kind: bytes
    start: int
    body: int
    end: int


class Init(NamedTuple):
    """What an initialisation segment says; ``width``/``height`` are 0 for sound, ``channels`` for video.

    ``timescale`` is ticks per second; ``sample_ticks`` and ``sample_flags`` are the defaults of ``trex``.
    """

    kind: Literal["video", "audio"]
    codecs: str
    timescale: int
    width: int
    height: int
    channels: int
    sample_ticks: int
    sample_flags: int


class Fragment(NamedTuple):
    """One media segment: first decode time and length in ticks, samples, and bytes."""

    start: int
    ticks: int
    samples: int
    size_bytes: int


def boxes(data: Buffer, start: int, end: int, *, cut: bool = False) -> Iterator[Box]:
    """Walk the boxes between two offsets; with ``cut``, the last one may reach past ``end``.

    Raises:
        RemoteError: ``malformed`` where a box does not fit.

    """
    for _ in range(BOXES_LIMIT):
        if start == end:
            return
        size, body = _uint(data, start, 4), start + _HEADER_BYTES
        kind = data[start + 4 : body]
        if size == 1:  # the 64-bit form
            size, body = _uint(data, body, 8), start + _LARGE_HEADER_BYTES
        if start + size < body or (start + size > end and not cut):
            raise _malformed(f"a box {kind!r} of {size} bytes at {start} that does not fit")
        yield Box(kind, start, body, start + size)
        start += size
        if start > end:
            return
    raise _malformed("too many boxes")


def split(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges of a fragmented MP4: its init segment first, then every fragment.

    Raises:
        RemoteError: ``malformed``.

    """
    start: int | None = 0
    for box in boxes(data, 0, len(data)):
        if box.kind == b"moof" and start is None:
            start = box.start
        if box.kind in {b"moov", b"mdat"} and start is not None:
            yield start, box.end
            start = None


def parse_init(data: bytes) -> Init:
    """Read an initialisation segment with one H.264 or AAC track.

    Raises:
        RemoteError: ``malformed``, or ``unsupported`` for another codec.

    """
    moov = _child(data, Box(b"", 0, 0, len(data)), b"moov")
    trak = _child(data, moov, b"trak")
    mdia = _child(data, trak, b"mdia")
    mdhd = _child(data, mdia, b"mdhd")
    timescale = _uint(data, mdhd.body + (20 if _uint(data, mdhd.body, 1) else 12), 4)
    if not timescale:
        raise _malformed("a track without a time scale")
    trex = _child(data, _child(data, moov, b"mvex"), b"trex")
    defaults = _uint(data, trex.body + 12, 4), _uint(data, trex.body + 20, 4)
    stbl = _child(data, _child(data, mdia, b"minf"), b"stbl")
    stsd = _child(data, stbl, b"stsd")
    for entry in boxes(data, stsd.body + 8, stsd.end):
        if entry.kind == b"avc1":
            inner = Box(b"", entry.start, entry.body + _VIDEO_ENTRY_BYTES, entry.end)
            avcc = _child(data, inner, b"avcC")
            codecs = f"avc1.{_uint(data, avcc.body + 1, 3):06x}"
            width, height = _uint(data, entry.body + 24, 2), _uint(data, entry.body + 26, 2)
            return Init("video", codecs, timescale, width, height, 0, *defaults)
        if entry.kind == b"mp4a":
            inner = Box(b"", entry.start, entry.body + _AUDIO_ENTRY_BYTES, entry.end)
            codecs, channels = _aac(data, _child(data, inner, b"esds"))
            return Init("audio", codecs, timescale, 0, 0, channels, *defaults)
        message = f"a track of codec {entry.kind!r}, neither avc1 nor mp4a"
        raise RemoteError(message, reason="unsupported")
    raise _malformed("a track without a sample description")


def parse_fragment(head: bytes, size_bytes: int, init: Init) -> Fragment:
    """Read a media segment of ``size_bytes`` whose first bytes, every ``moof`` included, are ``head``.

    Raises:
        RemoteError: ``malformed``, or ``not_independent`` where its first picture needs an earlier one.

    """
    start, ticks, samples, end, last = -1, 0, 0, 0, b""
    for box in boxes(head, 0, len(head), cut=True):
        end, last = box.end, box.kind
        if box.kind != b"moof":
            continue
        if end > len(head):
            raise _malformed(f"a moof box that ends at {end}, behind the part that is read")
        traf = _child(head, box, b"traf")
        run = _track_run(head, traf, init)
        if start < 0:
            start = _decode_time(head, traf)
            if init.kind == "video" and run.first_flags & _NON_SYNC:
                raise RemoteError("a segment that does not start with a key frame", reason="not_independent")
        ticks += run.ticks
        samples += run.samples
    if start < 0 or ticks <= 0 or end != size_bytes or last != b"mdat":
        raise _malformed(f"a segment of {size_bytes} bytes whose boxes end at {end}")
    return Fragment(start, ticks, samples, size_bytes)


def retimed(data: bytes, ticks: int, sequence: int) -> bytes:
    """Return a media segment moved ``ticks`` later, its fragments numbered from ``sequence`` on.

    The fields are those of ``tfdt`` (ISO/IEC 14496-12, 8.8.12) and ``mfhd`` (8.8.5).

    Raises:
        RemoteError: ``malformed``.

    """
    moved = bytearray(data)
    for box in boxes(data, 0, len(data)):
        if box.kind != b"moof":
            continue
        traf = _child(data, box, b"traf")
        tfdt, mfhd = _child(data, traf, b"tfdt"), _child(data, box, b"mfhd")
        size = 8 if _uint(data, tfdt.body, 1) else 4
        moved[tfdt.body + 4 : tfdt.body + 4 + size] = (_decode_time(data, traf) + ticks).to_bytes(size, "big")
        _uint(data, mfhd.body + 4, 4)  # it is there
        moved[mfhd.body + 4 : mfhd.body + 8] = sequence.to_bytes(4, "big")
        sequence += 1
    return bytes(moved)


class _Run(NamedTuple):
    ticks: int
    samples: int
    first_flags: int


def _track_run(data: bytes, traf: Box, init: Init) -> _Run:
    """Add up the sample durations of a track fragment (ISO/IEC 14496-12, 8.8.7 and 8.8.8)."""
    tfhd = _child(data, traf, b"tfhd")
    present, at = _uint(data, tfhd.body, 4), tfhd.body + 8
    default, flags = init.sample_ticks, init.sample_flags
    for bit, size in (
        (_BASE_OFFSET, 8),
        (_DESCRIPTION, 4),
        (_DEFAULT_DURATION, 4),
        (_DEFAULT_SIZE, 4),
        (_DEFAULT_FLAGS, 4),
    ):
        if present & bit:
            value, at = _uint(data, at, size), at + size
            default = value if bit == _DEFAULT_DURATION else default
            flags = value if bit == _DEFAULT_FLAGS else flags
    ticks, samples = 0, 0
    for box in boxes(data, traf.body, traf.end):
        if box.kind != b"trun":
            continue
        shape, count, at = _uint(data, box.body, 4), _uint(data, box.body + 4, 4), box.body + 8
        if samples + count > SAMPLES_LIMIT:
            raise _malformed(f"a fragment of {samples + count} samples")
        at += 4 if shape & _DATA_OFFSET else 0
        if shape & _FIRST_FLAGS:
            flags, at = (flags if samples else _uint(data, at, 4)), at + 4
        width = 4 * sum(bool(shape & bit) for bit in (_DURATION, _SIZE, _FLAGS, _COMPOSITION))
        if at + count * width > box.end:
            raise _malformed("a trun box cut short")
        if shape & _FLAGS and not shape & _FIRST_FLAGS and not samples and count:
            flags = _uint(data, at + 4 * sum(bool(shape & bit) for bit in (_DURATION, _SIZE)), 4)
        if shape & _DURATION:
            ticks += sum(_uint(data, at + index * width, 4) for index in range(count))
        else:
            ticks += default * count
        samples += count
    return _Run(ticks, samples, flags)


def _decode_time(data: bytes, traf: Box) -> int:
    tfdt = _child(data, traf, b"tfdt")
    return _uint(data, tfdt.body + 4, 8 if _uint(data, tfdt.body, 1) else 4)


def _aac(data: bytes, esds: Box) -> tuple[str, int]:
    """Return the profile (RFC 6381, section 3.3) and channels of the AAC that ``esds`` describes.

    The sample entry's own channel count is no help: muxers write the template's 2 for mono.
    """
    at = esds.body + 4
    while at < esds.end:
        tag, at = _uint(data, at, 1), at + 1
        size = 0
        for _ in range(4):  # descriptor sizes have at most four seven-bit groups
            byte, at = _uint(data, at, 1), at + 1
            size = size << 7 | byte & 0x7F
            if byte < 0x80:  # noqa: PLR2004 - the continuation bit
                break
        if tag == 3:  # noqa: PLR2004 - ES_Descriptor: step inside
            at += 3
        elif tag == 4 and _uint(data, at, 1) == _AAC:  # noqa: PLR2004 - DecoderConfigDescriptor
            at += 13
        elif tag == 5:  # noqa: PLR2004 - DecoderSpecificInfo: the AudioSpecificConfig
            config = _uint(data, at, 2)  # 5 bits profile, 4 bits rate, 4 bits channels (14496-3, 1.6.2.1)
            return f"mp4a.40.{config >> 11}", config >> 3 & 0xF
        else:
            at += size
    raise RemoteError("an mp4a track that is not AAC", reason="unsupported")


def _child(data: bytes, parent: Box, kind: bytes) -> Box:
    for box in boxes(data, parent.body, parent.end):
        if box.kind == kind:
            return box
    raise _malformed(f"no {kind.decode()} box")


def _uint(data: Buffer, at: int, size: int) -> int:
    value = data[at : at + size]
    if len(value) != size:
        raise _malformed(f"cut short at byte {at}")
    return int.from_bytes(value, "big")


def _malformed(what: str) -> RemoteError:
    return RemoteError(f"not a fragmented MP4 of ours: {what}", reason="malformed")
