"""CMAF tracks made of nothing: real boxes around any samples, as our ingest slices them."""

from __future__ import annotations

from collections.abc import Sequence

from farcast.protocol.isobmff import box

VIDEO_TICKS_S, AUDIO_TICKS_S = 12_800, 48_000
MOVIE_TICKS_S = 1_000
_FULL = bytes(4)


def u32(*values: int) -> bytes:
    """Return big-endian 32-bit numbers."""
    return b"".join(value.to_bytes(4, "big") for value in values)


def init(ticks_s: int, *, movie_ticks_s: int = MOVIE_TICKS_S, label: bytes = b"") -> bytes:
    """Return an initialisation segment; its sample description is ``label``, which no muxer looks into."""
    mvhd = box(b"mvhd", _FULL, u32(0, 0, movie_ticks_s, 0), bytes(76), u32(2))
    tkhd = box(b"tkhd", u32(3, 0, 0, 1, 0, 0), bytes(60))
    mdhd = box(b"mdhd", _FULL, u32(0, 0, ticks_s, 0), bytes(4))
    trak = box(b"trak", tkhd, box(b"mdia", mdhd, box(b"minf", box(b"stbl", box(b"stsd", label)))))
    mvex = box(b"mvex", box(b"trex", u32(0, 1, 1, 0, 0, 0)))
    return box(b"ftyp", b"iso6", u32(512), b"iso6cmfc") + box(b"moov", mvhd, trak, mvex, box(b"udta"))


def segment(number: int, start: int, samples: Sequence[bytes], *, first_flags: bool = False) -> bytes:
    """Return a segment of ``samples`` from tick ``start`` on; of pictures with the flags of the first."""
    special = u32(0x2000000) if first_flags else b""
    moof_bytes = 8 + 16 + 8 + 16 + 20 + 20 + len(special) + 4 * len(samples)
    shape = u32(0x205 if first_flags else 0x201, len(samples), moof_bytes + 8)
    trun = box(b"trun", shape, special, u32(*map(len, samples)))
    tfhd = box(b"tfhd", u32(0x20000, 1))
    tfdt = box(b"tfdt", u32(0x1000000), start.to_bytes(8, "big"))
    moof = box(b"moof", box(b"mfhd", _FULL, u32(number)), box(b"traf", tfhd, tfdt, trun))
    assert len(moof) == moof_bytes
    return moof + box(b"mdat", *samples)
