"""The television: titles for players that want one address and one file, behind a listener's token.

``tv.m3u8`` has one variant with its sound in it, ``film.mp4`` is one file that is sought by ranges,
``all.m3u`` lists every title. Such players tell nothing of themselves: they are paced and counted by
what was delivered, a range of the file by the parts that end in it.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import NamedTuple

from ...protocol.cmcd import Report
from ...protocol.errors import FarcastError, RefusedError, UnreachableError
from ...protocol.playout import LEAD_MS
from ..catalog.library import Library
from ..http.exchange import Answer, Exchange, Router
from ..http.ranges import Span, content_tag, parse_range
from ..ladder.fetch import Fetcher
from .film import Film, Films, ReadFile
from .gateway import Gateway
from .sessions import Session, Sighting

AHEAD = 2
PARTS_KEPT = 4
PART_LIMIT_BYTES = 8 << 20
"""A larger part is made again when another range of it is asked for."""
PIECE_BYTES = 256 << 10
HLS, M3U, MP4 = "application/vnd.apple.mpegurl", "audio/x-mpegurl; charset=utf-8", "video/mp4"
INIT = "init.mp4"
_SEGMENT = re.compile(r"([0-9]{5,6})\.m4s")


class _Showing(NamedTuple):
    """One request for a part or more of a film."""

    title: str
    film: Film
    read: ReadFile
    session: Session
    again_ms: int = 0


class Television:
    """Handlers over one library; add its routes to a router before the gateway's."""

    def __init__(self, library: Library, gateway: Gateway, fetcher: Fetcher) -> None:
        self._library = library
        self._gateway = gateway
        self._fetcher = fetcher
        self._films = Films(library)
        self._made: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def add_to(self, router: Router) -> None:
        """Add the routes below the router's token."""
        router.route("GET", "/all.m3u", self.everything)
        router.route("GET", "/watch/{title}/tv.m3u8", self.playlist)
        router.route("GET", "/watch/{title}/tv/{name}", self.segment)
        router.route("GET", "/watch/{title}/film.mp4", self.film)

    async def everything(self, exchange: Exchange) -> Answer:
        """``GET /all.m3u``: every title whose manifest is here, as files."""
        base = f"http://{exchange.host}{exchange.path.rpartition('/')[0]}"
        text = await asyncio.to_thread(self._titles, base)
        return _text(text, M3U)

    async def playlist(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/tv.m3u8``: one variant, pictures and sound together."""
        title = exchange.match["title"]
        film = await self._film(title)
        self._gateway.opened(exchange, title)
        return _text(film.playlist(f"tv/{INIT}", lambda place: f"tv/{place:05d}.m4s"), HLS)

    async def segment(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/tv/{name}``: what ``tv.m3u8`` names.

        Raises:
            RefusedError: 404 for another name, 504 where no tier brings it.

        """
        title, name = exchange.match["title"], exchange.match["name"]
        film = await self._film(title)
        if name == INIT:
            headers = {**_headers(MP4), "etag": content_tag(film.init), "accept-ranges": "bytes"}
            return Answer(200, headers, film.init)
        match = _SEGMENT.fullmatch(name)
        place = int(match[1]) if match else len(film.parts)
        if place >= len(film.parts):
            raise RefusedError(f"no segment {name!r} in {title!r}", status=404, reason="unknown_file")
        report = self._gateway.report(exchange)
        slot = film.parts[place].slot
        session = self._gateway.seat(exchange, title, slot, report)
        showing = _Showing(title, film, self._gateway.reader(title, report.buffer_s), session)
        size = film.parts[place].size_bytes
        return await self._answer(exchange, showing, size, film.offsets[place], f'{film.etag[:-1]}-{place}"')

    async def film(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/film.mp4``: the title as one file, whole or one range.

        Raises:
            RefusedError: 404 for an unknown title, 504 where no tier brings its first part.

        """
        title = exchange.match["title"]
        film = await self._film(title)
        span = _span(exchange, film.size_bytes, film.etag)
        at = _place(film, span.first if span else 0)
        if not at and exchange.method != "HEAD":
            self._gateway.opened(exchange, title)
        session = self._gateway.seat(exchange, title, film.parts[at].slot, Report(), file=True)
        showing = _Showing(title, film, self._gateway.reader(title), session, LEAD_MS)
        return await self._answer(exchange, showing, film.size_bytes, 0, film.etag)

    # -- answers

    async def _film(self, title: str) -> Film:
        try:
            await self._gateway.admit(title)
            return await self._films.film(title, self._gateway.fetch(title))
        except UnreachableError as error:
            raise _no_tier(title, error) from error

    async def _answer(
        self, exchange: Exchange, showing: _Showing, size: int, offset: int, etag: str
    ) -> Answer:
        """Answer ``size`` bytes of a film from ``offset`` on, or the range of them asked for."""
        headers = {**_headers(MP4), "etag": etag, "accept-ranges": "bytes", "content-length": str(size)}
        if exchange.method == "HEAD":
            return Answer(200, headers, _nothing())
        wanted = _span(exchange, size, etag)
        span = wanted or Span(0, size)
        if not span.length:
            return Answer(416, {**headers, "content-range": f"bytes */{size}", "content-length": "0"})
        inner = Span(offset + span.first, span.length)
        slot = showing.film.parts[_place(showing.film, inner.first)].slot
        body = await self._gateway.begin(
            showing.session, slot, lambda: self._body(showing, inner), span, showing.again_ms
        )
        if wanted is None:
            return Answer(200, headers, body)
        last = span.first + span.length - 1
        headers |= {
            "content-range": f"bytes {span.first}-{last}/{size}",
            "content-length": str(span.length),
        }
        return Answer(206, headers, body)

    async def _body(self, showing: _Showing, span: Span) -> AsyncIterator[bytes]:
        """Make the first part, so that failing still has an answer, and return the rest as a stream."""
        try:
            await self._part(showing, _place(showing.film, span.first))
        except UnreachableError as error:
            raise _no_tier(showing.title, error) from error
        return self._stream(showing, span)

    async def _stream(self, showing: _Showing, span: Span) -> AsyncIterator[bytes]:
        film, end = showing.film, span.first + span.length
        if span.first < len(film.head):
            yield film.head[span.first : end]
        for place in range(_place(film, span.first), len(film.parts)):
            begin, part = film.offsets[place], film.parts[place]
            if begin >= end:
                return
            last = bool(showing.again_ms) and place == len(film.parts) - 1
            await self._gateway.pace(showing.session, part.slot, showing.again_ms, last=last)
            data = await self._part(showing, place)
            low, high = max(span.first - begin, 0), min(end - begin, len(data))
            for at in range(low, high, PIECE_BYTES):
                yield data[at : min(at + PIECE_BYTES, high)]
            if high == len(data) and low <= high // 2:  # a look at its last bytes is no watching
                sighting = Sighting(part.slot, part.picture.plan.leaves[0].cid, showing.again_ms)
                self._gateway.heard(showing.session, showing.title, sighting)

    async def _part(self, showing: _Showing, place: int) -> bytes:
        film = showing.film
        ahead = film.parts[place + 1 : place + 1 + AHEAD]
        self._fetcher.prefetch([leaf.cid for part in ahead for leaf in part.leaves], title=showing.title)
        key = (film.etag, place)
        data = self._made.get(key)
        if data is None:
            data = await film.parts[place].make(showing.read)
            if len(data) <= PART_LIMIT_BYTES:
                self._made[key] = data
            while len(self._made) > PARTS_KEPT:
                self._made.popitem(last=False)
        return data

    def _titles(self, base: str) -> str:
        lines = ["#EXTM3U"]
        for title in self._library.titles():
            try:
                manifest = self._library.manifest(title)
            except FarcastError:
                continue
            name = " ".join(manifest.name.split())
            lines += [
                f"#EXTINF:{round(manifest.duration_ms / 1_000)},{name}",
                f"{base}/watch/{title}/film.mp4",
            ]
        return "\n".join([*lines, ""])


def _place(film: Film, offset: int) -> int:
    """Return which part a byte of the file is in; the first one for what stands before it."""
    return max(bisect_right(film.offsets, offset) - 1, 0)


def _span(exchange: Exchange, size: int, etag: str) -> Span | None:
    """Return the one range asked for, None for the whole, length 0 where it cannot be satisfied."""
    wanted = exchange.headers.get("range")
    if wanted is None or exchange.method == "HEAD" or exchange.headers.get("if-range", etag) != etag:
        return None
    return parse_range(wanted, size)


def _headers(kind: str) -> dict[str, str]:
    return {"content-type": kind, "cache-control": "no-cache", "x-content-type-options": "nosniff"}


def _text(text: str, kind: str) -> Answer:
    data = text.encode()
    return Answer(200, {**_headers(kind), "etag": content_tag(data)}, data)


def _no_tier(title: str, error: UnreachableError) -> RefusedError:
    message = f"no tier delivers this part of {title!r} now: {error}"
    return RefusedError(message, status=504, retry_after_s=2.0, reason="no_tier")


async def _nothing() -> AsyncIterator[bytes]:
    """Stand for the body of a HEAD answer, which is never read."""
    return
    yield b""
