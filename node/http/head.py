"""The head of an HTTP/1.1 request: a strict parser that refuses every ambiguous shape.

Two parsers that read one head differently are how requests are smuggled, so nothing here is
repaired: bare CR or LF, folded lines, space before a colon, repeated framing fields, and
Content-Length beside Transfer-Encoding are all refused (RFC 9112 sections 2.2, 5, 6.3, 11.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from ...protocol.errors import RefusedError

HEAD_LIMIT_BYTES = 16 << 10
FIELD_LIMIT = 64
CHUNKED = -1
QUERY_LIMIT = 64
_CACHED_FIELDS_BYTES = 2 << 10

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,24}) ([!-~]{1,8192}) HTTP/1\.([01])")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_HTTP2 = (
    b"PRI"  # opens an HTTP/2 connection (RFC 9113 section 3.4), after which another parser waits for frames
)
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])?(?::[0-9]{0,5})?")
_SINGLE = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "authorization", "range", "if-range"}
)


class Target(NamedTuple):
    """A request target, split: the raw path, the raw query, and the authority it is for, lower case."""

    path: str
    query: str
    host: str

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, percent-decoded once as UTF-8.

        Raises:
            RefusedError: 400 where a segment hides a slash, NUL, ``.`` or ``..``, or is no UTF-8.

        """
        return tuple(decode_segment(part) for part in self.path[1:].split("/"))

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the last."""
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, max_num_fields=QUERY_LIMIT)
        except ValueError as error:
            raise _bad(f"a query of more than {QUERY_LIMIT} parameters") from error
        return dict(pairs)


class Head(NamedTuple):
    """One parsed request head; ``length`` is the body's, ``CHUNKED`` where it comes in chunks."""

    method: str
    target: str
    path: str
    query: str
    host: str
    headers: Mapping[str, str]
    keep_alive: bool
    length: int
    size: int
    """Bytes of the buffer this head took, its empty line included."""


class _Fields(NamedTuple):
    headers: Mapping[str, str]
    length: int
    options: frozenset[str]


def parse_head(data: bytes) -> Head | None:
    """Parse the request head at the start of ``data``; None where more bytes are needed.

    Raises:
        RefusedError: 400 ``bad_request`` for a malformed head, 431 ``head_too_large`` past 16 KiB
            or 64 fields; the connection must then be closed.

    """
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT_BYTES)
    if end < 0:
        if len(data) >= HEAD_LIMIT_BYTES:
            raise _too_large(f"a request head of more than {HEAD_LIMIT_BYTES} bytes")
        if _BARE.search(data.removesuffix(b"\r")):
            raise _bad("a request head with a bare CR or LF")
        return None
    line_end = data.find(b"\r\n", 0, end + 2)
    line = _REQUEST_LINE.fullmatch(data, 0, line_end)
    if line is None or line[1] == _HTTP2:
        raise _bad("a malformed request line")
    block = data[line_end + 2 : end]
    fields = _cached_fields(block) if len(block) <= _CACHED_FIELDS_BYTES else _fields(block)
    method, target, minor = line.groups()
    host = fields.headers.get("host")
    if minor == b"0":
        if fields.length == CHUNKED:
            raise _bad("a chunked body in HTTP/1.0")
        keep_alive = "keep-alive" in fields.options
    else:
        if host is None:
            raise _bad("a request without Host")
        keep_alive = "close" not in fields.options
    text = target.decode("ascii")
    path, query, host = split_target(text, host or "")
    return Head(
        method.decode("ascii"), text, path, query, host, fields.headers, keep_alive, fields.length, end + 4
    )


def split_target(target: str, host: str) -> Target:
    """Split a request target in origin or absolute form (RFC 9112 section 3.2).

    Raises:
        RefusedError: 400 for any other form, a fragment, or a malformed host.

    """
    if not target.startswith("/"):
        scheme, mark, rest = target.partition("://")
        if not mark or scheme.lower() not in ("http", "https"):
            raise _bad("a request target that is no path")
        _host(host)  # the target names the host, but a Host that is none is refused all the same
        cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
        host, target = rest[:cut], rest[cut:]
        if not target.startswith("/"):
            target = "/" + target
    if "#" in target:
        raise _bad("a request target with a fragment")
    path, _, query = target.partition("?")
    return Target(path, query, _host(host))


def decode_segment(segment: str) -> str:
    """Percent-decode one path segment.

    Raises:
        RefusedError: 400 where the decoded text could be read as another path, or is no UTF-8.

    """
    if "%" not in segment:
        text = segment
    else:
        try:
            text = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _bad("a path that is not UTF-8") from error
    if text in (".", "..") or "/" in text or "\0" in text:
        raise _bad("a path with a dot segment, a hidden slash or a NUL")
    return text


@lru_cache(maxsize=1_024)
def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise _bad("a malformed Host")
    return text.lower()


def _fields(block: bytes) -> _Fields:
    lines = block.split(b"\r\n") if block else []
    if len(lines) > FIELD_LIMIT:
        raise _too_large(f"a request head of more than {FIELD_LIMIT} fields")
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise _bad("a malformed header field")
        name, value = match[1].decode("ascii").lower(), match[2].strip(b" \t").decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise _bad(f"a repeated {name}")
        else:
            headers[name] += ", " + value
    options = frozenset(part.strip().lower() for part in headers.get("connection", "").split(","))
    return _Fields(MappingProxyType(headers), _body_length(headers), options)


_cached_fields = lru_cache(maxsize=256)(_fields)
"""A client sends the same fields with every request, so most heads cost one dictionary look-up."""


def _body_length(headers: Mapping[str, str]) -> int:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise _bad("an ambiguous body length")
        return CHUNKED
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) <= 15):  # noqa: PLR2004 - below 2^53
        raise _bad("a malformed Content-Length")
    return int(length)


def _bad(message: str) -> RefusedError:
    return RefusedError(message, status=400, reason="bad_request")


def _too_large(message: str) -> RefusedError:
    return RefusedError(message, status=431, reason="head_too_large")
