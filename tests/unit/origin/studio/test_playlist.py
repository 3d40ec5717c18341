from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.studio.fragments import Fragment, Init
from farcast.origin.studio.playlist import (
    Stream,
    check_stream,
    master_playlist,
    media_playlist,
    rendition,
    segment_name,
)
from farcast.protocol.errors import RemoteError

VIDEO = Init("video", "avc1.64001f", 30000, 1280, 720, 0, 1001, 0)
SMALL = VIDEO._replace(width=426, height=240, codecs="avc1.640015")
SOUND = Init("audio", "mp4a.40.2", 48000, 0, 0, 2, 1024, 0)


def stream(name: str, init: Init, *segments: tuple[int, int]) -> Stream:
    fragments: list[Fragment] = []
    start = 0
    for samples, size in segments:
        fragments.append(Fragment(start, samples * init.sample_ticks, samples, size))
        start += samples * init.sample_ticks
    return Stream(name, init, 700, fragments)


FILM = [
    stream("audio", SOUND, (94, 32_000), (94, 31_000), (10, 3_000)),
    stream("v720", VIDEO, (60, 500_000), (60, 250_000), (6, 90_000)),
    stream("v240", SMALL, (60, 50_000), (60, 25_000), (6, 9_000)),
]


def test_a_media_playlist_says_exactly_this() -> None:
    assert media_playlist(FILM[1]) == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"
        "#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MAP:URI="init.mp4"\n'
        "#EXTINF:2.002000,\nseg-00000.m4s\n#EXTINF:2.002000,\nseg-00001.m4s\n"
        "#EXTINF:0.200200,\nseg-00002.m4s\n#EXT-X-ENDLIST\n"
    )


def test_a_master_playlist_says_exactly_this() -> None:
    assert master_playlist(FILM, "en") == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="en",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,'
        'CHANNELS="2",STABLE-RENDITION-ID="audio",URI="audio/index.m3u8"\n'
        "#EXT-X-STREAM-INF:BANDWIDTH=327461,AVERAGE-BANDWIDTH=284841,"
        'CODECS="avc1.640015,mp4a.40.2",RESOLUTION=426x240,FRAME-RATE=29.970,AUDIO="audio",'
        'STABLE-VARIANT-ID="v240",PATHWAY-ID="."\nv240/index.m3u8\n'
        "#EXT-X-STREAM-INF:BANDWIDTH=2125662,AVERAGE-BANDWIDTH=1723402,"
        'CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",'
        'STABLE-VARIANT-ID="v720",PATHWAY-ID="."\nv720/index.m3u8\n'
    )


def test_a_silent_film_has_no_sound_group() -> None:
    text = master_playlist(FILM[1:], "")
    assert "AUDIO" not in text
    assert 'CODECS="avc1.64001f",' in text


def test_the_order_of_the_streams_does_not_matter_for_the_pictures() -> None:
    assert master_playlist(FILM, "en") == master_playlist([FILM[0], FILM[2], FILM[1]], "en")


def test_the_peak_ignores_a_short_tail_by_itself_but_not_with_its_neighbour() -> None:
    assert FILM[1].peak_bits == -(-500_000 * 8 * 1000 // 2002)  # 6 frames of 90 kB alone would be 3.6 Mbit/s
    heavy = stream("v720", VIDEO, (60, 500_000), (60, 500_000), (6, 90_000))
    assert heavy.peak_bits == -(-590_000 * 8 * 10_000 // 22_022)


def test_a_film_shorter_than_half_a_second_still_has_a_rate() -> None:
    flash = stream("v720", VIDEO, (3, 1_000))
    assert flash.target_s == 1
    assert flash.peak_bits == flash.average_bits == -(-1_000 * 8 * 10_000 // 1001)


def test_long_films_go_on_in_sub_folders() -> None:
    assert segment_name(3_999) == "seg-03999.m4s"
    assert segment_name(4_000) == "part-1/seg-04000.m4s"
    assert segment_name(43_199) == "part-10/seg-43199.m4s"


def test_the_manifest_describes_a_stream_by_itself() -> None:
    one = rendition(FILM[1], "en")
    assert (one.kind, one.path, one.language, one.segments) == ("video", "v720/index.m3u8", "", 3)
    assert (one.frame_rate_milli, one.size_bytes) == (29970, 840_700)
    assert rendition(FILM[0], "en").language == "en"


def test_a_gap_or_nothing_at_all_is_no_stream() -> None:
    check_stream(FILM[0])
    gap = FILM[0]._replace(fragments=[FILM[0].fragments[0], FILM[0].fragments[2]])
    with pytest.raises(RemoteError, match=r"audio/seg-00001.m4s starts at 192512, where 96256 was due"):
        check_stream(gap)
    with pytest.raises(RemoteError, match="no segments"):
        check_stream(FILM[0]._replace(fragments=[]))


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 10**7)), min_size=1, max_size=40),
    st.sampled_from([12800, 15360, 30000, 48000, 90000, 44100]),
)
def test_durations_sum_to_the_length_and_none_passes_the_target(
    segments: list[tuple[int, int]], timescale: int
) -> None:
    one = stream("v720", VIDEO._replace(timescale=timescale), *segments)
    text = media_playlist(one)
    durations = [Fraction(number) for number in re.findall(r"#EXTINF:([0-9.]+),", text)]
    target = int(re.findall(r"TARGETDURATION:(\d+)", text)[0])
    assert len(durations) == len(segments)
    assert abs(sum(durations) - one.duration) <= Fraction(1, 2_000_000)
    assert all(int(duration + Fraction(1, 2)) <= target for duration in durations)
    assert one.average_bits <= one.peak_bits
