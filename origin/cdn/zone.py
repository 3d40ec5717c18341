"""A pull zone as a line of ``[cdn] zones`` names it: whose it is, and where the keys to it lie.

The line holds no secret: ``key`` and ``token`` are names of files or, with a ``$``, of variables.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ...protocol.errors import UsageError

Kind = Literal["generic", "bunny", "cloudflare"]

APIS: dict[Kind, str] = {
    "generic": "",
    "bunny": "https://api.bunny.net",
    "cloudflare": "https://api.cloudflare.com/client/v4",
}
TOKEN_S = 86_400
TOKEN_LEAST_S, TOKEN_MOST_S = 14_400, 2_592_000
"""Boxes look for newer keys hourly, and half of a token's life is left when the next one comes."""

_WORDS: dict[Kind, frozenset[str]] = {
    "generic": frozenset({"kind", "key", "api"}),
    "bunny": frozenset({"kind", "zone", "key", "token", "token_s", "api"}),
    "cloudflare": frozenset({"kind", "zone", "key", "token", "token_s", "api"}),
}
_IDS = {"bunny": re.compile("[1-9][0-9]{0,17}"), "cloudflare": re.compile("[0-9a-f]{32}")}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TOKEN_SEGMENT = re.compile("/bcdn_token=[^/]*")


class Zone(NamedTuple):
    """One pull zone.

    ``base`` is its URL as announced; ``zone`` what its CDN calls it; ``key`` and ``token`` say where the
    API's key and the key that signs tokens are; ``api`` is where purges are sent, empty where nowhere.
    """

    base: str
    kind: Kind = "generic"
    zone: str = ""
    key: str = ""
    token: str = ""
    token_s: int = TOKEN_S
    api: str = ""

    @property
    def name(self) -> str:
        """Its host, for metrics and sentences."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    @property
    def path(self) -> str:
        """The path of its base URL, ending in a slash."""
        return f"{urlsplit(self.base).path}/"

    @property
    def purges(self) -> bool:
        """Whether it can be told to let go of something."""
        return bool(self.api if self.kind == "generic" else self.key)


def parse_zone(line: str) -> Zone:
    """Read a line of ``[cdn] zones``: a base URL, then ``word=value`` in any order.

    Raises:
        UsageError: naming the zone, the word and the reason.

    """
    base, *rest = line.split()
    base = bare(base)
    words: dict[str, str] = {}
    for word in rest:
        name, equals, value = word.partition("=")
        if not equals or not value or name in words:
            raise _wrong(base, f"{word!r} is no word=value, or stands there twice")
        words[name] = value
    kind = words.get("kind", "generic")
    if kind not in APIS:
        raise _wrong(base, f"kind={kind} is none of {', '.join(APIS)}")
    if strange := words.keys() - _WORDS[kind]:
        raise _wrong(base, f"a {kind} zone takes no {', '.join(sorted(strange))}")
    zone = Zone(
        base,
        kind,
        words.get("zone", ""),
        words.get("key", ""),
        words.get("token", ""),
        _life_s(base, words.get("token_s", str(TOKEN_S))),
        words.get("api", APIS[kind]).rstrip("/"),
    )
    _check(zone)
    return zone


def bare(base: str) -> str:
    """Return an announced base URL without its token and without a slash at its end."""
    return _TOKEN_SEGMENT.sub("", base.partition("?")[0]).rstrip("/")


def _check(zone: Zone) -> None:
    form = _IDS.get(zone.kind)
    if form is not None and zone.zone and not form.fullmatch(zone.zone):
        what = "a number" if zone.kind == "bunny" else "32 hex digits"
        raise _wrong(zone.base, f"zone={zone.zone} is not {what}")
    if zone.kind == "cloudflare" and bool(zone.key) != bool(zone.zone):
        raise _wrong(zone.base, "purging at Cloudflare takes both zone= and key=")
    if zone.kind == "bunny" and zone.zone and not zone.key:
        raise _wrong(zone.base, "purging at Bunny takes key=; zone= adds purging by tag")
    if zone.api:
        parts = urlsplit(zone.api)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise _wrong(zone.base, f"api={zone.api} is no http or https URL")
        if zone.key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise _wrong(zone.base, f"the key would cross the network in the clear to {zone.api}; use https")


def _life_s(base: str, text: str) -> int:
    life_s = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(10**9)) else 0
    if not TOKEN_LEAST_S <= life_s <= TOKEN_MOST_S:
        raise _wrong(base, f"token_s={text} is not from {TOKEN_LEAST_S} to {TOKEN_MOST_S}")
    return life_s


def _wrong(base: str, why: str) -> UsageError:
    return UsageError(f"[cdn] zones: {base}: {why}; mend it in settings.toml", reason="settings")
