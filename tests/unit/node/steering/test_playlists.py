"""Derived masters, MPDs and steering manifests."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from fractions import Fraction
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.steering import dash, hls
from farcast.node.steering.answer import TTL_S, steering
from farcast.node.steering.pathway import HERE, Pathway
from farcast.protocol.errors import RemoteError
from farcast.protocol.ports import TierName

MASTER = """#EXTM3U
#EXT-X-VERSION:7
#EXT-X-INDEPENDENT-SEGMENTS
## a remark
#EXT-X-SESSION-KEY:METHOD=AES-128,URI="key"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="a, b",DEFAULT=YES,STABLE-RENDITION-ID="audio",URI="audio/index.m3u8"
#EXT-X-MEDIA:TYPE=CLOSED-CAPTIONS,GROUP-ID="cc",NAME="en",INSTREAM-ID="CC1"
#EXT-X-STREAM-INF:BANDWIDTH=400000,CODECS="avc1.4d401e,mp4a.40.2",AUDIO="audio",CLOSED-CAPTIONS=NONE,STABLE-VARIANT-ID="240p",PATHWAY-ID="."
240p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS="avc1.4d401e,mp4a.40.2",AUDIO="audio",CLOSED-CAPTIONS="cc",STABLE-VARIANT-ID="360p",PATHWAY-ID="."
360p/index.m3u8
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=100000,URI="240p/iframes.m3u8",STABLE-VARIANT-ID="240p-i"
"""  # noqa: E501 - a playlist's lines are as long as they are
FOLDER = "/watch/film/"
CDN = Pathway("cdn-1", "https://cdn.example/films", TierName.CDN)
HOME = Pathway(HERE, "", TierName.CDN)
RELAY = Pathway("relay-1", "https://relay.example", TierName.RELAY, b"r" * 32)
ODD = Pathway("relay-2", "http://127.0.0.1:7433", TierName.RELAY, b"s" * 32)
WAYS = [CDN, RELAY, ODD, HOME]

names = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


def attributes(line: str) -> dict[str, str]:
    pairs = re.findall(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)', line.partition(":")[2])
    return {name: value.strip('"') for name, value in pairs}


def streams(master: str) -> list[tuple[dict[str, str], str]]:
    lines = master.splitlines()
    return [
        (attributes(line), lines[at + 1])
        for at, line in enumerate(lines)
        if line.startswith("#EXT-X-STREAM-INF")
    ]


def test_each_pathway_has_every_variant_with_groups_of_its_own() -> None:
    found = hls.derived(MASTER, FOLDER, WAYS, "/v1/steering/film?turn=3", "cdn-1")
    assert found.count("#EXTM3U") == found.count("#EXT-X-CONTENT-STEERING") == 1
    assert '#EXT-X-CONTENT-STEERING:SERVER-URI="/v1/steering/film?turn=3",PATHWAY-ID="cdn-1"' in found
    assert "remark" not in found
    groups = {
        (line["TYPE"], line["GROUP-ID"]): line
        for line in map(attributes, found.splitlines())
        if "GROUP-ID" in line
    }
    assert len(groups) == 2 * len(WAYS)
    told = streams(found)
    assert [uri for _, uri in told] == [
        f"{way.base}/watch/film/{name}/index.m3u8" for way in WAYS for name in ("240p", "360p")
    ]
    for line, _ in told:
        way = line["PATHWAY-ID"]
        assert line["AUDIO"] == f"audio-{way}"
        assert groups["AUDIO", line["AUDIO"]]["URI"].startswith(next(w.base for w in WAYS if w.name == way))
        assert line["CLOSED-CAPTIONS"] in ("NONE", f"cc-{way}")
        assert line["CODECS"] == "avc1.4d401e,mp4a.40.2", "a comma in quotes parts nothing"
    assert 'URI="/watch/film/key"' in found, "what stands once is the site's"
    assert f'URI="{CDN.base}/watch/film/240p/iframes.m3u8"' in found


def test_variants_of_two_pathways_differ_in_pathway_groups_and_address_alone() -> None:
    told = streams(hls.derived(MASTER, FOLDER, WAYS, "/s", "cdn-1"))
    kept = [
        {key: text for key, text in line.items() if key not in ("PATHWAY-ID", "AUDIO", "CLOSED-CAPTIONS")}
        for line, _ in told
    ]
    assert kept[:2] == kept[2:4] == kept[4:6] == kept[6:]


@given(st.dictionaries(names, st.integers(1, 10**9), min_size=1, max_size=5), st.integers(1, 4))
def test_every_variant_of_any_master_is_there_once_for_each_pathway(
    variants: dict[str, int], count: int
) -> None:
    master = "#EXTM3U\n" + "".join(
        f'#EXT-X-STREAM-INF:BANDWIDTH={bits},STABLE-VARIANT-ID="{name}"\n{name}/index.m3u8\n'
        for name, bits in variants.items()
    )
    told = streams(hls.derived(master, FOLDER, WAYS[:count], "/s", "cdn-1"))
    expected = {
        (way.name, name, str(bits), urljoin(way.base + FOLDER, f"{name}/index.m3u8"))
        for way in WAYS[:count]
        for name, bits in variants.items()
    }
    found = {(line["PATHWAY-ID"], line["STABLE-VARIANT-ID"], line["BANDWIDTH"], uri) for line, uri in told}
    assert found == expected
    assert len(told) == len(expected)
    assert hls.stable(master).variants == {name: f"{name}/index.m3u8" for name in variants}


def test_the_steering_manifest_names_clones_by_stable_id_and_host_only_where_a_port_is_none() -> None:
    found = steering(WAYS, {CDN.base}, "/again", FOLDER, hls.stable(MASTER), https=True)
    assert found["VERSION"] == 1
    assert 30 <= found["TTL"] == TTL_S <= 60
    assert found["RELOAD-URI"] == "/again"
    assert found["PATHWAY-PRIORITY"] == ["relay-1", "relay-2", HERE, "cdn-1"], "a lost pathway is the last"
    one, other = found["PATHWAY-CLONES"]
    assert one["BASE-ID"] == HERE
    assert one["ID"] == "relay-1"
    assert one["URI-REPLACEMENT"] == {
        "HOST": "relay.example",
        "PER-VARIANT-URIS": {
            name: f"https://relay.example/watch/film/{name}/index.m3u8" for name in ("240p", "360p")
        },
        "PER-RENDITION-URIS": {"audio": "https://relay.example/watch/film/audio/index.m3u8"},
    }
    assert "HOST" not in other["URI-REPLACEMENT"], "hls.js would drop the port"


def test_without_relays_there_are_no_clones() -> None:
    assert "PATHWAY-CLONES" not in steering([HOME], (), "/again", FOLDER, hls.stable(MASTER), https=True)


MPD = """<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">
  <ProgramInformation><Title>A &gt; B</Title></ProgramInformation>
  <BaseURL>video/</BaseURL>
  <Period id="0"><AdaptationSet/></Period>
</MPD>
"""


def test_an_mpd_gets_a_base_for_each_pathway_and_the_steering_server() -> None:
    text = dash.derived(MPD, FOLDER, WAYS, "/v1/steering/film?turn=1&x=2", "cdn-1")
    found = ET.fromstring(text)  # noqa: S314 - ours
    space = "{urn:mpeg:dash:schema:mpd:2011}"
    assert [child.tag.removeprefix(space) for child in found] == [
        "ProgramInformation", *["BaseURL"] * len(WAYS), "ContentSteering", "Period"
    ]  # fmt: skip
    bases = {base.get("serviceLocation"): base.text for base in found.iter(f"{space}BaseURL")}
    assert bases == {way.name: f"{way.base}/watch/film/video/" for way in WAYS}
    server = found.find(f"{space}ContentSteering")
    assert server is not None
    assert server.text == "/v1/steering/film?turn=1&x=2"
    assert server.get("defaultServiceLocation") == "cdn-1"


def test_what_is_no_mpd_is_refused() -> None:
    for text in ("", "<MPD/>", "<MPD x='1'></MPD>", "<html><Period/></html>"):
        with pytest.raises(RemoteError, match="without an MPD") as caught:
            dash.derived(text, FOLDER, WAYS, "/s", "cdn-1")
        assert caught.value.reason == "bad_playlist"


def test_the_publishers_own_master_can_be_derived_from() -> None:
    """What ``origin/studio/playlist.py`` writes is what is read here."""
    from farcast.origin.studio.fragments import Fragment, Init
    from farcast.origin.studio.playlist import Stream, master_playlist

    init = Init("video", "avc1.4d401e", 1000, 640, 360, 0, 40, 0)
    stream = Stream("360p", init, 100, [Fragment(0, 2000, 50, 1000)])
    assert stream.duration == Fraction(2)
    ids = hls.stable(master_playlist([stream], "en"))
    assert ids.variants == {"360p": "360p/index.m3u8"}
