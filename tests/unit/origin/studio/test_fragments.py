from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.studio.fragments import Fragment, Init, parse_fragment, parse_init, retimed, split
from farcast.protocol.errors import RemoteError

VIDEO = Init("video", "avc1.64001f", 12800, 1280, 720, 0, 512, 0)


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, flags: int, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, pack(">I", version << 24 | flags), *parts)


def init(entry: bytes, *, timescale: int = 12800) -> bytes:
    mdhd = full(b"mdhd", 0, pack(">IIII", 0, 0, timescale, 0), b"\0" * 4)
    stbl = box(b"stbl", full(b"stsd", 0, pack(">I", 1), entry))
    trak = box(b"trak", full(b"tkhd", 0), box(b"mdia", mdhd, box(b"minf", stbl)))
    trex = full(b"trex", 0, pack(">IIIII", 1, 1, 512, 0, 0x10000))
    return box(b"ftyp", b"iso5") + box(b"moov", trak, box(b"mvex", trex))


def avc1(width: int = 1280, height: int = 720, avcc: bytes = b"\x01\x64\x00\x1f") -> bytes:
    head = b"\0" * 24 + pack(">HH", width, height) + b"\0" * 50
    return box(b"avc1", head, box(b"avcC", avcc))


def mp4a(descriptors: bytes) -> bytes:
    head = b"\0" * 16 + pack(">H", 2) + b"\0" * 10
    return box(b"mp4a", head, full(b"esds", 0, descriptors))


# ES_Descriptor (sizes of four bytes, as ffmpeg writes them) > DecoderConfig > AAC-LC 48 kHz stereo
AAC = bytes.fromhex(
    "0380808022 0001 00 0480808014 40 15 000000 00000000 00000000 0580808002 1190 06808080 0102"
)


def segment(start: int = 0, samples: int = 50, *, flags: int = 0x2000000, payload: bytes = b"x" * 9) -> bytes:
    tfhd = full(b"tfhd", 0x20038, pack(">IIII", 1, 512, 0, 0x1010000))
    tfdt = full(b"tfdt", 0, pack(">Q", start), version=1)
    trun = full(b"trun", 0x205, pack(">III", samples, 0, flags), b"\0\0\0\1" * samples)
    return box(b"moof", full(b"mfhd", 0, pack(">I", 1)), box(b"traf", tfhd, tfdt, trun)) + box(
        b"mdat", payload
    )


def test_an_init_segment_tells_codec_size_and_time_scale() -> None:
    assert parse_init(init(avc1())) == VIDEO._replace(sample_flags=0x10000)


def test_a_sound_track_tells_its_profile_and_channels() -> None:
    assert parse_init(init(mp4a(AAC), timescale=48000)) == Init(
        "audio", "mp4a.40.2", 48000, 0, 0, 2, 512, 0x10000
    )


@pytest.mark.parametrize(
    "entry", [box(b"hev1", b"\0" * 90), mp4a(AAC.replace(b"\x40\x15", b"\x69\x15")), mp4a(b"")]
)
def test_another_codec_is_unsupported(entry: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_init(init(entry))
    assert caught.value.reason == "unsupported"


def test_a_track_without_a_time_scale_is_malformed() -> None:
    with pytest.raises(RemoteError, match="time scale"):
        parse_init(init(avc1(), timescale=0))


def test_a_fragment_has_its_start_and_exact_length() -> None:
    data = segment(25600)
    assert parse_fragment(data, len(data), VIDEO) == Fragment(25600, 50 * 512, 50, len(data))


def test_durations_of_single_samples_win_over_the_default() -> None:
    tfhd = full(b"tfhd", 0x8, pack(">II", 1, 512))
    tfdt = full(b"tfdt", 0, pack(">I", 7))
    trun = full(b"trun", 0x100, pack(">I", 3), pack(">III", 1, 2, 4))
    data = box(b"moof", box(b"traf", tfhd, tfdt, trun)) + box(b"mdat", b"x")
    assert parse_fragment(data, len(data), VIDEO) == Fragment(7, 7, 3, len(data))


def test_only_the_head_of_a_fragment_is_needed() -> None:
    data = segment(payload=b"x" * 100_000)
    assert parse_fragment(data[:2000], len(data), VIDEO).samples == 50


def test_a_segment_may_have_several_fragments() -> None:
    data = segment(0, 10) + segment(5120, 15, flags=0x1010000)
    assert parse_fragment(data, len(data), VIDEO) == Fragment(0, 25 * 512, 25, len(data))


def test_a_picture_that_needs_an_earlier_one_may_not_open_a_segment() -> None:
    data = segment(flags=0x1010000)
    with pytest.raises(RemoteError) as caught:
        parse_fragment(data, len(data), VIDEO)
    assert caught.value.reason == "not_independent"


@pytest.mark.parametrize("cut", [0, 4, 30, 60, 100, 130, 300])
def test_a_truncated_segment_is_malformed(cut: int) -> None:
    data = segment()[:cut]
    with pytest.raises(RemoteError) as caught:
        parse_fragment(data, len(data), VIDEO)
    assert caught.value.reason == "malformed"


def test_a_segment_whose_file_lost_its_tail_is_malformed() -> None:
    data = segment(payload=b"x" * 5000)
    with pytest.raises(RemoteError, match="whose boxes end"):
        parse_fragment(data[:2000], len(data) - 1, VIDEO)


def test_a_file_is_split_into_init_and_fragments() -> None:
    parts = [init(avc1()), segment(0), segment(25600), segment(51200, 3)]
    whole = b"".join(parts)
    assert [whole[start:end] for start, end in split(whole)] == parts


def test_a_box_of_64_bit_size_is_read() -> None:
    large = pack(">I4sQ", 1, b"mdat", 16 + 5) + b"12345"
    whole = init(avc1()) + segment()[: -(8 + 9)] + large
    assert list(split(whole))[-1][1] == len(whole)


def outcome(attempt: Callable[[], object]) -> str:
    """Return ``fine`` or the reason of the RemoteError; anything else goes through."""
    try:
        attempt()
    except RemoteError as error:
        return error.reason
    return "fine"


def check_all(data: bytes) -> None:
    known = {"fine", "malformed", "unsupported", "not_independent"}
    assert outcome(lambda: parse_init(data)) in known
    assert outcome(lambda: parse_fragment(data, len(data), VIDEO)) in known
    assert outcome(lambda: list(split(data))) in known
    assert outcome(lambda: retimed(data, 0, 1)) in known


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_remote_errors(data: bytes) -> None:
    check_all(data)


@given(st.data())
def test_no_damage_to_a_real_file_raises_anything_but_remote_errors(data: st.DataObject) -> None:
    for whole in (init(avc1()), init(mp4a(AAC)), segment()):
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        check_all(bytes(damaged[: data.draw(st.integers(0, len(whole)))]))


def test_a_segment_is_moved_and_its_fragments_numbered() -> None:
    data = segment(0, 10) + segment(5120, 15, flags=0x1010000)
    moved = retimed(data, 1000, 7)
    assert len(moved) == len(data)
    assert parse_fragment(moved, len(moved), VIDEO) == Fragment(1000, 25 * 512, 25, len(data))
    assert [moved[at + 20 : at + 24] for at in (0, len(segment(0, 10)))] == [b"\0\0\0\7", b"\0\0\0\x08"]
    assert retimed(moved, -1000, 0) == retimed(data, 0, 0)
