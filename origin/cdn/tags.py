"""Cache tags: which titles an answer belongs to, told to CDNs that can purge by it.

A block says nothing of its title, so the blocks of listed titles are remembered by the first bytes of
their digests, the newest titles first; what lies beyond is purged by its URL alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from ...node.catalog.library import Fetch, Library
from ...node.http.exchange import Answer, Exchange, Handler
from ...node.http.head import Head
from ...protocol.cid import Cid
from ...protocol.errors import FarcastError, RemoteError
from .edges import tag_of

BLOCKS_LIMIT = 262_144
"""Blocks remembered: 256 GiB of films in about 30 MB."""
TITLES_PER_ANSWER = 8
"""A block of more titles than this names no tag, and keeps its head short; its URL is purged with each."""
_PREFIX_BYTES = 8
_OK, _PARTIAL = 200, 206

Lookup = Callable[[Head], Answer | None]


class Tags:
    """Adds ``headers`` (their lower-case names) to answers of blocks and files; none: nothing is done."""

    def __init__(self, library: Library, fetch: Fetch, headers: Sequence[str]) -> None:
        self._library = library
        self._fetch = fetch
        self._headers = headers
        self._titles: dict[int, tuple[str, ...]] = {}
        self._entries: int = -1
        self.version = 0
        """Grows with every change of what is remembered."""

    async def refresh(self) -> None:
        """Learn what the catalog lists now; a title that cannot be read is left out until it can."""
        if not self._headers or self._library.entries == self._entries:
            return
        entries, library = self._library.entries, self._library
        listed: list[tuple[int, str]] = []
        for title in library.titles():
            with suppress(FarcastError):
                listed.append((library.entry(title).at_ms, title))
        titles: dict[int, tuple[str, ...]] = {}
        for _, title in sorted(listed, reverse=True):
            try:
                manifest = await library.learn(title, self._fetch)
                if len(titles) + (manifest.size_bytes >> 20) > BLOCKS_LIMIT:
                    continue
                blocks = await library.blocks(title, self._fetch)
            except FarcastError:
                continue
            await asyncio.to_thread(_enter, titles, title, blocks)
        self._titles, self._entries = titles, entries
        self.version += 1

    def handler(self, inner: Handler) -> Handler:
        """Tag what ``inner`` answers."""
        if not self._headers:
            return inner

        async def handle(exchange: Exchange) -> Answer:
            return self._tagged(exchange.path, await inner(exchange))

        return handle

    def lookup(self, inner: Lookup) -> Lookup:
        """Tag what the fast path answers."""
        if not self._headers:
            return inner

        def look(head: Head) -> Answer | None:
            answer = inner(head)
            return None if answer is None else self._tagged(head.path, answer)

        return look

    def of(self, path: str) -> tuple[str, ...]:
        """Return the titles that what lies at ``path`` belongs to, as far as is known."""
        kind, _, rest = path[1:].partition("/")
        name = rest.partition("/")[0]
        if kind == "watch":
            return (name,)
        try:
            return self._titles.get(_number(Cid.parse(name)), ()) if kind == "ipfs" else ()
        except RemoteError:
            return ()

    def _tagged(self, path: str, answer: Answer) -> Answer:
        titles = self.of(path) if answer.status in (_OK, _PARTIAL) else ()
        if not 0 < len(titles) <= TITLES_PER_ANSWER:
            return answer
        value = ",".join(map(tag_of, titles))
        return Answer(answer.status, answer.headers | dict.fromkeys(self._headers, value), answer.body)


def _enter(titles: dict[int, tuple[str, ...]], title: str, blocks: Iterable[Cid]) -> None:
    alone = (title,)
    for cid in blocks:
        number = _number(cid)
        known = titles.get(number)
        titles[number] = alone if known is None else (*known, title)


def _number(cid: Cid) -> int:
    return int.from_bytes(cid.digest[:_PREFIX_BYTES])
