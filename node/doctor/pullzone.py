"""Pull zones as a box sees them: whether each answers, with the right bytes, and whether it caches."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...protocol.errors import RemoteError
from ...protocol.ports import Reply, Source
from ..http.dial import HttpDialer
from ..ladder.tiers import pull_zones
from .finding import Finding, bad, ok, warning
from .patient import Patient

CHECKPOINT_PATH = "/v1/catalog/checkpoint"
ASK_S = 1.8
SECOND_AFTER_S = 1.1
"""So long after the first request a cached answer has an Age of at least one second."""
ANSWER_LIMIT_BYTES = 2 << 20
_OK = 200
_HIT = re.compile(r"\b(tcp_)?(mem_|refresh_)?(hit|stale|updating|revalidated)\b", re.IGNORECASE)
_MISS = re.compile(r"\b(tcp_)?(miss|bypass|expired|dynamic|pass|uri-miss)\b", re.IGNORECASE)
_WORDS = ("cache-status", "cf-cache-status", "cdn-cache", "x-cache-status", "x-cache", "x-proxy-cache")
"""What caches say of an answer, the standard field first (RFC 9211)."""


class Look(NamedTuple):
    """What two requests told of a zone: its ``trouble``, empty for none, and whether it caches.

    ``caches`` is ``yes``, ``no``, or ``unknown`` where no header tells.
    """

    name: str
    trouble: str
    caches: str


def served_from(headers: Mapping[str, str]) -> str:
    """Say by an answer's headers whether it is from a cache: ``hit``, ``miss``, or empty where none tells.

    Age above 0 (RFC 9111 section 5.1) and Varnish's second number tell as much as any word.
    """
    age = headers.get("age", "").strip()
    if age.isascii() and age.isdigit() and int(age) > 0:
        return "hit"
    for name in _WORDS:
        said = headers.get(name, "")
        if _HIT.search(said):
            return "hit"
        if _MISS.search(said):
            return "miss"
    if "x-varnish" in headers:
        return "hit" if len(headers["x-varnish"].split()) > 1 else "miss"
    return ""


async def look(
    source: Source, dialer: HttpDialer, path: str = CHECKPOINT_PATH, right: Callable[[bytes], bool] = bool
) -> Look:
    """Ask a zone twice for ``path``, whose body ``right`` knows; never raises what Farcast raises."""
    try:
        first = await _ask(source, dialer, path)
        trouble = _trouble(first, right)
        if trouble:
            return Look(source.name, trouble, "unknown")
        if served_from(first.headers) == "hit":
            return Look(source.name, "", "yes")
        await asyncio.sleep(SECOND_AFTER_S)
        second = await _ask(source, dialer, path)
    except RemoteError as error:
        return Look(source.name, str(error), "unknown")
    caches = {"hit": "yes", "miss": "no", "": "unknown"}[served_from(second.headers)]
    return Look(source.name, _trouble(second, right), caches)


async def check_pull_zones(patient: Patient) -> Finding:
    """Say how the origin's pull zones stand, the worst of them first."""
    async with HttpDialer(allow_private=patient.settings.network.allow_private) as dialer:
        looks = await asyncio.gather(*(look(zone, dialer) for zone in pull_zones(patient.keyring)))
    return judged(looks)


def judged(looks: list[Look]) -> Finding:
    """Return the one finding on all zones."""
    troubled = [f"{one.name}: {one.trouble}" for one in looks if one.trouble]
    if troubled:
        tell = bad if len(troubled) == len(looks) else warning
        return tell(
            "cdn",
            "; ".join(troubled),
            "blocks come from relays meanwhile; see to the pull zone's origin, host name and token",
        )
    idle = [one.name for one in looks if one.caches == "no"]
    if idle:
        return warning(
            "cdn",
            f"{', '.join(idle)} answers and keeps nothing",
            "let it cache everything, with the query in its key and the origin's Cache-Control respected",
        )
    return ok("cdn", ", ".join(f"{one.name} answers{_CACHING[one.caches]}" for one in looks))


_CACHING = {"yes": " and caches", "unknown": "; whether it caches it does not say"}


async def _ask(source: Source, dialer: HttpDialer, path: str) -> Reply:
    return await dialer.request(source, "GET", path, limit_bytes=ANSWER_LIMIT_BYTES, timeout_s=ASK_S)


def _trouble(reply: Reply, right: Callable[[bytes], bool]) -> str:
    if reply.status != _OK:
        where = f" to {reply.headers['location'][:80]}" if "location" in reply.headers else ""
        return f"it answered {reply.status}{where}"
    coding = reply.headers.get("content-encoding", "identity")
    if coding != "identity":
        return f"it compresses what it passes on ({coding[:20]}), which boxes do not take"
    return "" if right(reply.body) else "it sends other bytes than the origin has"
