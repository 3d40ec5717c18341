"""The desk: what page, commands and admin calls ask a viewer's node, and the switches they throw."""

from __future__ import annotations

import asyncio
import shutil
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
from msgspec import Meta

from ..protocol.errors import FarcastError, RefusedError, RemoteError
from ..protocol.manifest import Manifest
from ..protocol.unixfs import MissingError, resolve
from .blocks.store import SPARE_BYTES
from .box import clock_ms
from .forecast import forecast
from .http.exchange import Answer, Exchange, Router
from .playback.bookmarks import Bookmark
from .playback.keep import LABEL, Kept
from .settingsfile import set_key

if TYPE_CHECKING:
    from .viewer import Viewer

ADMIN_LIMIT_BYTES = 4_096
ACKS_BYTES = 4 << 20
"""Of acks in one answer to the command that exports them."""
FOUND_LIMIT = 20_000
DASH = "manifest.mpd"


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an admin call that switches something."""

    on: bool


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that says where playback is, in media ms."""

    position_ms: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class Desk:
    """Answers about the node; everything here is also what the page shows.

    ``lan`` gives the address under which the home finds this box's titles, empty while it serves
    this machine alone.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.lan: Callable[[], str] = str

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("GET", "/api/status", self._get_status)
        router.route("GET", "/api/titles", self._get_titles)
        router.route("GET", "/api/titles/{title}", self._get_title)
        router.route("POST", "/api/titles/{title}/keep", self._keep)
        router.route("GET", "/api/titles/{title}/keep", self._kept)
        router.route("DELETE", "/api/titles/{title}/keep", self._drop)
        router.route("POST", "/api/direct", self._direct)
        router.route("GET", "/api/live/{title}", self._get_live)
        router.route("GET", "/api/bookmarks", self._get_bookmarks)
        router.route("DELETE", "/api/bookmarks", self._clear_bookmarks)
        router.route("POST", "/api/bookmarks/{title}", self._bookmark)
        router.route("DELETE", "/api/bookmarks/{title}", self._forget_bookmark)
        router.route("GET", "/api/pulses/sent", self._get_sent)
        router.route("GET", "/api/pulses/acks", self._get_acks)
        router.route("GET", "/api/pulses", self._get_pulses)
        router.route("POST", "/api/pulses", self._switch_pulses)

    def status(self) -> dict[str, Any]:
        """Return everything a person wants to know of the box, the verdict first."""
        viewer = self._viewer
        found = viewer.fetcher.status()
        store = viewer.box.store
        standing = viewer.dish.standing if viewer.dish else None
        return {
            "verdict": self._verdict(),
            "role": "node",
            "origin": viewer.trust.hint.name if viewer.trust.hint else "",
            "tier_in_use": found["tier_in_use"],
            "tiers": found["tiers"],
            "failovers": found["failovers"],
            "blocks_waiting": found["waiting"],
            "playing": viewer.playing,
            "sessions": viewer.gateway.sessions(),
            "pulses": self.pulses(),
            "tickets": viewer.tickets,
            "store": {"bytes": store.held_bytes, "blocks": store.held_blocks},
            "neighbours": len(viewer.discovery.neighbours()) if viewer.discovery else 0,
            "direct": viewer.courier.allowed,
            "waits": self._waits(),
            "metered": viewer.box.ration.facts if viewer.box.ration else None,
            "dish": standing.facts if standing else None,
            "radio": viewer.radio.facts if viewer.radio else None,
            "satellite": forecast(viewer.antenna, viewer.library),
            "hints": viewer.hints.facts(),
        }

    def pulses(self) -> dict[str, Any]:
        """Return what was signed here and what still waits for the origin's ack."""
        waiting = self._viewer.box.spool.waiting(own=True)
        beat = self._viewer.heartbeat
        return {
            "on": beat.enabled,
            "signed": beat.counts["signed"],
            "waiting": waiting.count,
            "waiting_s": waiting.viewed_ms // 1_000,
        }

    def sessions(self) -> list[dict[str, Any]]:
        """Return the origin's verdicts of the last 24 hours on what was watched here, newest first."""
        return self._viewer.history.sessions(clock_ms())

    def find(self, query: str = "") -> list[str]:
        """Return the ids of the listed titles that a query means, best first; without one all, in order."""
        return self._viewer.finder.find(query, FOUND_LIMIT)

    def titles(self, ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return the given titles (or all) whose manifests are here, with how much of each is held."""
        kept = self._viewer.box.store.pinned()
        lock = self._viewer.unlocker.locks()
        rows = list[dict[str, Any]]()
        for title in self.find() if ids is None else ids:
            try:
                manifest = self._viewer.library.manifest(title)
                row = self._row(title, manifest, kept=LABEL + title in kept)
                rows.append({**row, "locked": lock(manifest)})
            except FarcastError:
                continue
        return rows

    def title(self, title: str) -> dict[str, Any]:
        """Return a title with all that its player offers.

        Raises:
            RefusedError: 404 for an unknown title, 503 where its manifest is not here yet.

        """
        manifest = self._viewer.library.manifest(title)
        mark = self._viewer.bookmarks.place(title)
        return {
            **self._row(title, manifest, kept=LABEL + title in self._viewer.box.store.pinned()),
            "locked": self._viewer.unlocker.locks()(manifest),
            "duration_ms": manifest.duration_ms,
            "position_ms": mark.position_ms if mark else 0,
            "sounds": sum(one.kind == "audio" for one in manifest.renditions),
            "subtitles": sum(one.kind == "subtitles" for one in manifest.tracks),
            "texts": [
                {"path": one.path, "language": one.language, "label": one.label}
                for one in manifest.tracks
                if one.kind == "subtitles"
            ],
            "storyboard": _track(manifest, "storyboard"),
            "dash": self._holds(manifest, DASH),
        }

    def begun(self) -> list[dict[str, Any]]:
        """Return the titles that somebody may go on with, those left last first, each with its place."""
        marks = {mark.title: mark for mark in self._viewer.bookmarks.newest()}
        return [
            {**row, "position_ms": marks[row["title"]].position_ms, "at_ms": marks[row["title"]].at_ms}
            for row in self.titles([*marks])
        ]

    def bookmark(self, title: str, position_ms: int) -> None:
        """Remember where a title was left; raises ``RefusedError`` for an unknown one."""
        duration_ms = self._viewer.library.manifest(title).duration_ms
        self._viewer.bookmarks.note(Bookmark(title, position_ms, duration_ms, clock_ms()))

    def forget(self, title: str = "") -> None:
        """Forget where a title was left, or, without one, all of them."""
        if title:
            self._viewer.bookmarks.forget(title)
        else:
            self._viewer.bookmarks.clear()

    def sent(self) -> list[dict[str, Any]]:
        """Return what this box signed in the last 24 hours and what still waits, newest first."""
        titles = {cid.digest: title for title, cid in self._viewer.library.manifests().items()}
        return self._viewer.history.read(clock_ms(), titles)

    def live(self, title: str, sid: str = "") -> dict[str, Any]:
        """Return how the blocks of a title being played come; not from a thread."""
        found = self._viewer.fetcher.status()
        trail = self._viewer.gateway.trail(title, sid)
        steps = trail.steps() if trail else []
        tiers = cast("list[dict[str, Any]]", found["tiers"])
        return {
            "title": title,
            "tier_in_use": found["tier_in_use"],
            "segments": [{"at_ms": one.start_ms, "tier": one.tier, "ms": one.took_ms} for one in steps],
            "verified_blocks": trail.blocks if trail else 0,
            "rejected_blocks": sum(tier["rejected"] for tier in tiers),
            "trouble": self._viewer.gateway.trouble(title, sid),
        }

    async def keep(self, title: str) -> Kept:
        """Begin to keep a title, or go on."""
        return await self._viewer.keeper.keep(title)

    async def drop(self, title: str) -> Kept:
        """Let go of a kept title."""
        return await self._viewer.keeper.drop(title)

    async def switch_pulses(self, *, on: bool) -> None:
        """Sign pulses or sign none, from now on and after a restart."""
        self._viewer.heartbeat.enabled = on
        home = self._viewer.box.home.path  # kept, so that off stays off when the node starts again
        await asyncio.to_thread(set_key, home, "heartbeat.enabled", "true" if on else "false")

    def _row(self, title: str, manifest: Manifest, *, kept: bool) -> dict[str, Any]:
        return {
            "title": title,
            "name": manifest.name,
            "description": manifest.description,
            "duration_s": round(manifest.duration_ms / 1_000),
            "size_bytes": manifest.size_bytes,
            "root_cid": str(manifest.root_cid),
            "poster": _track(manifest, "poster"),
            "held_percent": self._held_percent(title, manifest.size_bytes),
            "kept": kept,
            "access": manifest.access,
        }

    def _holds(self, manifest: Manifest, path: str) -> bool:
        """Say whether a title's folder is known here to have a file."""
        try:
            resolve(manifest.root_cid, path.split("/"), self._viewer.box.store.get)
        except (MissingError, RemoteError):
            return False
        return True

    def _held_percent(self, title: str, size_bytes: int) -> int:
        """Return how much of a title is held, in whole percent of its bytes; 100 only when it is whole."""
        sizes = [self._viewer.box.store.size(cid) for cid in self._viewer.library.reached(title)]
        held = [size for size in sizes if size is not None]
        return 100 if len(held) == len(sizes) else min(99, sum(held) * 100 // max(size_bytes, 1))

    def _verdict(self) -> str:
        ration = self._viewer.box.ration
        if trouble := self._trouble():
            return trouble
        if ration is not None and ration.exhausted:
            return f"Today's bytes are used up ({ration.sentence()}): what is here plays on"
        return f"Ready: {ration.sentence()}" if ration is not None else "Ready"

    def _trouble(self) -> str:
        viewer = self._viewer
        if viewer.trust.keyring is None:
            return "Waiting for the origin's keys: nobody reachable has them yet"
        if not viewer.replica.checkpoint():
            return "Waiting for the catalog: nobody reachable has it yet"
        if shutil.disk_usage(viewer.box.home.path).free < SPARE_BYTES // 2:
            return "The disk is full: what is here plays, and nothing new is kept"
        if not viewer.courier.reachable and viewer.courier.allowed:
            return self._offline()
        return f"Plays, but nothing is counted: {why}" if (why := self._uncounted()) else ""

    def _offline(self) -> str:
        standing = self._viewer.dish.standing if self._viewer.dish else None
        why = (standing.trouble if standing else "") or "no relay or origin answers"
        return f"Offline: {why}; neighbours and the satellite still serve"

    def _uncounted(self) -> str:
        """Say why viewing does not count; empty where it does."""
        viewer = self._viewer
        if viewer.wallet.ended:
            return "this account has been revoked; ask the origin why"
        return "" if viewer.tickets else viewer.no_ticket

    def _waits(self) -> str:
        """Say how much viewing waits for an uplink and since when; empty where it is on its way."""
        waiting = self._viewer.box.spool.waiting(own=True)
        minutes = waiting.viewed_ms // 60_000
        if not minutes or self._viewer.courier.reachable:
            return ""
        since = datetime.fromtimestamp(waiting.oldest_ms / 1_000, UTC).astimezone()
        what = "1 minute of viewing waits" if minutes == 1 else f"{minutes} minutes of viewing wait"
        return f"{what} for an uplink, the first since {since:%a %H:%M}"

    async def _get_status(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.status))

    async def _get_titles(self, exchange: Exchange) -> Answer:
        query = exchange.query.get("q", "")
        return Answer.json(await asyncio.to_thread(lambda: self.titles(self.find(query))))

    async def _get_title(self, exchange: Exchange) -> Answer:
        title, base = exchange.match["title"], self._viewer.box.local_url
        lan = self._viewer.household.url
        self._viewer.library.entry(title)
        return Answer.json(
            {
                "title": title,
                "locked": await self._viewer.unlocker.locked(title),
                "watch_hls": f"{base}/watch/{title}/master.m3u8",
                "watch_dash": f"{base}/watch/{title}/manifest.mpd",
                "watch_tv": f"{base}/watch/{title}/tv.m3u8",
                "watch_file": f"{base}/watch/{title}/film.mp4",
                "lan": f"{lan}/watch/{title}/film.mp4" if lan else None,
                "player": f"{base}/play/{title}",
                "cmcd": f"{base}/v1/cmcd",
                "tier_in_use": self._viewer.fetcher.status()["tier_in_use"],
            }
        )

    async def _keep(self, exchange: Exchange) -> Answer:
        title = exchange.match["title"]
        kept = await self.keep(title)
        return Answer.json({**kept._asdict(), "locked": await self._viewer.unlocker.locked(title)})

    async def _kept(self, exchange: Exchange) -> Answer:
        title = exchange.match["title"]
        kept = await self._viewer.keeper.progress(title)
        return Answer.json({**kept._asdict(), "locked": await self._viewer.unlocker.locked(title)})

    async def _drop(self, exchange: Exchange) -> Answer:
        return Answer.json((await self.drop(exchange.match["title"]))._asdict())

    async def _direct(self, exchange: Exchange) -> Answer:
        self._viewer.courier.allowed = await _switch(exchange)
        self._viewer.box.wake("courier")
        return Answer.json({"direct": self._viewer.courier.allowed})

    async def _get_pulses(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(lambda: {**self.pulses(), "sessions": self.sessions()}))

    async def _get_acks(self, exchange: Exchange) -> Answer:
        """``GET /api/pulses/acks?from=``: the origin's acks of this box's own pulses, some at a time."""
        start = exchange.query.get("from", "0")
        if not start.isdecimal():
            raise RefusedError("from is the number of acks read so far", status=400, reason="bad_arguments")
        acks = await asyncio.to_thread(self._viewer.box.spool.proofs)
        ends = list(accumulate(len(ack) for ack in acks[int(start) :]))
        count = max(1, sum(end <= ACKS_BYTES for end in ends))
        some = acks[int(start) : int(start) + count]
        return Answer.json({"count": len(acks), "acks": [b64encode(ack).decode() for ack in some]})

    async def _switch_pulses(self, exchange: Exchange) -> Answer:
        await self.switch_pulses(on=await _switch(exchange))
        return Answer.json(await asyncio.to_thread(self.pulses))

    async def _get_sent(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.sent))

    async def _get_live(self, exchange: Exchange) -> Answer:
        title = exchange.match["title"]
        self._viewer.library.entry(title)
        return Answer.json(self.live(title, exchange.query.get("sid", "")))

    async def _get_bookmarks(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.begun))

    async def _bookmark(self, exchange: Exchange) -> Answer:
        try:
            place = msgspec.json.decode(await exchange.read(ADMIN_LIMIT_BYTES), type=Place)
        except msgspec.MsgspecError:
            message = 'say {"position_ms": 61000}: where playback is, in milliseconds'
            raise RefusedError(message, status=400, reason="bad_arguments") from None
        await asyncio.to_thread(self.bookmark, exchange.match["title"], place.position_ms)
        return Answer(204)

    async def _forget_bookmark(self, exchange: Exchange) -> Answer:
        await asyncio.to_thread(self.forget, exchange.match["title"])
        return Answer(204)

    async def _clear_bookmarks(self, exchange: Exchange) -> Answer:
        del exchange
        await asyncio.to_thread(self.forget)
        return Answer(204)


def _track(manifest: Manifest, kind: str) -> str:
    return next((one.path for one in manifest.tracks if one.kind == kind), "")


async def _switch(exchange: Exchange) -> bool:
    """Read the switch of an admin call; raises ``RefusedError`` 400."""
    try:
        return msgspec.json.decode(await exchange.read(ADMIN_LIMIT_BYTES), type=Switch).on
    except msgspec.MsgspecError:
        raise RefusedError('say {"on": true} or {"on": false}', status=400, reason="bad_arguments") from None
