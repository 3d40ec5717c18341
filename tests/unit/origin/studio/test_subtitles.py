from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.studio.playlist import Storyboard
from farcast.origin.studio.storyboard import plan_storyboard, storyboard_index
from farcast.origin.studio.subtitles import Cue, clock, parse_subtitles, webvtt, within

LINES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp", "Cs")), max_size=20)
TEXTS = st.lists(LINES.map(str.strip).filter(bool), min_size=1, max_size=3).map("\n".join)


def test_subrip_becomes_webvtt() -> None:
    data = (
        b"1\r\n00:00:01,500 --> 00:00:02,000 X1:1 X2:2\r\n"
        b"<b>Bold</B> & <font color='red'>red</font> 1 < 2\r\n\r\n"
        b"\r\n2\r\n1:02:03.004 --> 01:02:04,000\r\n{\\an8}Up there\r\n\r\nand on\r\n"
    )
    assert webvtt(parse_subtitles(data)) == (
        "WEBVTT\n\n00:00:01.500 --> 00:00:02.000\n<b>Bold</b> &amp; red 1 &lt; 2\n\n"
        "01:02:03.004 --> 01:02:04.000 line:0\nUp there\nand on\n"
    )


def test_webvtt_keeps_where_cues_stand_and_drops_what_is_not_text() -> None:
    data = (
        b"WEBVTT - a film\nX-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:0\n\nNOTE nothing\nof use\n\n"
        b"STYLE\n::cue { color: red }\n\nREGION\nid:a\n\nname\n"
        b"00:05.000 --> 00:06.000 region:a line:10% align:start\n"
        b"<v Ann>Hi\n\n00:01.000 --> 00:01.000\nno time at all\n"
    )
    assert parse_subtitles(data) == [Cue(5_000, 6_000, "line:10% align:start", "<v Ann>Hi")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_tells_the_encoding(encoding: str) -> None:
    data = "1\n00:00:01,000 --> 00:00:02,000\nÇa va\n".encode(encoding)
    assert parse_subtitles(data)[0].text == "Ça va"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no cue in it"),
        (b"hello\n", "has no time at line 1"),
        (b"WEBVTT\n\n00:00:01,x --> 2\ny\n", "has no time at line 3"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nfine\nlost\n00:00:03,000 --> 00:00:04,000\n", None),
        (
            b"1\n00:00:01,000 --> 00:00:02,000\nfine\n\nlost\nlost\n00:00:03,000 --> 00:00:04,000\nx\n",
            "at line 7",
        ),
        ("1\n00:00:01,000 --> 00:00:02,000\né\n".encode("latin-1"), r"is not UTF-8 text \(line 3\)"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n\0\n", "zero bytes"),
        (b"x" * (4 << 20) + b"x", "over 4 MiB"),
    ],
)
def test_what_is_no_subtitle_file_is_named(data: bytes, reason: str | None) -> None:
    if reason is None:
        assert len(parse_subtitles(data)) == 1
        return
    with pytest.raises(ValueError, match=reason):
        parse_subtitles(data)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_value_error(data: bytes) -> None:
    for head in (b"", b"WEBVTT\n\n", b"1\n00:00:01,000 --> 00:00:02,000\n"):
        try:
            parse_subtitles(head + data)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017 - a value error is one of two right answers


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**6), TEXTS), min_size=1, max_size=20))
def test_what_is_written_is_read_again_as_it_was(said: list[tuple[int, int, str]]) -> None:
    subrip = "\n".join(
        f"{number}\n{clock(start)} --> {clock(start + length)}\n{text}\n"
        for number, (start, length, text) in enumerate(said, start=1)
        if "-->" not in text
    )
    try:
        once = parse_subtitles(subrip.encode())
    except ValueError:
        return  # nothing but tags was said
    written = webvtt(once)
    assert parse_subtitles(written.encode()) == once
    assert [cue.start_ms for cue in once] == sorted(cue.start_ms for cue in once)


def test_cues_end_with_the_film() -> None:
    cues = [Cue(0, 9_000, "", "a"), Cue(5_000, 6_000, "", "b")]
    assert within(cues, Fraction(5)) == [Cue(0, 5_000, "", "a")]


@pytest.mark.parametrize(
    ("length_s", "width", "height", "each_s", "size"),
    [
        (48, 426, 240, 2, (160, 90)),
        (600, 240, 426, 2, (90, 160)),
        (7_200, 426, 178, 10, (160, 66)),
        (5, 32, 18, 2, (32, 18)),
    ],
)
def test_a_storyboard_fits_its_film(
    length_s: float, width: int, height: int, each_s: int, size: tuple[int, int]
) -> None:
    plan = plan_storyboard(length_s, width, height)
    assert (plan.interval_s, plan.width, plan.height) == (each_s, *size)
    assert 240 % plan.sheet_s == 0, "a sheet would lie in two slices of the film"


def test_a_storyboard_index_goes_from_sheet_to_sheet() -> None:
    index = storyboard_index(Storyboard("storyboard", 3, 2, 2, 1, 160, 90, 1), Fraction(5))
    assert index == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nstoryboard/00000.jpg#xywh=0,0,160,90\n\n"
        "00:00:02.000 --> 00:00:04.000\nstoryboard/00000.jpg#xywh=160,0,160,90\n\n"
        "00:00:04.000 --> 00:00:05.000\nstoryboard/00001.jpg#xywh=0,0,160,90\n"
    )
