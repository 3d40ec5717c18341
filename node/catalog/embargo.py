"""The embargo: stands before every answer of blocks and files, and refuses what may not be served.

Two things say so: the catalog's deny entries (``takedown.py``) and the operator's deny files. A
block that was taken down with one title is served all the same where a listed title reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter

from ...protocol.cid import Cid
from ...protocol.errors import FarcastError, RefusedError, RemoteError
from ..http.exchange import Answer, Body, Exchange, Handler, Router
from ..http.head import Head
from .denyfiles import DenyFiles
from .library import Library
from .takedown import Takedown

VERDICTS_KEPT = 8_192

Lookup = Callable[[Head], Answer | None]
Lives = Callable[[Cid, str | None], Awaitable[bool]]
"""Says whether a listed title (the hinted one first) reaches a block."""


class Embargo:
    """Wraps the handlers and look-ups of a box's public answers."""

    def __init__(
        self, library: Library, takedown: Takedown, files: DenyFiles, registry: CollectorRegistry
    ) -> None:
        self.lives: Lives = _as_far_as_known
        self._library = library
        self._takedown = takedown
        self._files = files
        self._verdicts: dict[str, bool] = {}
        self._made_for: tuple[int, int, int] = (0, 0, 0)
        self._refused = Counter(
            "farcast_node_embargoed_answers",
            "Answers refused by a takedown or a deny file.",
            ["by"],
            registry=registry,
        )
        for by in ("catalog", "file"):
            self._refused.labels(by)

    def load(self) -> None:
        """Learn what was taken down before this start, and since. Blocking."""
        self._takedown.load()
        self._takedown.enforce()

    async def look(self) -> None:
        """Read again deny files that have changed."""
        await asyncio.to_thread(self._files.refresh)

    async def sweep(self) -> None:
        """Drop what was taken down and came back by a way that asks nobody."""
        await asyncio.to_thread(self._takedown.sweep)

    def add_to(self, router: Router, block: Handler, watch: Handler) -> None:
        """Put the embargo before the routes of blocks and files that ``router`` has."""
        router.route("GET", "/ipfs/{cid}", self.guard(block))
        router.route("GET", "/ipfs/{cid}/{path...}", self.guard(block))
        router.route("GET", "/watch/{title}/{path...}", self.guard(watch))

    def epoch(self) -> tuple[int, int, int]:
        """Return what every verdict was made from: it differs once one may be untrue."""
        return self._takedown.version, self._files.version, self._library.entries

    def lookup(self, inner: Lookup) -> Lookup:
        """Keep a fast path from what needs a second look; its handler then refuses it."""

        def look(head: Head) -> Answer | None:
            if (self._takedown.count or self._files.lists) and self._doubtful(head.path):
                return None
            return inner(head)

        return look

    def guard(self, inner: Handler) -> Handler:
        """Refuse before ``inner`` what can be told before, and after it what its plan shows."""

        async def handle(exchange: Exchange) -> Answer:
            if not self._takedown.count and not self._files.lists:
                return await inner(exchange)
            cid, title, path = _asked(exchange)
            if cid is not None:
                await self._check_block(cid, path, exchange.headers.get("farcast-title"))
                return await inner(exchange)
            self._check_file(title, path)
            answer = await inner(exchange)
            try:
                self._check_file(title, path)
            except RefusedError:
                await _let_go(answer.body)
                raise
            return answer

        return handle

    def denies(self, cid: Cid) -> bool:
        """Say whether a deny file names a block; one that was taken down is not here to be asked about."""
        return self._files.denies(cid)

    def bars(self, cid: Cid, title: str) -> bool:
        """Say whether a block fetched for ``title`` may not be kept."""
        if self._files.denies(cid):
            return True
        return cid in self._takedown and not self._library.lists(title)

    async def _check_block(self, cid: Cid, path: str, title: str | None) -> None:
        if self._files.denies(cid, path) or (path and self._files.denies(cid)):
            self._refuse("file", f"/ipfs/{cid}")
        if cid in self._takedown and not await self.lives(cid, title):
            self._refuse("catalog", f"/ipfs/{cid}")

    def _check_file(self, title: str, path: str) -> None:
        if self._files.lists and self._denies_file(title, path):
            self._refuse("file", f"{path} of {title}")

    def _denies_file(self, title: str, path: str) -> bool | None:
        """Say whether a deny file names a title's file or a part of it; None while the parts are unknown."""
        with suppress(FarcastError):
            if self._files.denies(self._library.manifest(title).root_cid, path):
                return True
        plan = self._library.planned(title, path)
        if plan is None:
            return None
        return self._files.denies(Cid.parse(plan.etag.strip('"'))) or any(
            self._files.denies(leaf.cid) for leaf in plan.leaves
        )

    def _doubtful(self, path: str) -> bool:
        if self._made_for != self.epoch():
            self._made_for = self.epoch()
            self._verdicts.clear()
        known = self._verdicts.get(path)
        if known is None:
            found = self._look_closely(path)
            if found is None:  # its first answer shows its parts, and then there is a verdict
                return False
            if len(self._verdicts) >= VERDICTS_KEPT:
                self._verdicts.clear()
            known = self._verdicts[path] = found
        return known

    def _look_closely(self, path: str) -> bool | None:
        kind, _, rest = path[1:].partition("/")
        name, _, below = rest.partition("/")
        if kind == "watch":
            return self._denies_file(name, below) if self._files.lists else False
        if kind != "ipfs":
            return False
        try:
            cid = Cid.parse(name)
        except RemoteError:
            return False
        return cid in self._takedown or self._files.denies(cid, below)

    def _refuse(self, by: str, what: str) -> None:
        self._refused.labels(by).inc()
        reason = "taken_down" if by == "catalog" else "denied"
        raise RefusedError(f"{what} was taken down", status=410, reason=reason)


async def _let_go(body: Body) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(body, "aclose", None)
    if close is not None:
        await close()


async def _as_far_as_known(cid: Cid, title: str | None) -> bool:
    del cid, title
    return False  # what the folders here tell of listed titles, the takedown has spared already


def _asked(exchange: Exchange) -> tuple[Cid | None, str, str]:
    """Return what an exchange is about: a block, or a title; and the path below it."""
    path = "/".join(part for part in exchange.match.get("path", "").split("/") if part)
    if "cid" not in exchange.match:
        return None, exchange.match["title"], path
    return Cid.parse(exchange.match["cid"]), "", path
