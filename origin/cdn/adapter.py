"""What an adapter to a CDN's API is: the requests of a purge, the reading of answers, the signing of URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from .zone import Zone

DONE = frozenset({200, 201, 202, 204})


class Call(NamedTuple):
    """One request to a CDN's API, without its key; ``covers`` are the paths it purges, none for a tag."""

    method: str
    url: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    covers: tuple[str, ...] = ()


class Adapter(Protocol):
    """One zone at one CDN. Pure: it says what to ask, and what an answer means.

    ``tag_header`` is the response header in which the CDN takes tags, empty where it takes none;
    ``at_once`` how many calls may be under way together.
    """

    zone: Zone
    tag_header: str
    at_once: int

    def calls(self, paths: Sequence[str], tag: str) -> list[Call]:
        """Return the requests that purge ``paths`` below the zone's base, and all that carries ``tag``."""
        ...

    def credentials(self, key: str) -> dict[str, str]:
        """Return the header fields that prove who asks."""
        ...

    def trouble(self, status: int, body: bytes) -> str:
        """Say in a few words why an answer is no success; empty where it is one."""
        ...

    def signed(self, key: str, issued_s: int) -> str:
        """Return the zone's base URL with a token good for ``token_s`` from ``issued_s``."""
        ...


class Generic:
    """Any cache that takes ``PURGE URL`` (nginx with a purge module, Varnish, Squid) or cannot be told.

    There is no standard for it; the method and its answers are what those caches have in common. The
    request goes to ``api`` and names the host viewers ask for, because that is what the cache keys on.
    """

    tag_header = ""
    at_once = 16

    _ABSENT = frozenset({404, 410, 412})
    """It was not cached: 412 is what some nginx purge modules say."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def calls(self, paths: Sequence[str], tag: str) -> list[Call]:
        """Ask for each URL; tags are unknown to it."""
        del tag
        prefix = self.zone.api + urlsplit(self.zone.base).path
        host = (("host", self.zone.name),)
        return [Call("PURGE", prefix + path, headers=host, covers=(path,)) for path in paths]

    def credentials(self, key: str) -> dict[str, str]:
        """Prove it by a bearer token (RFC 6750) where a key is given."""
        return {"authorization": f"Bearer {key}"}

    def trouble(self, status: int, body: bytes) -> str:
        """Read the status alone."""
        del body
        if status in DONE | self._ABSENT:
            return ""
        return "it does not take PURGE" if status in (405, 501) else f"it answered {status}"

    def signed(self, key: str, issued_s: int) -> str:
        """Return the base as it is: there is nothing to sign for."""
        del key, issued_s
        return self.zone.base


def escaped(url: str) -> str:
    """Return ``url`` as a query parameter's value."""
    return quote(url, safe="")
