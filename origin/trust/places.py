"""Places: what a person writes of where this origin, its pull zones and other boxes are found."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from ...protocol.directory import Endpoint
from ...protocol.errors import UsageError
from ..cdn.zone import bare

CDN_LIMIT_CHARS = 400


def parse_endpoint(text: str) -> Endpoint:
    """Read ``HOST:PORT``, or ``https://HOST[:PORT]`` for a ``web`` endpoint; raises ``UsageError``."""
    place = text.removeprefix("https://")
    web = place != text
    bare = web and not place.rpartition(":")[2].isdigit()
    host, _, port = (f"{place}:443" if bare else place).rpartition(":")
    try:
        return msgspec.convert([host.strip("[]"), int(port), web], Endpoint)
    except (ValueError, msgspec.ValidationError) as error:
        message = f"{text!r} is no HOST:PORT, like films.example:7433, and no https://HOST"
        raise UsageError(message) from error


def parse_cdn(text: str) -> str:
    """Read a CDN pull zone's base URL; raises ``UsageError``."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        whole = whole and not parts.query and not parts.fragment
    except ValueError:
        whole = False
    whole = whole and bare(text) == text.rstrip("/")  # tokens come from [cdn] zones
    if not whole or not text.isprintable() or len(text) > CDN_LIMIT_CHARS:
        raise UsageError(f"{text!r} is no base URL, like https://cdn.example/films")
    return text
