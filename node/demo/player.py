"""A headless HLS player that behaves like a real one: fills a small buffer, plays at wall speed, stalls.

It plays the highest variant with its audio, keeps at most ``buffer_s`` ahead, and reports by CMCD
version 2 (CTA-5004-B): query parameters on requests and state events to the gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import aiohttp

from ...protocol.errors import RefusedError, RemoteError

TICK_S = 0.02
START_BUFFER_S = 2.0
REQUEST_TIMEOUT_S = 30.0
SEGMENT_LIMIT_BYTES = 64 << 20
EPSILON_S = 1e-6

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^",]*)')


class Segment(NamedTuple):
    """One media segment: where, and its seconds of media."""

    url: str
    duration_s: float


class Rendition(NamedTuple):
    """One media playlist, read: the init segment and the segments in order."""

    url: str
    init: str
    segments: list[Segment]


class Playback(NamedTuple):
    """What one full playback did; ``digests`` are SHA-256 by path below the title."""

    startup_ms: int
    stall_ms: int
    stalls: int
    segments: int
    size_bytes: int
    digests: dict[str, bytes]
    media_s: float


class Player:
    """Plays one title through a gateway; ``position_s`` and ``buffered_s`` may be read any time."""

    def __init__(
        self,
        master_url: str,
        cmcd_url: str,
        *,
        title: str,
        buffer_s: float = 8.0,
        speed: float = 1.0,
        event_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._master_url = master_url
        self._cmcd_url = cmcd_url
        self._title = title
        self._ahead_s = buffer_s
        self._speed = speed
        self._event_s = event_s
        self._clock = clock
        self._sid = secrets.token_hex(8)
        self._sn = 0
        self._loaded_s = [0.0, 0.0]
        self._done = [False, False]
        self._asks_at_s = [0.0, 0.0]
        self.position_s = 0.0
        self.duration_s = 0.0
        self.state = "d"
        self.stall_ms = 0
        self.stalls = 0
        self.segments = 0
        self.size_bytes = 0
        self._digests: dict[str, bytes] = {}

    @property
    def buffered_s(self) -> float:
        """Seconds of media ahead of the playhead that are whole, video and audio."""
        whole = [
            self.duration_s if done else loaded
            for done, loaded in zip(self._done, self._loaded_s, strict=True)
        ]
        return max(0.0, min(whole) - self.position_s)  # sound may end a few ms before the picture

    @property
    def quiet_s(self) -> float:
        """Seconds until the next request; 0 while one is on its way."""
        media_s = min(at - self.position_s for at in self._asks_at_s)
        return max(0.0, media_s / self._speed)

    async def play(self) -> Playback:
        """Play from start to end.

        Raises:
            RemoteError: where a playlist or segment is refused for good.

        """
        began = self._clock()
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            renditions = await self._choose(http)
            self.duration_s = sum(segment.duration_s for segment in renditions[0].segments)
            if len(renditions) == 1:  # a silent film: nothing to wait for on the audio side
                self._loaded_s[1], self._done[1], self._asks_at_s[1] = float("inf"), True, float("inf")
            async with asyncio.TaskGroup() as tasks:
                for track, rendition in enumerate(renditions):
                    tasks.create_task(self._load(http, track, rendition))
                startup_ms = await self._run(http, began)
        return Playback(
            startup_ms,
            self.stall_ms,
            self.stalls,
            self.segments,
            self.size_bytes,
            self._digests,
            self.duration_s,
        )

    async def _choose(self, http: aiohttp.ClientSession) -> list[Rendition]:
        master = (await self._get(http, self._master_url)).decode()
        best, audio, bandwidth, group = "", "", -1, ""
        lines = master.splitlines()
        media = [attributes(line) for line in lines if line.startswith("#EXT-X-MEDIA:")]
        for line, following in pairwise(lines):
            if line.startswith("#EXT-X-STREAM-INF:"):
                found = attributes(line)
                if int(found.get("BANDWIDTH", "0")) > bandwidth:
                    bandwidth, best, group = (
                        int(found["BANDWIDTH"]),
                        following.strip(),
                        found.get("AUDIO", ""),
                    )
        for found in media:
            if found.get("TYPE") == "AUDIO" and found.get("GROUP-ID") == group and found.get("URI"):
                audio = found["URI"]
        if not best:
            raise RemoteError(f"{self._title}'s master playlist names no variant", reason="bad_playlist")
        urls = [urljoin(self._master_url, path) for path in (best, audio) if path]
        return [await self._rendition(http, url) for url in urls]

    async def _rendition(self, http: aiohttp.ClientSession, url: str) -> Rendition:
        text = (await self._get(http, url)).decode()
        init, segments, duration_s = "", list[Segment](), 0.0
        for line in text.splitlines():
            if line.startswith("#EXT-X-MAP:"):
                init = urljoin(url, attributes(line)["URI"])
            elif line.startswith("#EXTINF:"):
                duration_s = float(line[8:].split(",")[0])
            elif line and not line.startswith("#"):
                segments.append(Segment(urljoin(url, line), duration_s))
        return Rendition(url, init, segments)

    async def _load(self, http: aiohttp.ClientSession, track: int, rendition: Rendition) -> None:
        if rendition.init:
            self._note(rendition.init, await self._get(http, rendition.init))
        following = [segment.url for segment in rendition.segments[1:]] + [""]
        for segment, next_url in zip(rendition.segments, following, strict=True):
            self._asks_at_s[track] = self._loaded_s[track] + segment.duration_s - self._ahead_s
            while self.position_s < self._asks_at_s[track]:  # noqa: ASYNC110 - a clock
                await asyncio.sleep(TICK_S)
            data = await self._get(http, segment.url, segment.duration_s, next_url)
            self._note(segment.url, data)
            self.segments += 1
            self._loaded_s[track] += segment.duration_s
        self._done[track], self._asks_at_s[track] = True, float("inf")

    async def _run(self, http: aiohttp.ClientSession, began: float) -> int:
        await self._event(http, "s")
        while self.buffered_s < min(START_BUFFER_S, self.duration_s):  # noqa: ASYNC110 - a clock
            await asyncio.sleep(TICK_S)
        startup_ms = round((self._clock() - began) * 1_000)
        await self._event(http, "p")
        last = told = self._clock()
        while self.position_s < self.duration_s - EPSILON_S:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            step_s, last = now - last, now
            played_s = min(step_s * self._speed, self.buffered_s)
            self.position_s += played_s
            missed_s = step_s - played_s / self._speed
            ended = all(self._done) and self.position_s >= self.duration_s - EPSILON_S
            if missed_s > EPSILON_S and not ended:
                self.stall_ms += round(missed_s * 1_000)
                if self.state != "r":
                    self.stalls += 1
                    await self._event(http, "r")
            elif self.state == "r" and self.buffered_s > 0:
                await self._event(http, "p")
            if now - told >= self._event_s:
                told = now
                await self._event(http, self.state, kind="t")
        await self._event(http, "e")
        return startup_ms

    async def _get(
        self, http: aiohttp.ClientSession, url: str, duration_s: float = 0.0, next_url: str = ""
    ) -> bytes:
        cmcd = [
            f"bl={round(self.buffered_s * 10) * 100}",
            f'sid="{self._sid}"',
            f'cid="{self._title}"',
            "v=2",
        ]
        if duration_s:
            cmcd.insert(1, f"d={round(duration_s * 1_000)}")
        if next_url:
            cmcd.insert(1, f'nor="{quote(urlsplit(next_url).path.rsplit("/", 1)[-1])}"')
        if self.state == "d":
            cmcd.append("su")
        address = f"{url}?CMCD={quote(','.join(sorted(cmcd)), safe='')}"
        async with http.get(address) as response:
            if response.status != 200:  # noqa: PLR2004 - no ranges are asked for
                message = f"{urlsplit(url).path.rsplit('/', 1)[-1]} was answered with {response.status}"
                raise RefusedError(message, status=response.status)
            data = await response.content.read(SEGMENT_LIMIT_BYTES)
            while chunk := await response.content.read(SEGMENT_LIMIT_BYTES - len(data)):
                data += chunk
        self.size_bytes += len(data)
        return data

    async def _event(self, http: aiohttp.ClientSession, state: str, *, kind: str = "ps") -> None:
        self.state = state
        self._sn += 1
        fields = {
            "bl": str(round(self.buffered_s * 10) * 100),
            "cid": f'"{self._title}"',
            "e": kind,
            "pr": f"{self._speed:g}",
            "pt": str(round(self.position_s * 1_000)),
            "sid": f'"{self._sid}"',
            "sn": str(self._sn),
            "sta": state,
            "ts": str(time.time_ns() // 1_000_000),
            "v": "2",
        }
        line = ",".join(f"{key}={value}" for key, value in fields.items())
        async with http.post(
            self._cmcd_url, data=line.encode() + b"\n", headers={"content-type": "application/cmcd"}
        ) as response:
            await response.read()

    def _note(self, url: str, data: bytes) -> None:
        path = urlsplit(url).path.partition(f"/{self._title}/")[2]
        self._digests[path] = hashlib.sha256(data).digest()


def attributes(line: str) -> dict[str, str]:
    """Read an HLS tag's attribute list (RFC 8216 section 4.2), quotes removed."""
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(line.partition(":")[2])}
