"""The gateway: plain HLS for the players of this box, from blocks verified on the way out.

Whatever a tier does behind it, a player sees one steady local server. What players tell of
themselves (CMCD) sets deadlines and prefetch and is folded into sessions; a player that tells
nothing is paced, so that what was delivered is evidence of what was watched.

Over 400 lines because a request passes all of it: report, session, pace, body, and what is heard of it.
"""

from __future__ import annotations

import asyncio
import logging
import posixpath
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter

from ...protocol.catalog import Entry
from ...protocol.cid import Cid
from ...protocol.cmcd import Report, parse_events, report_of
from ...protocol.errors import FarcastError, RefusedError, RemoteError, UnreachableError
from ...protocol.manifest import Manifest
from ...protocol.ports import BlockStore
from ...protocol.pulse import may_witness
from ...protocol.unixfs import Leaf, content
from ...protocol.viewing import INTERVAL_S, PulseDue
from ..catalog.library import FilePlan
from ..http.exchange import Answer, Exchange, Router
from ..http.ranges import Span, parse_range
from ..ladder.fetch import Fetcher
from ..pulses.heartbeat import Evidence, Heartbeat
from .film import ReadFile, whole
from .headstart import HEAD_S, LEAD, HeadStart, Opening
from .sessions import Client, Session, Sessions, Sighting
from .timeline import PLAYLIST_LIMIT_BYTES, Slot, Timelines
from .trail import Trail
from .unlock import Unlocker

log = logging.getLogger(__name__)

EVENTS_LIMIT_BYTES = 64 << 10
PACE_LIMIT_S, LAST_LIMIT_S = 8.0, 50.0
"""Players give up on a first byte after ten seconds or so, and on a file that stands after a minute."""
PLAYLISTS = (".m3u8", ".mpd")
AHEAD = 3
PREFETCH_TASKS = 16
TICK_S = 0.5
TOLD_S = 3.0
"""A part later than this is told of; what a tier's fault costs is over by then."""

Fetch = Callable[[Cid], Awaitable[bytes]]


class Titles(Protocol):
    """What the gateway needs of the library."""

    def entry(self, title: str) -> Entry:
        """Return a title's catalog entry; raises ``RefusedError`` 404."""
        ...

    async def learn(self, title: str, fetch: Fetch) -> Manifest:
        """Return a title's manifest, fetching it if need be."""
        ...

    async def plan(self, title: str, path: str, fetch: Fetch, *, unseen: bool = False) -> FilePlan:
        """Return the blocks of one file of a title, of one block ``unseen``; raises ``RefusedError`` 404."""
        ...


class _Request(NamedTuple):
    title: str
    path: str
    fetch: Fetch
    report: Report


class Gateway:
    """Handlers and clockwork; add its routes, run ``run``, and ``close`` it before the spool."""

    def __init__(
        self,
        titles: Titles,
        fetcher: Fetcher,
        store: BlockStore,
        heartbeat: Heartbeat,
        registry: CollectorRegistry,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        unlocker: Unlocker | None = None,
        head_s: float = HEAD_S,
    ) -> None:
        """Serve ``titles`` through ``fetcher``; ``clock`` gives monotonic seconds.

        The head of a segment leaves after ``head_s`` even where its bytes are not here yet.
        """
        self._unlocker = unlocker
        self._headstart = HeadStart(head_s)
        self._titles = titles
        self._fetcher = fetcher
        self._store = store
        self._heartbeat = heartbeat
        self._clock = clock
        self._timelines = Timelines()
        self._sessions = Sessions(registry, interval_s=interval_s)
        self._tick_s = min(TICK_S, interval_s / 10)
        self._tasks: set[asyncio.Task[object]] = set()
        self._bytes = Counter("farcast_node_gateway_bytes", "Bytes given to players.", registry=registry)
        self._unread = Counter(
            "farcast_node_player_reports_unread",
            "CMCD that could not be read.",
            ["reason"],
            registry=registry,
        )

    def add_to(self, router: Router) -> None:
        """Add the players' routes to the loopback router, whose token and Host checks guard them."""
        router.route("GET", "/watch/{title}/{path...}", self.watch)
        router.route("POST", "/v1/cmcd", self.cmcd)

    # -- requests

    async def watch(self, exchange: Exchange) -> Answer:
        """``GET /watch/{title}/{path}``: a file of a title, whole or one range.

        Raises:
            RefusedError: 404 for an unknown title or file, 504 where no tier brings the first block (of
                a segment: within a second), 403 where a title needs a ticket that is not here.

        """
        title, path = exchange.match["title"], exchange.match["path"]
        report = self._report(exchange)
        request = _Request(title, path, self._fetch(title, report.buffer_s), report)
        plan = await self._plan(request)
        clear = await self._clear(request, plan)
        if clear is not None:
            plan = plan._replace(size=len(clear))
        slot = await self._slot(request)
        session = self.seat(exchange, title, slot, report) if slot else None
        if not report.sid and path.endswith(PLAYLISTS):
            self.opened(exchange, title)
        headers = {
            "content-type": plan.media_type,
            "content-length": str(plan.size),
            "accept-ranges": "bytes",
            "etag": plan.etag,
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
        }
        self._foresee(request)
        if _unchanged(exchange, plan.etag):
            self._hear_delivered(session, title, slot, plan, Span(0, plan.size))
            return Answer(304, {name: headers[name] for name in ("etag", "cache-control")})
        span = _span(exchange, plan)
        if span is not None and not span.length:
            headers |= {"content-range": f"bytes */{plan.size}", "content-length": "0"}
            return Answer(416, headers)
        if exchange.method == "HEAD":
            return Answer(200, headers, _nothing())
        whole = span or Span(0, plan.size)

        def opening() -> Opening:
            return self._body(
                request, plan, whole, lambda: self._hear_delivered(session, title, slot, plan, whole), clear
            )

        if session is not None and slot is not None:
            body = await self.begin(session, slot, opening, whole)
        else:
            body = await opening()
        if span is None:
            return Answer(200, headers, body)
        last = span.first + span.length - 1
        headers |= {
            "content-range": f"bytes {span.first}-{last}/{plan.size}",
            "content-length": str(span.length),
        }
        return Answer(206, headers, body)

    async def cmcd(self, exchange: Exchange) -> Answer:
        """``POST /v1/cmcd``: player events (CTA-5004-B event mode), one report a line."""
        body = await exchange.read(EVENTS_LIMIT_BYTES)
        now = self._clock()
        try:
            reports = parse_events(body)
        except RemoteError as error:
            self._unread.labels(error.reason).inc()
            raise
        for report in reports:
            self._sessions.report(report, _client(exchange), self._is_known, now)
        await self.tick()
        return Answer(204)

    def sessions(self) -> list[dict[str, object]]:
        """Return the player sessions, newest use first, for page and admin calls."""
        return self._sessions.status(self._clock())

    def trail(self, title: str, sid: str = "") -> Trail | None:
        """Return which ways a player's last segments came; None where nobody plays ``title`` now."""
        return self._sessions.trail(title, sid)

    def trouble(self, title: str, sid: str = "") -> str:
        """Return in a sentence what a player has waited for in vain for 3 s; empty where nothing is."""
        trail = self._sessions.trail(title, sid)
        waits_s = trail.waits_s(self._clock()) if trail else 0.0
        if waits_s < TOLD_S:
            return ""
        return "No tier delivers the next part now; `farcast doctor` says which are reachable."

    # -- players

    def seat(
        self, exchange: Exchange, title: str, slot: Slot, report: Report, *, file: bool = False
    ) -> Session:
        """Return the session of a request for a segment or a ``file``; folds what the player says with it."""
        now = self._clock()
        session = self._sessions.find(report.sid, _client(exchange), title, now)
        session.connected(exchange.is_open, None if file else slot)
        if exchange.method != "HEAD":
            self._sessions.asked(session, title, report, slot, now)
        return session

    def opened(self, exchange: Exchange, title: str) -> None:
        """Hear that a player without a name begins a title, at its playlist or its first byte."""
        self._sessions.opened(_client(exchange), title, self._clock())

    async def pace(self, session: Session, slot: Slot, again_ms: int = 0, *, last: bool = False) -> None:
        """Wait until a segment, or the ``last`` of a file, may go out; it may begin to report meanwhile."""
        deadline = self._clock() + (LAST_LIMIT_S if last else PACE_LIMIT_S)
        while (now := self._clock()) < deadline:
            wait_s = self._sessions.wait_s(session, slot, now, again_ms, last=last)
            if not wait_s:
                return
            await asyncio.sleep(min(wait_s, TICK_S, deadline - now))

    async def begin(
        self, session: Session, slot: Slot, opening: Callable[[], Opening], span: Span, again_ms: int = 0
    ) -> AsyncIterator[bytes]:
        """Open the body of a segment, or a ``span`` of it, once it may go out; its head may leave before."""
        await self.pace(session, slot, again_ms)
        now = self._clock()
        session.trail.asked(slot.track, now)
        lead = b"" if span.first or span.length <= len(LEAD) else LEAD
        try:
            body = await self._headstart.body(opening(), lead)
        except asyncio.CancelledError:
            session.trail.came(slot.track)
            raise
        session.trail.came(slot.track)  # a player that has left by now never asks for the body
        return self._awaited(session, slot, body, now)

    async def _awaited(
        self, session: Session, slot: Slot, body: AsyncIterator[bytes], asked_at: float
    ) -> AsyncIterator[bytes]:
        """Stream a segment; one that was cut short is waited for still, one nobody wants any more is not."""
        session.trail.asked(slot.track, asked_at)
        lacking = False
        try:
            async for chunk in body:
                yield chunk
        except FarcastError:
            lacking = True
            raise
        finally:
            if not lacking:
                session.trail.came(slot.track)

    def heard(self, session: Session, title: str, sighting: Sighting) -> None:
        """Hear that a segment went out to its end."""
        sighting = sighting._replace(manifest=self._manifest(title))
        self._sessions.delivered(session, title, sighting, self._clock())

    def fetch(self, title: str, buffer_s: float | None = None) -> Fetch:
        """Return what brings the blocks of a title, verified, to a player that holds so much."""
        return self._fetch(title, buffer_s)

    async def admit(self, title: str) -> None:
        """Raise ``RefusedError`` where a title's files may not be opened for players now."""
        manifest = await self._titles.learn(title, self._fetch(title, None))
        if self._unlocker is not None and manifest.protection is not None:
            await self._unlocker.admit(manifest)

    def reader(self, title: str, buffer_s: float | None = None) -> ReadFile:
        """Return what brings whole files of a title to such a player, verified and in the clear."""
        fetch = self._fetch(title, buffer_s)

        async def read(path: str, plan: FilePlan) -> bytes:
            manifest = await self._titles.learn(title, fetch)
            clear = None
            if self._unlocker is not None:
                clear = await self._unlocker.clear(manifest, path, plan.size, lambda: whole(plan, fetch))
            return await whole(plan, fetch) if clear is None else clear

        return read

    def report(self, exchange: Exchange) -> Report:
        """Return what a player says of itself with a request (CMCD); what cannot be read is counted."""
        return self._report(exchange)

    # -- clockwork

    async def run(self) -> None:
        """Sign pulses as they fall due, until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(self._tick_s)

    async def tick(self) -> None:
        """Sign the pulses due now."""
        await self._beat(self._sessions.take(self._clock()))

    async def close(self) -> None:
        """End every session, sign its last pulse, and stop prefetching."""
        await self._headstart.close()
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._beat(self._sessions.close(self._clock()))
        await self._heartbeat.close()

    async def _beat(self, due: Sequence[tuple[Session, PulseDue]]) -> None:
        for session, pulse in due:
            sighting = session.sighting(pulse.position_ms)
            block = None
            if sighting and self._witnesses(sighting, pulse):
                block = await asyncio.to_thread(self._store.get, sighting.block)
            rendition = sighting.slot.rendition if sighting else 0
            await self._heartbeat.beat(pulse, Evidence(rendition, block))

    def _witnesses(self, sighting: Sighting, pulse: PulseDue) -> bool:
        """Say whether a segment's block shows what a pulse says: near its position, of its version."""
        near = may_witness(sighting.slot.start_ms, pulse.position_ms)
        return near and sighting.manifest is not None and sighting.manifest == self._manifest(pulse.content)

    def _manifest(self, title: str) -> Cid | None:
        try:
            return self._titles.entry(title).cid
        except RefusedError:
            return None  # retired while it played

    # -- one file

    def _fetch(self, title: str, buffer_s: float | None) -> Fetch:
        async def fetch(cid: Cid) -> bytes:
            return await self._fetcher.block(cid, title=title, buffer_s=buffer_s)

        return fetch

    async def _plan(self, request: _Request) -> FilePlan:
        try:
            return await self._titles.plan(request.title, request.path, request.fetch, unseen=True)
        except UnreachableError as error:
            raise _no_tier(request, error) from error
        except RefusedError as error:
            if error.reason != "unknown_title" or not self._sessions.plays(request.title):
                raise
            message = f"{request.title!r} was retired by its origin while it played"
            raise RefusedError(message, status=410, reason="retired") from error
        except RemoteError as error:
            if error.reason not in ("not_found", "not_a_file"):
                raise
            message = f"no file {request.path!r} in {request.title!r}"
            raise RefusedError(message, status=404, reason="unknown_file") from error

    async def _read(self, request: _Request) -> bytes:
        plan = await self._plan(request)
        if plan.size > PLAYLIST_LIMIT_BYTES:
            raise RemoteError(f"{request.path} is too large for a playlist", reason="bad_playlist")
        return b"".join([content(leaf, await request.fetch(leaf.cid)) for leaf in plan.leaves])

    async def _slot(self, request: _Request) -> Slot | None:
        """Return what stretch of media a file is; a playlist that cannot be read never stops a film."""
        try:
            manifest = await self._titles.learn(request.title, request.fetch)
            slot = await self._timelines.slot(
                manifest, request.path, lambda path: self._read(request._replace(path=path))
            )
        except RemoteError as error:
            log.info("%s", error)
            return None
        after = self._timelines.after(manifest.root_cid, request.path)
        if after and len(self._tasks) < PREFETCH_TASKS:  # without its nodes it could be given no head
            self._spawn(self._plan_ahead(request._replace(path=after, report=Report())))
        return slot

    async def _body(
        self,
        request: _Request,
        plan: FilePlan,
        span: Span,
        sent: Callable[[], None],
        clear: bytes | None = None,
    ) -> AsyncIterator[bytes]:
        """Fetch the first block, so that failing still has an answer, and return the rest as a stream."""
        if clear is not None:
            return self._part(clear, span, sent)
        leaves = [
            leaf for leaf in plan.leaves
            if leaf.offset < span.first + span.length and leaf.offset + leaf.size > span.first
        ]  # fmt: skip
        first = b""
        if leaves:
            try:
                first = await self._leaf(request, leaves, 0)
            except UnreachableError as error:
                raise _no_tier(request, error) from error
        return self._stream(request, leaves, span, first, sent)

    async def _stream(
        self, request: _Request, leaves: Sequence[Leaf], span: Span, first: bytes, sent: Callable[[], None]
    ) -> AsyncIterator[bytes]:
        end = span.first + span.length
        for index, leaf in enumerate(leaves):
            data = await self._leaf(request, leaves, index) if index else first
            part = data[max(span.first - leaf.offset, 0) : end - leaf.offset]
            yield part
            self._bytes.inc(len(part))
        sent()

    async def _clear(self, request: _Request, plan: FilePlan) -> bytes | None:
        """Return a file of a protected title in the clear; None for one that is so already."""
        if self._unlocker is None:
            return None

        async def sealed() -> bytes:
            leaves = range(len(plan.leaves))
            return b"".join([await self._leaf(request, plan.leaves, index) for index in leaves])

        try:
            manifest = await self._titles.learn(request.title, request.fetch)
            return await self._unlocker.clear(manifest, request.path, plan.size, sealed)
        except UnreachableError as error:
            raise _no_tier(request, error) from error

    async def _part(self, clear: bytes, span: Span, sent: Callable[[], None]) -> AsyncIterator[bytes]:
        part = clear[span.first : span.first + span.length]
        yield part
        self._bytes.inc(len(part))
        sent()

    async def _leaf(self, request: _Request, leaves: Sequence[Leaf], index: int) -> bytes:
        self._fetcher.prefetch(
            [leaf.cid for leaf in leaves[index + 1 : index + 1 + AHEAD]], title=request.title
        )
        leaf, report = leaves[index], request.report
        data = await self._fetcher.block(
            leaf.cid, title=request.title, buffer_s=report.buffer_s, size_bytes=leaf.size
        )
        return content(leaf, data)

    # -- players

    def _report(self, exchange: Exchange) -> Report:
        try:
            return report_of(exchange.query, exchange.headers) or Report()
        except RemoteError as error:
            self._unread.labels(error.reason).inc()
            return Report()

    def _hear_delivered(
        self, session: Session | None, title: str, slot: Slot | None, plan: FilePlan, span: Span
    ) -> None:
        """A segment counts once its end went out: whole, or its last range."""
        if session is not None and slot is not None and plan.leaves and span.first + span.length == plan.size:
            self.heard(session, title, Sighting(slot, plan.leaves[0].cid))
            arrivals = [self._fetcher.supply.arrival(leaf.cid) for leaf in plan.leaves]
            session.trail.add(slot.track, slot.start_ms, arrivals, self._clock())

    def _foresee(self, request: _Request) -> None:
        """Bring the objects a player says it will ask for next (CMCD ``nor``)."""
        folder = posixpath.dirname(request.path)
        for address in request.report.next_objects[:AHEAD]:
            path = posixpath.normpath(posixpath.join(folder, urlsplit(address).path))
            if path.startswith(("/", "..")) or len(self._tasks) >= PREFETCH_TASKS:
                continue
            self._spawn(self._prefetch(request._replace(path=path, report=Report())))

    async def _prefetch(self, request: _Request) -> None:
        plan = await self._plan_ahead(request)
        if plan is not None:
            self._fetcher.prefetch([leaf.cid for leaf in plan.leaves], title=request.title)

    async def _plan_ahead(self, request: _Request) -> FilePlan | None:
        try:
            return await self._plan(request)
        except FarcastError as error:
            log.debug("prefetch: %s", error)
            return None

    def _is_known(self, title: str) -> bool:
        try:
            self._titles.entry(title)
        except RefusedError:
            return False
        return True

    def _spawn(self, work: Coroutine[object, object, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _client(exchange: Exchange) -> Client:
    return exchange.peer, exchange.headers.get("user-agent", "")[:200]


def _unchanged(exchange: Exchange, etag: str) -> bool:
    """Weak comparison of If-None-Match (RFC 9110 section 13.1.2)."""
    field = exchange.headers.get("if-none-match", "")
    tags = [tag.strip().removeprefix("W/") for tag in field.split(",")]
    return field.strip() == "*" or etag in tags


def _span(exchange: Exchange, plan: FilePlan) -> Span | None:
    """Return the one range asked for, None for the whole, length 0 where it cannot be satisfied."""
    wanted = exchange.headers.get("range")
    if wanted is None or exchange.method == "HEAD":
        return None
    if exchange.headers.get("if-range", plan.etag) != plan.etag:
        return None
    return parse_range(wanted, plan.size)


def _no_tier(request: _Request, error: UnreachableError) -> RefusedError:
    message = f"no tier delivers {request.path!r} of {request.title!r} now: {error}"
    return RefusedError(message, status=504, retry_after_s=2.0, reason="no_tier")


async def _nothing() -> AsyncIterator[bytes]:
    """Stand for the body of a HEAD answer, which has the length of the GET's and is never read."""
    return
    yield b""
