"""A viewer's pages over made-up facts, in every state they can be in, and a film that plays on them."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farcast.node.ffmpeg import find_ffmpeg
from farcast.node.http.exchange import Answer, Exchange, Router
from farcast.node.http.ranges import negotiate
from farcast.protocol.errors import RefusedError

FILM_S = 24
NOW_MS = 1_795_791_600_000
TYPES = {"m3u8": "application/vnd.apple.mpegurl", "vtt": "text/vtt", "jpg": "image/jpeg", "mp4": "video/mp4"}
TITLE: dict[str, Any] = {
    "title": "harbour", "name": "The harbour at night", "duration_s": FILM_S, "size_bytes": 1_400_000,
    "description": "Two languages, subtitles, and pictures over the seek bar.", "root_cid": "bafy",
    "poster": "poster.jpg", "held_percent": 40, "kept": False, "duration_ms": FILM_S * 1_000,
    "position_ms": 0, "sounds": 2, "subtitles": 1,
    "texts": [{"path": "de.vtt", "language": "de", "label": "Deutsch"}],
    "storyboard": "storyboard.vtt", "dash": True, "access": "open", "locked": "",
}  # fmt: skip
OTHERS = ("Big Buck Bunny", "Dawn", "Nine letters from the coast that nobody ever answered", "Zug")
STATUS: dict[str, Any] = {
    "verdict": "Ready", "origin": "Films of the coast", "tier_in_use": "relay", "playing": 1, "tickets": 15,
    "neighbours": 2, "store": {"bytes": 1_405_257, "blocks": 27}, "pulses": {"on": True},
    "tiers": [
        {"name": name, "sources": 1, "blocks": 27, "bytes": 1_405_257, "rejected": 0}
        for name in ("cdn", "relay", "mesh", "satellite")
    ],
}  # fmt: skip
PULSE: dict[str, Any] = {
    "at_ms": NOW_MS, "title": "harbour", "viewed_ms": 60_000, "position_ms": 61_000, "bytes": 394,
    "served": [{"tier": "cdn", "kbytes": 512}, {"tier": "relay", "kbytes": 77}], "state": "acked",
    "way": "relay", "left_ms": NOW_MS + 2_000, "acked_ms": NOW_MS + 63_000, "reason": "",
    "judged_ms": NOW_MS + 400_000, "not_counted": [],
}  # fmt: skip
PULSES: list[dict[str, Any]] = [
    {**PULSE, "state": "waiting", "way": "", "left_ms": None, "acked_ms": None},
    {**PULSE, "state": "left", "way": "neighbour", "acked_ms": None, "served": []},
    {**PULSE, "state": "refused", "reason": "wrong_day", "title": ""},
    {**PULSE, "not_counted": ["gap", "session_cap"]},
    *[PULSE] * 5,
]
WAYS = ["here"] * 3 + ["cdn"] * 30 + ["mesh"] * 8 + ["satellite"] * 4 + ["relay"] * 9
LIVE: dict[str, Any] = {
    "title": "harbour", "tier_in_use": "relay", "verified_blocks": 312, "rejected_blocks": 2,
    "segments": [
        {"at_ms": at * 2_000, "tier": tier, "ms": 38}
        for at, tier in enumerate(WAYS)
    ],
    "trouble": "",
}  # fmt: skip
TROUBLE = "No tier delivers the next part now; `farcast doctor` says which are reachable."


@dataclass
class Cinema:
    """The desk behind the pages, changed by hand, and the film's files.

    ``fault`` refuses its segments; ``promised`` sends the head of each, and the body once it is set, unless
    the answer is cut short by then: after ``cut_s``.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    film: dict[str, Any] = field(default_factory=lambda: dict(TITLE))
    listed: bool = True
    pulses: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    marked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    address: str = ""
    fault: RefusedError | None = None
    promised: asyncio.Event | None = None
    cut_s: float = 60.0
    places: list[bytes] = field(default_factory=list[bytes])

    def lan(self) -> str:
        """Return the home's address."""
        return self.address

    def status(self) -> dict[str, Any]:
        """Return the box's facts."""
        return self.facts

    def find(self, query: str = "") -> list[str]:
        """Find every title, or none."""
        return [TITLE["title"], *OTHERS] if self.listed and query in ("", "night") else []

    def titles(self, ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return one title with a poster and some without."""
        rows = {"harbour": self.film}
        rows |= {
            name: {**TITLE, "title": "none", "name": name, "poster": "", "held_percent": at * 30}
            for at, name in enumerate(OTHERS)
        }
        return [rows[one] for one in (self.find() if ids is None else ids)]

    def title(self, title: str) -> dict[str, Any]:
        """Return the one title."""
        if title != "harbour":
            raise RefusedError(f"no title {title!r} in this catalog", status=404, reason="unknown_title")
        return self.film

    def begun(self) -> list[dict[str, Any]]:
        """Return what was begun."""
        return self.marked

    def forget(self, title: str = "") -> None:
        """Forget."""
        self.marked = [one for one in self.marked if title and one["title"] != title]

    def sent(self) -> list[dict[str, Any]]:
        """Return the pulses."""
        return self.pulses

    def sessions(self) -> list[dict[str, Any]]:
        """Return a verdict where there are pulses."""
        told = {"at_ms": NOW_MS, "viewed_ms": 180_000, "counted_ms": 120_000, "codes": ["gap"]}
        return [told] if self.pulses else []

    async def keep(self, title: str) -> None:
        """Keep."""
        self.film |= {"kept": bool(title), "held_percent": 100}

    async def drop(self, title: str) -> None:
        """Drop."""
        self.film |= {"kept": not title}

    async def switch_pulses(self, *, on: bool) -> None:
        """Switch."""
        self.facts = {**self.facts, "pulses": {"on": on}}

    def add_to(self, router: Router) -> None:
        """Serve the film and what the player asks for."""
        router.route("GET", "/watch/{title}/{path...}", self._watch)
        router.route("GET", "/api/live/{title}", self._live)
        router.route("POST", "/api/bookmarks/{title}", self._place)
        router.route("POST", "/v1/cmcd", self._place)

    async def _watch(self, exchange: Exchange) -> Answer:
        path = exchange.match["path"]
        if self.fault is not None and path.endswith(".m4s"):
            raise self.fault
        data = await asyncio.to_thread((self.folder / path).read_bytes)
        kind = TYPES.get(path.rsplit(".", 1)[-1], "video/iso.segment")
        answer = Answer(200, {"content-type": kind, "accept-ranges": "bytes"}, data)
        if self.promised is None or not path.endswith(".m4s"):
            return answer
        answer = negotiate(answer, exchange.method, exchange.headers)
        assert isinstance(answer.body, bytes)
        headers = {**answer.headers, "content-length": str(len(answer.body))}
        return Answer(answer.status, headers, self._late(answer.body))

    async def _late(self, data: bytes) -> AsyncIterator[bytes]:
        assert self.promised is not None
        async with asyncio.timeout(self.cut_s):
            await self.promised.wait()
        yield data

    async def _live(self, exchange: Exchange) -> Answer:
        del exchange
        waits = self.promised is not None and not self.promised.is_set()
        return Answer.json({**LIVE, "trouble": TROUBLE if waits else ""})

    async def _place(self, exchange: Exchange) -> Answer:
        self.places.append(await exchange.read(4_096))
        return Answer(204)


def shoot(folder: Path) -> None:
    """Make the film: one picture, two sounds, subtitles, a poster and a storyboard, as HLS."""
    sources = [f"testsrc2=size=320x180:rate=25:duration={FILM_S}"]
    sources += [f"sine=frequency={hertz}:sample_rate=48000:duration={FILM_S}" for hertz in (440, 880)]
    command = [find_ffmpeg(), "-hide_banner", "-loglevel", "error", "-y"]
    for source in sources:
        command += ["-f", "lavfi", "-i", source]
    streams = "v:0,agroup:snd,name:v a:0,agroup:snd,name:en,default:yes a:1,agroup:snd,name:de"
    command += ["-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-preset", "ultrafast"]
    command += [
        "-pix_fmt",
        "yuv420p",
        "-g",
        "50",
        "-c:a",
        "aac",
        "-b:a",
        "64k",
        "-f",
        "hls",
        "-hls_time",
        "2",
    ]
    command += ["-hls_playlist_type", "vod", "-hls_segment_type", "fmp4", "-var_stream_map", streams]
    command += ["-master_pl_name", "made.m3u8", "-hls_segment_filename", "%v/s%d.m4s", "%v/index.m3u8"]
    subprocess.run(command, check=True, timeout=90, cwd=folder)
    for filters, name in (
        ("scale=640:-2", "poster.jpg"),
        ("fps=1/4,scale=160:90,tile=3x2", "storyboard.jpg"),
    ):
        picture = [find_ffmpeg(), "-loglevel", "error", "-y", "-f", "lavfi", "-i", sources[0], "-vf", filters]
        subprocess.run([*picture, "-frames:v", "1", name], check=True, timeout=60, cwd=folder)
    found = re.search(r'CODECS="([^"]+)"', (folder / "made.m3u8").read_text())
    assert found is not None
    media = '#EXT-X-MEDIA:TYPE={},GROUP-ID="{}",NAME="{}",LANGUAGE="{}",DEFAULT={},AUTOSELECT=YES,URI="{}"'
    master = [
        "#EXTM3U",
        media.format("AUDIO", "a", "English", "en", "YES", "en/index.m3u8"),
        media.format("AUDIO", "a", "Deutsch", "de", "NO", "de/index.m3u8"),
        media.format("SUBTITLES", "s", "Deutsch", "de", "NO", "de.m3u8"),
        f'#EXT-X-STREAM-INF:BANDWIDTH=900000,RESOLUTION=320x180,CODECS="{found[1]}",AUDIO="a",SUBTITLES="s"',
        "v/index.m3u8",
    ]
    (folder / "master.m3u8").write_text("\n".join([*master, ""]))
    lines = [
        "#EXTM3U",
        f"#EXT-X-TARGETDURATION:{FILM_S}",
        f"#EXTINF:{FILM_S},",
        "de.vtt",
        "#EXT-X-ENDLIST",
        "",
    ]
    (folder / "de.m3u8").write_text("\n".join(lines))
    (folder / "de.vtt").write_text(f"WEBVTT\n\n00:00.000 --> 00:{FILM_S}.000\nGuten Abend\n")
    cues = [
        f"00:{at * 4:02}.000 --> 00:{at * 4 + 4:02}.000\n"
        f"storyboard.jpg#xywh={at % 3 * 160},{at // 3 * 90},160,90\n"
        for at in range(FILM_S // 4)
    ]
    (folder / "storyboard.vtt").write_text("\n".join(["WEBVTT\n", *cues]))
