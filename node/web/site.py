"""A box's web site for players without a node: steering and the web player, wired to its library."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from ...protocol.cid import Cid
from ...protocol.directory import RelayRecord
from ...protocol.errors import RefusedError, RemoteError
from ...protocol.keyring import Keyring
from ...protocol.manifest import Manifest
from ...protocol.unixfs import content
from ..box import Box, clock_ms
from ..catalog.library import Library
from ..http.exchange import Handler
from ..ladder.tiers import address
from ..steering.health import LOOK_S, PathwayHealth
from ..steering.pathway import TURNS, Site
from ..steering.routes import Map, Steering
from . import Titles, WebPlayer

Fetch = Callable[[Cid, str | None], Awaitable[bytes]]
_HTTPS_PORT = ":443"
_PORT = re.compile(r":[0-9]+\Z")


class WebSite:
    """Adds ``/web/`` and ``/v1/steering/`` to a box's public router; made before the box runs."""

    def __init__(
        self,
        box: Box,
        library: Library,
        fetch: Fetch,
        keyring: Callable[[], Keyring | None],
        records: Callable[[], Sequence[RelayRecord]],
        *,
        is_origin: bool,
    ) -> None:
        """``fetch`` returns a block for a title; ``records`` the relays of the directory."""
        self._library = library
        self._store = box.store
        self._fetch = fetch
        self._box = box
        self._keyring = keyring if is_origin else lambda: None
        where = Map(Site(box.identity.key, is_origin), keyring, records, self._web_names, clock_ms)
        self._health = PathwayHealth(box.dialer, time.monotonic, box.registry)
        self._steering = Steering(self.read, where, self._health, _draw, box.registry)
        titles = Titles(library.titles, library.entry, library.manifest, self._learn)
        self._player = WebPlayer(titles, where, _draw, lambda: _name(keyring()), accounts=is_origin)
        box.every("pathways", LOOK_S, self._health.look)

    def add_routes(self, guard: Callable[[Handler], Handler]) -> None:
        """Add the routes; ``guard`` refuses what was taken down."""
        self._steering.add_to(self._box.public, guard)
        self._player.add_to(self._box.public, guard)

    async def read(self, title: str, path: str, limit_bytes: int) -> bytes:
        """Return a small file of a title from verified blocks.

        Raises:
            RefusedError: 404 for an unknown title or file, 502 past ``limit_bytes``; what the fetch raises.

        """
        try:
            plan = await self._library.plan(title, path, lambda cid: self._fetch(cid, title))
        except RefusedError:
            raise
        except RemoteError as error:
            if error.reason not in ("not_found", "not_a_file"):
                raise
            message = f"no file {path!r} in {title!r}"
            raise RefusedError(message, status=404, reason="unknown_file") from error
        if plan.size > limit_bytes:
            message = f"{path} of {title} is larger than any playlist"
            raise RefusedError(message, status=502, reason="bad_playlist")
        parts: list[bytes] = []
        for leaf in plan.leaves:
            data = await asyncio.to_thread(self._store.get, leaf.cid) or await self._fetch(leaf.cid, title)
            parts.append(content(leaf, data))
        return b"".join(parts)

    async def _learn(self, title: str) -> Manifest:
        return await self._library.learn(title, lambda cid: self._fetch(cid, title))

    def _web_names(self) -> frozenset[str]:
        """Return the Host values of this box's web endpoints; an origin's may be announced, not set."""
        keyring = self._keyring()
        known = [f"https://{address(one)}" for one in keyring.endpoints if one.web] if keyring else []
        return web_names([*self._box.settings.network.announce, *known])


def web_names(announced: Sequence[str]) -> frozenset[str]:
    """Return the Host values of a box's ``web`` endpoints: what a browser sends that came over https.

    Without the port too: front proxies may leave it out.
    """
    names = [text.removeprefix("https://").lower() for text in announced if text.startswith("https://")]
    return frozenset(name for text in names for name in (text.removesuffix(_HTTPS_PORT), _PORT.sub("", text)))


def _name(keyring: Keyring | None) -> str:
    return keyring.name if keyring is not None else "Farcast"


def _draw() -> int:
    return secrets.randbelow(TURNS)
