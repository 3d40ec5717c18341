from __future__ import annotations

import re
from fractions import Fraction
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.studio import dash
from farcast.origin.studio.dash import dash_manifest
from farcast.origin.studio.fragments import Fragment, Init
from farcast.origin.studio.playlist import Storyboard, Stream, Text, segment_name

VIDEO = Init("video", "avc1.64001f", 30000, 1280, 720, 0, 1001, 0)
SMALL = VIDEO._replace(width=426, height=240, codecs="avc1.640015")
SOUND = Init("audio", "mp4a.40.2", 48000, 0, 0, 2, 1024, 0)
MPD = "{urn:mpeg:dash:schema:mpd:2011}"


def stream(name: str, init: Init, *segments: tuple[int, int], language: str = "", label: str = "") -> Stream:
    fragments: list[Fragment] = []
    start = 0
    for samples, size in segments:
        fragments.append(Fragment(start, samples * init.sample_ticks, samples, size))
        start += samples * init.sample_ticks
    return Stream(name, init, 700, fragments, language, label)


FILM = [
    stream("audio", SOUND, (94, 32_000), (94, 31_000), (10, 3_000), language="en"),
    stream("v720", VIDEO, (60, 500_000), (60, 250_000), (6, 90_000)),
    stream("v240", SMALL, (60, 50_000), (60, 25_000), (6, 9_000)),
]
STORYBOARD = Storyboard("storyboard", 3, 2, 6, 4, 160, 90, 48_000)


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - our own words


def sets(text: str) -> list[ET.Element]:
    return list(parsed(text).iter(f"{MPD}AdaptationSet"))


def test_a_manifest_says_exactly_this() -> None:
    assert dash_manifest(FILM) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-live:2011" mediaPresentationDuration="PT4.2042S" '
        'maxSegmentDuration="PT2.005333S" minBufferTime="PT4S">\n'
        ' <Period id="0" start="PT0S">\n'
        '  <AdaptationSet contentType="video" mimeType="video/mp4" segmentAlignment="true" startWithSAP="1" '
        'maxWidth="1280" maxHeight="720" id="0">\n'
        '   <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main" />\n'
        '   <Representation id="v240" codecs="avc1.640015" bandwidth="199801" width="426" height="240" '
        'sar="1:1" frameRate="30000/1001">\n'
        '    <SegmentTemplate timescale="30000" startNumber="0" initialization="v240/init.mp4" '
        'media="v240/seg-$Number%05d$.m4s">\n'
        "     <SegmentTimeline>\n"
        '      <S t="0" d="60060" r="1" />\n'
        '      <S d="6006" />\n'
        "     </SegmentTimeline>\n"
        "    </SegmentTemplate>\n"
        "   </Representation>\n"
        '   <Representation id="v720" codecs="avc1.64001f" bandwidth="1998002" width="1280" height="720" '
        'sar="1:1" frameRate="30000/1001">\n'
        '    <SegmentTemplate timescale="30000" startNumber="0" initialization="v720/init.mp4" '
        'media="v720/seg-$Number%05d$.m4s">\n'
        "     <SegmentTimeline>\n"
        '      <S t="0" d="60060" r="1" />\n'
        '      <S d="6006" />\n'
        "     </SegmentTimeline>\n"
        "    </SegmentTemplate>\n"
        "   </Representation>\n"
        "  </AdaptationSet>\n"
        '  <AdaptationSet contentType="audio" mimeType="audio/mp4" segmentAlignment="true" startWithSAP="1" '
        'lang="en" id="1">\n'
        '   <Role schemeIdUri="urn:mpeg:dash:role:2011" value="main" />\n'
        '   <Representation id="audio" codecs="mp4a.40.2" bandwidth="127660" audioSamplingRate="48000">\n'
        '    <AudioChannelConfiguration schemeIdUri="urn:mpeg:dash:23003:3:audio_channel_configuration:2011" '
        'value="2" />\n'
        '    <SegmentTemplate timescale="48000" startNumber="0" initialization="audio/init.mp4" '
        'media="audio/seg-$Number%05d$.m4s">\n'
        "     <SegmentTimeline>\n"
        '      <S t="0" d="96256" r="1" />\n'
        '      <S d="10240" />\n'
        "     </SegmentTimeline>\n"
        "    </SegmentTemplate>\n"
        "   </Representation>\n"
        "  </AdaptationSet>\n"
        " </Period>\n"
        "</MPD>\n"
    )


def test_every_sound_and_text_is_a_set_of_its_own_and_says_its_language() -> None:
    other = stream("audio-fr", SOUND, (94, 32_000), language="fr", label='La "VF" & <co>')
    texts = [Text("de", "de", "Deutsch", 1_051), Text("x", "", "", 0)]
    found = sets(dash_manifest([*FILM, other], texts, STORYBOARD))
    assert [one.get("contentType") for one in found] == ["video", "audio", "audio", "text", "text", "image"]
    assert [one.get("lang") for one in found] == [None, "en", "fr", "de", None, None]
    assert [one.findtext(f"{MPD}Label") for one in found][2:4] == ['La "VF" & <co>', "Deutsch"]
    assert [role.get("value") for one in found for role in one.iter(f"{MPD}Role")] == [
        "main", "main", "alternate", "subtitle", "subtitle",
    ]  # fmt: skip
    assert len({one.get("id") for one in found}) == len(found)
    read = found[3].find(f"{MPD}Representation")
    assert read is not None
    assert (read.findtext(f"{MPD}BaseURL"), read.get("bandwidth")) == ("text/de.vtt", "2000")


def test_the_storyboard_is_one_sheet_each_so_many_seconds() -> None:
    image = sets(dash_manifest(FILM, storyboard=STORYBOARD))[-1]
    template, seen = image[0], image[1]
    assert (template.get("media"), template.get("duration"), template.get("startNumber")) == (
        "storyboard/$Number%05d$.jpg", "48", "0",
    )  # fmt: skip
    assert (seen.get("width"), seen.get("height"), seen.get("bandwidth")) == ("960", "360", "8000")
    assert seen[0].get("value") == "6x4"


def addresses(representation: ET.Element) -> list[str]:
    """Expand a representation's segment names as a player does."""
    listed = representation.find(f"{MPD}SegmentList")
    if listed is not None:
        return [str(one.get("media")) for one in listed.iter(f"{MPD}SegmentURL")]
    template = representation.find(f"{MPD}SegmentTemplate")
    assert template is not None
    count = sum(1 + int(one.get("r", "0")) for one in template.iter(f"{MPD}S"))
    first = int(template.get("startNumber", "1"))
    media = str(template.get("media"))
    return [media.replace("$Number%05d$", f"{first + index:05d}") for index in range(count)]


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(1, 10**7)), min_size=1, max_size=60),
    st.integers(1, 70),
)
def test_a_manifest_names_every_segment_and_its_length(segments: list[tuple[int, int]], limit: int) -> None:
    one = stream("v720", VIDEO, *segments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dash, "FOLDER_SEGMENTS", limit)
        patch.setattr("farcast.origin.studio.playlist.FOLDER_SEGMENTS", limit)
        found = parsed(dash_manifest([one]))
        names = [f"v720/{segment_name(index)}" for index in range(len(segments))]
    (shown,) = found.iter(f"{MPD}Representation")
    assert addresses(shown) == names
    ticks = [int(str(s.get("d"))) for s in found.iter(f"{MPD}S") for _ in range(1 + int(s.get("r", "0")))]
    assert ticks == [fragment.ticks for fragment in one.fragments]
    length = re.fullmatch(r"PT([0-9.]+)S", str(found.get("mediaPresentationDuration")))
    assert length is not None
    assert 0 <= one.duration - Fraction(length[1]) < Fraction(1, 1_000_000)
    assert ("full" in str(found.get("profiles"))) == (len(segments) > limit)
