"""A withdrawal: how long each tier takes to let go of a title, asked of every tier itself."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from ..node.catalog.replica import catalog_name
from ..node.http.dial import HttpDialer
from ..node.ladder.tiers import relay_sources
from ..node.report import Report
from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, RemoteError
from ..protocol.keyring import Keyring
from ..protocol.note import open_note
from ..protocol.ports import Source, TierName
from .cdn.edges import Edges
from .cdn.paths import block_path
from .cdn.zone import bare
from .roster import Relay

WAIT_S = 30.0
PURGE_S = 240.0
"""What the calls of one purge may take; a command hears nothing for at most ``SILENCE_S`` (admin.py)."""
PAUSE_S = 0.5
REQUEST_S = 5.0
AT_ONCE = 16
RELAYS_ASKED = 1_000

_OK, _NOT_FOUND, _GONE = 200, 404, 410
_MAX_AGE = re.compile(r"(?:^|[\s,])(s-maxage|max-age)=\"?([0-9]{1,10})")


class Row(NamedTuple):
    """One tier: who, how it stands, after how many seconds (None while it does not), and until when else."""

    tier: str
    name: str
    state: str
    seconds: float | None
    until: str

    failed: bool = False
    """Whether it was told to let go and has not."""

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: value for name, value in self._asdict().items() if name != "failed"}


class Withdrawal:
    """Follows one action (retire, deny, purge) on a title through relays and CDN."""

    def __init__(
        self,
        title: str,
        roots: Sequence[Cid],
        entries: int,
        keyring: Keyring,
        edges: Edges,
        *,
        bytes_leave: bool,
        allow_private: bool,
    ) -> None:
        """Wait for catalogs of at least ``entries``; with ``bytes_leave`` for ``roots`` to be refused too.

        Then ``edges`` purge those pull zones of ``keyring`` that they know how to.
        """
        self._title = title
        self._roots = roots
        self._entries = entries
        self._keyring = keyring
        self._edges = edges
        self._bytes_leave = bytes_leave
        self._allow_private = allow_private
        self._began = time.monotonic()

    def since_s(self) -> float:
        """Return the seconds since this was begun."""
        return round(time.monotonic() - self._began, 2)

    def follow(self, relays: Sequence[Relay], report: Report, *, wait_s: float = WAIT_S) -> list[Row]:
        """Purge pull zones, and ask relays and zones until they have let go. Blocking.

        A relay is asked for ``wait_s`` at most, and so is a zone once it was purged; any other zone once.
        """
        return asyncio.run(self._follow(relays[:RELAYS_ASKED], report, wait_s))

    async def _follow(self, relays: Sequence[Relay], report: Report, wait_s: float) -> list[Row]:
        gate, done = asyncio.Semaphore(AT_ONCE), 0
        end = self._began + wait_s

        async def one(relay: Relay, dialer: HttpDialer) -> Row:
            nonlocal done
            row = await self._relay(relay, dialer, gate, end)
            done += 1
            report("relays", done, len(relays))
            return row

        async with HttpDialer(allow_private=self._allow_private) as dialer:
            zones = [self._zone(base, dialer, report, wait_s) for base in self._keyring.cdn]
            return list(await asyncio.gather(*(one(relay, dialer) for relay in relays), *zones))

    async def _relay(self, relay: Relay, dialer: HttpDialer, gate: asyncio.Semaphore, end: float) -> Row:
        state = "not asked"
        sources = relay_sources([relay.record], 0)
        if not sources:  # it has web endpoints alone, which prove no key
            return Row("relay", relay.peer_id, state, None, "")
        while True:
            async with gate:
                state = await self._ask_relay(sources[0], dialer)
            if state in ("gone", "knows"):
                return Row("relay", relay.peer_id, state, self.since_s(), "")
            if time.monotonic() + PAUSE_S > end:
                return Row("relay", relay.peer_id, state, None, "")
            await asyncio.sleep(PAUSE_S)

    async def _ask_relay(self, source: Source, dialer: HttpDialer) -> str:
        """Return ``gone``, ``knows`` (its catalog has the entry), ``serves``, ``old catalog`` or why not."""
        try:
            note = await dialer.request(source, "GET", "/v1/catalog/checkpoint", timeout_s=REQUEST_S)
            if note.status != _OK:
                return f"answered {note.status}"
            if self._size(note.body) < self._entries:
                return "old catalog"
            if not self._bytes_leave:
                return "knows"
            for root in self._roots:
                reply = await dialer.request(source, "HEAD", block_path(root), timeout_s=REQUEST_S)
                if reply.status not in (_NOT_FOUND, _GONE):
                    return "serves"
        except FarcastError as error:
            return error.reason
        return "gone"

    def _size(self, note: bytes) -> int:
        name, failure = catalog_name(self._keyring), RemoteError("no catalog key", reason="no_key")
        for key in self._keyring.catalog:
            try:
                return open_note(note, name, key).size
            except RemoteError as error:
                failure = error
        raise failure

    async def _zone(self, base: str, dialer: HttpDialer, report: Report, wait_s: float) -> Row:
        """Purge a pull zone if it can be told to; ask what it still has; else only time takes it away."""
        name = bare(base)
        told = self._bytes_leave and self._edges.purges(base)
        if not told:
            state, until = await self._ask_zone(base, dialer)
            return Row("cdn", name, state, self.since_s() if state == "gone" else None, until)
        async with HttpDialer(allow_private=True) as api:  # an address of this origin's own settings
            swept = await self._edges.purge(
                self._title,
                base,
                api,
                end=asyncio.get_running_loop().time() + PURGE_S,
                progress=lambda done, total: report(f"purge {name}", done, total),
            )
        end = time.monotonic() + wait_s
        state, until = await self._ask_zone(base, dialer)
        if swept.trouble:
            return Row("cdn", name, f"not purged: {swept.trouble}", None, until, failed=True)
        while state == "cached" and time.monotonic() + PAUSE_S < end:
            await asyncio.sleep(PAUSE_S)
            state, until = await self._ask_zone(base, dialer)
        seconds = self.since_s() if state == "gone" else None
        return Row("cdn", name, state, seconds, until, failed=state == "cached")

    async def _ask_zone(self, base: str, dialer: HttpDialer) -> tuple[str, str]:
        """Return what a pull zone still has of the title, and until when by its own headers."""
        source = Source(TierName.CDN, base, base)
        paths = [f"/watch/{self._title}/master.m3u8", *(block_path(root) for root in self._roots)]
        until, states = "", set[str]()
        for path in paths:
            try:
                reply = await dialer.request(source, "HEAD", path, timeout_s=REQUEST_S)
            except FarcastError as error:
                states.add(error.reason)
                continue
            if reply.status != _OK:
                states.add("gone" if reply.status in (_NOT_FOUND, _GONE) else f"answered {reply.status}")
                continue
            states.add("cached")
            until = max(until, cached_until(reply.headers, datetime.now(UTC)))
        return "cached" if "cached" in states else " and ".join(sorted(states)), until


def cached_until(headers: dict[str, str], now: datetime) -> str:
    """Say until when a cache may keep an answer (RFC 9111 section 4.2), empty where it does not say."""
    ages = dict(_MAX_AGE.findall(headers.get("cache-control", "").lower()))
    lifetime = ages.get("s-maxage", ages.get("max-age"))  # a shared cache goes by its own
    if lifetime is not None:
        age = headers.get("age", "0").strip()
        left_s = int(lifetime) - (int(age) if age.isascii() and age.isdigit() else 0)
        return _moment(now.timestamp() + max(0, left_s))
    try:
        return _moment(parsedate_to_datetime(headers["expires"]).timestamp())
    except (KeyError, ValueError, TypeError):
        return ""


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
