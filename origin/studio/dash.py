"""The DASH manifest of a title, written from the very segments that its HLS playlists name.

Pure: streams in, text out; same segments, same bytes. Elements and rules are those of ISO/IEC 23009-1
(static presentation, SegmentTemplate with SegmentTimeline); the storyboard is DASH-IF's
``thumbnail_tile`` (IOP 4.3, section 6.2.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from .playlist import FOLDER_SEGMENTS, INIT, Storyboard, Stream, Text, by_size, film_length, segment_name

MANIFEST = "manifest.mpd"
LIVE_PROFILE = "urn:mpeg:dash:profile:isoff-live:2011"
FULL_PROFILE = "urn:mpeg:dash:profile:full:2011"
"""Of a film so long that its segments lie in several folders, which no template can name."""
ROLES = "urn:mpeg:dash:role:2011"
CHANNELS = "urn:mpeg:dash:23003:3:audio_channel_configuration:2011"
TILES = "http://dashif.org/guidelines/thumbnail_tile"
_MICRO = 1_000_000


def dash_manifest(
    streams: Sequence[Stream], texts: Sequence[Text] = (), storyboard: Storyboard | None = None
) -> str:
    """Write the MPD: one set of pictures, one set for each sound and each text, then the storyboard.

    Representations stand from the smallest up, like the variants of the HLS playlist; ``bandwidth``
    is the measured peak of a representation by itself.
    """
    pictures = by_size(streams)
    sounds = [stream for stream in streams if stream.init.kind == "audio"]
    length = film_length(streams)
    longest = max(
        Fraction(one.ticks, stream.init.timescale) for stream in streams for one in stream.fragments
    )
    is_long = any(len(stream.fragments) > FOLDER_SEGMENTS for stream in streams)
    mpd = Element("MPD", {
        "xmlns": "urn:mpeg:dash:schema:mpd:2011",
        "type": "static",
        "profiles": FULL_PROFILE if is_long else LIVE_PROFILE,
        "mediaPresentationDuration": _duration(length),
        "maxSegmentDuration": _duration(longest),
        "minBufferTime": f"PT{2 * max(stream.target_s for stream in pictures)}S",
    })  # fmt: skip
    period = SubElement(mpd, "Period", {"id": "0", "start": "PT0S"})
    period.append(_picture_set(pictures))
    period.extend(_sound_set(sound, is_main=not index) for index, sound in enumerate(sounds))
    period.extend(_text_set(text, length) for text in texts)
    if storyboard is not None:
        period.append(_image_set(storyboard))
    for index, each in enumerate(period):
        each.set("id", str(index))
    indent(mpd, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(mpd, encoding="unicode")}\n'


def _picture_set(pictures: Sequence[Stream]) -> Element:
    largest = pictures[-1]
    found = Element("AdaptationSet", {
        "contentType": "video", "mimeType": "video/mp4", "segmentAlignment": "true", "startWithSAP": "1",
        "maxWidth": str(largest.init.width), "maxHeight": str(largest.init.height),
    })  # fmt: skip
    SubElement(found, "Role", {"schemeIdUri": ROLES, "value": "main"})
    for stream in pictures:
        shown = SubElement(found, "Representation", {
            "id": stream.name, "codecs": stream.init.codecs, "bandwidth": str(stream.peak_bits),
            "width": str(stream.init.width), "height": str(stream.init.height), "sar": "1:1",
            "frameRate": str(stream.frame_rate),
        })  # fmt: skip
        shown.append(_addresses(stream))
    return found


def _sound_set(sound: Stream, *, is_main: bool) -> Element:
    found = Element("AdaptationSet", {
        "contentType": "audio", "mimeType": "audio/mp4", "segmentAlignment": "true", "startWithSAP": "1",
        **({"lang": sound.language} if sound.language else {}),
    })  # fmt: skip
    if sound.label:
        SubElement(found, "Label").text = sound.label
    SubElement(found, "Role", {"schemeIdUri": ROLES, "value": "main" if is_main else "alternate"})
    heard = SubElement(found, "Representation", {
        "id": sound.name, "codecs": sound.init.codecs, "bandwidth": str(sound.peak_bits),
        "audioSamplingRate": str(sound.init.timescale),
    })  # fmt: skip
    SubElement(
        heard, "AudioChannelConfiguration", {"schemeIdUri": CHANNELS, "value": str(sound.init.channels)}
    )
    heard.append(_addresses(sound))
    return found


def _text_set(text: Text, length: Fraction) -> Element:
    found = Element("AdaptationSet", {
        "contentType": "text", "mimeType": "text/vtt", **({"lang": text.language} if text.language else {}),
    })  # fmt: skip
    if text.label:
        SubElement(found, "Label").text = text.label
    SubElement(found, "Role", {"schemeIdUri": ROLES, "value": "subtitle"})
    bits = max(1, ceil(text.size_bytes * 8 / length))
    read = SubElement(found, "Representation", {"id": f"text-{text.name}", "bandwidth": str(bits)})
    SubElement(read, "BaseURL").text = text.path
    return found


def _image_set(storyboard: Storyboard) -> Element:
    found = Element("AdaptationSet", {"contentType": "image", "mimeType": "image/jpeg"})
    SubElement(found, "SegmentTemplate", {
        "media": storyboard.template, "duration": str(storyboard.sheet_s), "startNumber": "0",
    })  # fmt: skip
    bits = max(1, ceil(Fraction(storyboard.largest_bytes * 8, storyboard.sheet_s)))
    seen = SubElement(found, "Representation", {
        "id": storyboard.name, "bandwidth": str(bits),
        "width": str(storyboard.columns * storyboard.width),
        "height": str(storyboard.rows * storyboard.height),
    })  # fmt: skip
    tiles = f"{storyboard.columns}x{storyboard.rows}"
    SubElement(seen, "EssentialProperty", {"schemeIdUri": TILES, "value": tiles})
    return found


def _addresses(stream: Stream) -> Element:
    """Say where the segments are: by template, or one by one where they lie in several folders."""
    timescale = str(stream.init.timescale)
    if len(stream.fragments) <= FOLDER_SEGMENTS:
        found = Element("SegmentTemplate", {
            "timescale": timescale, "startNumber": "0", "initialization": f"{stream.name}/{INIT}",
            "media": f"{stream.name}/seg-$Number%05d$.m4s",
        })  # fmt: skip
        found.append(_timeline(stream))
        return found
    found = Element("SegmentList", {"timescale": timescale})
    SubElement(found, "Initialization", {"sourceURL": f"{stream.name}/{INIT}"})
    found.append(_timeline(stream))
    for index in range(len(stream.fragments)):
        SubElement(found, "SegmentURL", {"media": f"{stream.name}/{segment_name(index)}"})
    return found


def _timeline(stream: Stream) -> Element:
    found = Element("SegmentTimeline")
    for index, (ticks, count) in enumerate(_runs(stream)):
        more = {"r": str(count - 1)} if count > 1 else {}
        SubElement(found, "S", {**({} if index else {"t": "0"}), "d": str(ticks), **more})
    return found


def _runs(stream: Stream) -> Iterator[tuple[int, int]]:
    """Yield how long segments are, in ticks, and how many of that length follow each other."""
    ticks, count = stream.fragments[0].ticks, 0
    for fragment in stream.fragments:
        if fragment.ticks != ticks:
            yield ticks, count
            ticks, count = fragment.ticks, 0
        count += 1
    yield ticks, count


def _duration(seconds: Fraction) -> str:
    """Write an ``xs:duration``, rounded down to microseconds: nobody waits for what is not there."""
    whole, micros = divmod(int(seconds * _MICRO), _MICRO)
    return f"PT{whole}.{micros:06d}".rstrip("0").rstrip(".") + "S"
