"""HLS playlists written from the segments themselves: same segments, same bytes, on any machine.

Pure: parsed fragments in, text out. Tags and rules are those of RFC 8216 and its second edition
(draft-ietf-hls-rfc8216bis); no clock, path or encoder version ever enters the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from ...protocol.errors import RemoteError
from ...protocol.manifest import Rendition
from .fragments import Fragment, Init

MASTER = "master.m3u8"
MEDIA = "index.m3u8"
INIT = "init.mp4"
TEXTS = "text"
FOLDER_SEGMENTS = 4_000
"""A folder of more names than this would near the size at which IPFS shards folders (256 KiB)."""
_MICRO = 1_000_000


def segment_name(index: int) -> str:
    """Return the path of segment ``index`` (from 0) in its rendition; long films go on in sub-folders."""
    part = index // FOLDER_SEGMENTS
    return f"{f'part-{part}/' if part else ''}seg-{index:05d}.m4s"


class Stream(NamedTuple):
    """One rendition of a title: the folder's name, what its init segment says, its segments in order.

    ``language`` (a BCP 47 tag or empty) and ``label`` are of sounds alone.
    """

    name: str
    init: Init
    init_bytes: int
    fragments: Sequence[Fragment]
    language: str = ""
    label: str = ""

    @property
    def duration(self) -> Fraction:
        """Exact length in seconds."""
        return Fraction(sum(fragment.ticks for fragment in self.fragments), self.init.timescale)

    @property
    def target_s(self) -> int:
        """The EXT-X-TARGETDURATION: the longest segment, rounded (RFC 8216, section 4.3.3.1)."""
        longest = Fraction(max(fragment.ticks for fragment in self.fragments), self.init.timescale)
        return max(1, int(longest + Fraction(1, 2)))

    @property
    def size_bytes(self) -> int:
        """Bytes of the init segment and every media segment."""
        return self.init_bytes + sum(fragment.size_bytes for fragment in self.fragments)

    @property
    def average_bits(self) -> int:
        """Average segment bit rate, rounded up."""
        return ceil(sum(fragment.size_bytes for fragment in self.fragments) * 8 / self.duration)

    @property
    def peak_bits(self) -> int:
        """Peak segment bit rate, rounded up: the largest of any run of half to one and a half targets.

        The definition of RFC 8216, section 4.1; a stream shorter than that has only its average.
        """
        peak = Fraction(self.average_bits)
        low, high = Fraction(self.target_s, 2), Fraction(3 * self.target_s, 2)
        for first in range(len(self.fragments)):
            ticks, size = 0, 0
            for fragment in self.fragments[first:]:
                ticks, size = ticks + fragment.ticks, size + fragment.size_bytes
                length = Fraction(ticks, self.init.timescale)
                if length > high:
                    break
                if length >= low:
                    peak = max(peak, size * 8 / length)
        return ceil(peak)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second of a video, 0 for sound."""
        if self.init.kind == "audio":
            return Fraction(0)
        return sum(fragment.samples for fragment in self.fragments) / self.duration

    @property
    def frame_rate_milli(self) -> int:
        """Frames per 1,000 s of a video, 0 for sound."""
        return round(self.frame_rate * 1000)


class Text(NamedTuple):
    """Subtitles in one language: one WebVTT file, ``name`` the file's without its ending."""

    name: str
    language: str
    label: str
    size_bytes: int

    @property
    def path(self) -> str:
        """The WebVTT file in the title's folder."""
        return f"{TEXTS}/{self.name}.vtt"

    @property
    def playlist(self) -> str:
        """The media playlist that names it."""
        return f"{TEXTS}/{self.name}.m3u8"


class Storyboard(NamedTuple):
    """Small pictures of a film, one each ``interval_s``, many on a sheet; sizes in pixels.

    ``pictures`` is how many there are, ``largest_bytes`` the size of the largest sheet's file.
    """

    name: str
    pictures: int
    interval_s: int
    columns: int
    rows: int
    width: int
    height: int
    largest_bytes: int

    @property
    def sheet_s(self) -> int:
        """How many seconds of film one sheet covers."""
        return self.interval_s * self.columns * self.rows

    @property
    def template(self) -> str:
        """The path of a sheet by its number, as DASH writes it (ISO/IEC 23009-1, section 5.3.9.4.4)."""
        return f"{self.name}/$Number%05d$.jpg"

    def sheet(self, number: int) -> str:
        """Return the path of a sheet, counted from 0."""
        return f"{self.name}/{number:05d}.jpg"


def check_stream(stream: Stream) -> None:
    """Check that the segments follow each other without a gap, from zero on.

    Raises:
        RemoteError: ``malformed``.

    """
    expected = 0
    for index, fragment in enumerate(stream.fragments):
        if fragment.start != expected:
            message = (
                f"{stream.name}/{segment_name(index)} starts at {fragment.start}, where {expected} was due"
            )
            raise RemoteError(message, reason="malformed")
        expected += fragment.ticks
    if not stream.fragments:
        raise RemoteError(f"{stream.name} has no segments", reason="malformed")


def media_playlist(stream: Stream) -> str:
    """Write the media playlist of one rendition.

    Durations have microseconds and are rounded along the time line, so they sum to its length.
    """
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{stream.target_s}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{INIT}"',
    ]
    ticks, edge = 0, 0
    for index, fragment in enumerate(stream.fragments):
        ticks += fragment.ticks
        before, edge = edge, round(Fraction(ticks * _MICRO, stream.init.timescale))
        seconds, micros = divmod(edge - before, _MICRO)
        lines += [f"#EXTINF:{seconds}.{micros:06d},", segment_name(index)]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def film_length(streams: Sequence[Stream]) -> Fraction:
    """Return how many seconds a film lasts: its longest picture."""
    return max(stream.duration for stream in streams if stream.init.kind == "video")


def by_size(streams: Sequence[Stream]) -> list[Stream]:
    """Return the pictures among ``streams``, the smallest first."""
    pictures = [stream for stream in streams if stream.init.kind == "video"]
    return sorted(pictures, key=lambda one: (one.init.width * one.init.height, one.name))


def spoken(streams: Sequence[Stream], language: str) -> list[Stream]:
    """Give the film's language to its first sound, where that names none of its own."""
    first = next((stream for stream in streams if stream.init.kind == "audio"), None)
    return [
        stream._replace(language=stream.language or language) if stream is first else stream
        for stream in streams
    ]


def text_playlist(text: Text, length: Fraction) -> str:
    """Write the media playlist of subtitles: one file, as long as the film.

    Cue times count from the film's start, as they do without an X-TIMESTAMP-MAP (RFC 8216, section 3.5).
    """
    micros = round(length * _MICRO)
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(1, int(length + Fraction(1, 2)))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        f"#EXTINF:{micros // _MICRO}.{micros % _MICRO:06d},",
        f"{text.name}.vtt",
    ]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def master_playlist(streams: Sequence[Stream], language: str, texts: Sequence[Text] = ()) -> str:
    """Write the multivariant playlist: sounds and texts as groups, pictures from the smallest up.

    The smallest comes first because players start with the first variant, and a poor network
    must not wait; BANDWIDTH is measured, of a variant with its sound. ``language`` is the film's.
    """
    streams = spoken(streams, language)
    audio = [stream for stream in streams if stream.init.kind == "audio"]
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for index, (stream, name) in enumerate(
        zip(audio, _names([(one.label, one.language) for one in audio], "sound"), strict=True)
    ):
        attributes = [
            "TYPE=AUDIO",
            'GROUP-ID="audio"',
            f'NAME="{name}"',
            *([f'LANGUAGE="{stream.language}"'] if stream.language else []),
            f"DEFAULT={'NO' if index else 'YES'}",
            "AUTOSELECT=YES",
            f'CHANNELS="{stream.init.channels}"',
            f'STABLE-RENDITION-ID="{stream.name}"',
            f'URI="{stream.name}/{MEDIA}"',
        ]
        lines.append("#EXT-X-MEDIA:" + ",".join(attributes))
    for text, name in zip(texts, _names([(one.label, one.language) for one in texts], "text"), strict=True):
        attributes = [
            "TYPE=SUBTITLES",
            'GROUP-ID="text"',
            f'NAME="{name}"',
            *([f'LANGUAGE="{text.language}"'] if text.language else []),
            "DEFAULT=NO",
            "AUTOSELECT=YES",
            "FORCED=NO",
            f'STABLE-RENDITION-ID="text-{text.name}"',
            f'URI="{text.playlist}"',
        ]
        lines.append("#EXT-X-MEDIA:" + ",".join(attributes))
    for stream in by_size(streams):
        peak = stream.peak_bits + max((sound.peak_bits for sound in audio), default=0)
        average = stream.average_bits + max((sound.average_bits for sound in audio), default=0)
        codecs = ",".join(dict.fromkeys([stream.init.codecs, *(sound.init.codecs for sound in audio)]))
        attributes = [
            f"BANDWIDTH={peak}",
            f"AVERAGE-BANDWIDTH={average}",
            f'CODECS="{codecs}"',
            f"RESOLUTION={stream.init.width}x{stream.init.height}",
            f"FRAME-RATE={stream.frame_rate_milli // 1000}.{stream.frame_rate_milli % 1000:03d}",
            *(['AUDIO="audio"'] if audio else []),
            *(['SUBTITLES="text"'] if texts else []),
            f'STABLE-VARIANT-ID="{stream.name}"',
            'PATHWAY-ID="."',
        ]
        lines += ["#EXT-X-STREAM-INF:" + ",".join(attributes), f"{stream.name}/{MEDIA}"]
    return "\n".join([*lines, ""])


def rendition(stream: Stream, language: str) -> Rendition:
    """Describe a stream for the manifest; its bit rates are its own, without the sound's."""
    return Rendition(
        name=stream.name,
        kind=stream.init.kind,
        path=f"{stream.name}/{MEDIA}",
        codecs=stream.init.codecs,
        bandwidth=stream.peak_bits,
        average_bandwidth=stream.average_bits,
        width=stream.init.width,
        height=stream.init.height,
        frame_rate_milli=stream.frame_rate_milli,
        language=stream.language or language if stream.init.kind == "audio" else "",
        segments=len(stream.fragments),
        size_bytes=stream.size_bytes,
    )


def _names(tracks: Sequence[tuple[str, str]], kind: str) -> list[str]:
    """Name tracks by label, else language; names differ within a group (RFC 8216, section 4.3.4.1.1)."""
    names: list[str] = []
    for index, (label, language) in enumerate(tracks):
        name = (label or language or kind).replace('"', "'")
        names.append(f"{name} {index + 1}" if name in names else name)
    return names
