"""The invite link: where an origin is, the hash of its root of trust, and perhaps a one-time token.

``farcast://HOST:PORT/join?root=<sha256 hex of root.json>&token=<token>&kind=viewer|relay``
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from .errors import RemoteError, UsageError

LINK_LIMIT_CHARS = 1_024
MAX_PORT = 65_535
Kind = Literal["viewer", "relay"]

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PRINTABLE = re.compile(r"[!-~]+", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)


class Invite(NamedTuple):
    """What a link says; ``root`` is the SHA-256 of ``root.json`` in hex, ``token`` may be empty."""

    host: str
    port: int
    root: str
    token: str
    kind: Kind

    @property
    def address(self) -> str:
        """Where to dial: ``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def format_invite(invite: Invite) -> str:
    """Write ``invite`` as a link.

    Raises:
        UsageError: where a part is not what a link can carry.

    """
    query = {"root": invite.root, "token": invite.token, "kind": invite.kind}
    link = f"farcast://{invite.address}/join?" + urlencode({key: text for key, text in query.items() if text})
    try:
        parse_invite(link)
    except RemoteError as error:
        raise UsageError(f"no invite can be made for {invite.address}: {error}") from error
    return link


def parse_invite(link: str) -> Invite:
    """Read a link as somebody pasted it.

    Raises:
        RemoteError: ``bad_invite``, naming the part that is wrong.

    """
    parts, port, pairs = _split(link.strip())
    host = parts.hostname or ""
    query = dict(pairs)
    if len(query) != len(pairs):
        raise _bad("a part is given twice")
    if not _HOST.fullmatch(host) or not 1 <= port <= MAX_PORT:
        raise _bad("it names no HOST:PORT")
    if parts.path != "/join" or parts.username is not None or parts.fragment:
        raise _bad("only /join may follow the address")
    if query.keys() - {"root", "token", "kind"}:
        raise _bad("it has a part this version does not know")
    root, token, word = query.get("root", ""), query.get("token", ""), query.get("kind", "viewer")
    if not _HASH.fullmatch(root):
        raise _bad("root= is not the SHA-256 of a root.json in hex")
    if token and not _TOKEN.fullmatch(token):
        raise _bad("token= is not a token")
    if word not in ("viewer", "relay"):
        raise _bad("kind= is neither viewer nor relay")
    kind: Kind = "relay" if word == "relay" else "viewer"
    return Invite(host, port, root, token, kind)


def _split(text: str) -> tuple[SplitResult, int, list[tuple[str, str]]]:
    """Part a link into what ``urlsplit`` reads, its port and its query; raises ``RemoteError``."""
    if len(text) > LINK_LIMIT_CHARS or not text.startswith("farcast://"):
        raise _bad("it must start with farcast:// and stay below 1,024 characters")
    if not _PRINTABLE.fullmatch(text):
        raise _bad("it holds a space or a character that no link has")
    try:
        parts = urlsplit(text)
        pairs = parse_qsl(parts.query, strict_parsing=True, max_num_fields=8)
        port = parts.port or 0
    except ValueError as error:
        raise _bad("its address or its query cannot be read") from error
    if "[" in parts.netloc and not parts.netloc.startswith("["):
        raise _bad("it names no HOST:PORT")
    return parts, port, pairs


def _bad(why: str) -> RemoteError:
    return RemoteError(f"this is no invite link: {why}; ask the origin for a new one", reason="bad_invite")
