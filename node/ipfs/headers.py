"""The response headers of the gateway, kept under what IPFS clients take.

Kubo refuses a head above 2 KiB, so what a head may do without is left out where it would grow large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from urllib.parse import quote

from ...protocol.cid import Cid
from .terms import Terms

IMMUTABLE = "public, max-age=29030400, immutable"
HEAD_LIMIT_BYTES = 1_300
"""Of these headers; the carrier adds status, date, length and the like, together at most 1.5 KiB."""
NAME_LIMIT_BYTES = 240
"""A longer file name, counted as it is percent-encoded, is cut."""
_SAFE = "!$&'()*+,;=:@-._~"


def block_headers(cid: Cid, terms: Terms | None = None, *, name: str = "") -> dict[str, str]:
    """Return the headers of one block, sent as raw bytes unless ``terms`` name another form."""
    media_type, ending, form = "application/vnd.ipld.raw", "bin", "raw"
    if terms is not None:
        media_type, ending, form = terms.form.media_type, terms.form.ending, terms.name
    return {
        "content-type": media_type,
        "content-disposition": disposition(name or f"{cid}.{ending}"),
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
        "cache-control": IMMUTABLE,
        "etag": f'"{cid}.{form}"',
    }


def car_headers(root: Cid, path: Sequence[str], terms: Terms, *, name: str = "") -> dict[str, str]:
    """Return the headers of a CAR.

    The Etag is weak where the client said that any order will do: such a CAR promises no bytes.
    """
    dups = "y" if terms.dups else "n"
    tag = f"{terms.scope}-{root}"
    if path:
        tag += "." + sha256("/".join(path).encode()).hexdigest()[:16]
    if terms.span is not None:
        tag += f".{terms.span.first}:{'*' if terms.span.last is None else terms.span.last}"
    weak = "W/" if terms.order == "unk" else ""
    return {
        "content-type": f"application/vnd.ipld.car; version=1; order=dfs; dups={dups}",
        "content-disposition": disposition(name or f"{root}.car"),
        "x-content-type-options": "nosniff",
        "accept-ranges": "none",
        "cache-control": IMMUTABLE,
        "etag": f'{weak}"{tag}.car.{dups}"',
    }


def with_path(
    headers: Mapping[str, str],
    path: Sequence[str],
    roots: Sequence[Cid],
    *,
    named: str = "",
    location: str | None = None,
    here: str = "",
) -> dict[str, str]:
    """Add where the answer was found and under which URL it may be cached, as far as there is room.

    ``roots`` are the CIDs that the segments led to, ``named`` the first as the client wrote it;
    ``here`` is the path of the request, raw, and ``location`` the query that names everything
    negotiated.
    """
    found = dict(headers)
    steps = "".join(f"/{quote(segment, safe=_SAFE)}" for segment in path)
    _add(found, "x-ipfs-roots", ",".join(map(str, roots)))
    _add(found, "x-ipfs-path", f"/ipfs/{named or roots[0]}{steps}")
    if location is not None:
        found["vary"] = "accept"
        found["cdn-cache-control"] = "no-store"  # some CDNs do not look at Vary (RFC 9213)
        _add(found, "content-location", f"{here}?{location}")
    return found


def disposition(name: str) -> str:
    """Return the Content-Disposition of a download, with both spellings of a name that is not ASCII."""
    while len(quote(name, safe=_SAFE)) > NAME_LIMIT_BYTES:
        name = name[:-1]
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in name)
    field = f'attachment; filename="{plain}"'
    return field if plain == name else f"{field}; filename*=UTF-8''{quote(name, safe='')}"


def _add(headers: dict[str, str], name: str, value: str) -> None:
    taken = sum(len(key) + len(text) + 4 for key, text in headers.items())
    if taken + len(name) + len(value) + 4 <= HEAD_LIMIT_BYTES and value.isascii() and value.isprintable():
        headers[name] = value
