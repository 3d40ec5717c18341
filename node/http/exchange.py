"""One request and its answer, whatever carried them, and the router between carriers and handlers."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from math import ceil
from typing import NamedTuple

import msgspec

from ...protocol.errors import FarcastError, RefusedError
from .head import split_target
from .problem import Problem, problem_of
from .ranges import FilePart, negotiate, part_bytes

__all__ = ["Answer", "Body", "Exchange", "FilePart", "Handler", "Hosts", "Router"]

_LOG = logging.getLogger(__name__)
_READING = ("GET", "HEAD")

_BROKEN_RULES = frozenset((400, 408, 411, 413, 414, 417, 421, 429, 431, 503))
"""Statuses of refusals that an operator hears of; asking for what is not here is everyday life."""
ABSENT = frozenset({404, 410})
"""What a cache may remember for a moment, so that a crowd after nothing does not reach this box."""
BRIEFLY = "public, max-age=5"

Body = bytes | Sequence[FilePart] | AsyncIterator[bytes]


@dataclass(slots=True)
class Exchange:
    """One request: what a handler may know of it.

    ``path`` is raw, ``segments`` decoded once; header names are lower case; ``host`` is the
    authority asked for, port included; ``peer`` the sender's address, never to be logged;
    ``secure`` says that this box's own key authenticated the channel (TLS or QUIC); ``is_open`` turns
    false once the client has closed the connection, where its carrier can tell.
    """

    method: str
    path: str
    target: str
    host: str
    segments: tuple[str, ...]
    query: dict[str, str]
    headers: Mapping[str, str]
    peer: str
    secure: bool
    reader: Callable[[int], Awaitable[bytes]]
    match: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    is_open: Callable[[], bool] = lambda: True

    @classmethod
    def of(
        cls,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        peer: str,
        secure: bool,
        reader: Callable[[int], Awaitable[bytes]],
        is_open: Callable[[], bool] = lambda: True,
    ) -> Exchange:
        """Make the exchange of a request as its carrier received it.

        Raises:
            RefusedError: 400 for a target or Host that no handler should see.

        """
        split = split_target(target, headers.get("host", ""))
        return cls(
            method,
            split.path,
            target,
            split.host,
            split.segments,
            split.parameters,
            headers,
            peer,
            secure,
            reader,
            is_open=is_open,
        )

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole request body; a second call returns the same bytes.

        Raises:
            RefusedError: 413 past ``limit_bytes``, 408 where the body comes too slowly.

        """
        if self.body is None:
            self.body = await self.reader(limit_bytes)
        return self.body


@dataclass(slots=True)
class Answer:
    """What goes back: status, lower-case headers, and a body.

    The body is bytes, parts of files on disk, or an iterator: with a ``content-length`` header
    of its exact size, or else of unknown size. An iterator that fails ends the answer abnormally
    (a reset), so that no client takes a part for the whole.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: Body = b""

    @classmethod
    def json(cls, value: object, status: int = 200) -> Answer:
        """Answer ``value`` as JSON."""
        return cls(status, {"content-type": "application/json"}, msgspec.json.encode(value))

    @classmethod
    def problem(
        cls,
        status: int,
        title: str,
        detail: str,
        type: str = "about:blank",  # noqa: A002 - the member's name in RFC 9457
        **members: object,
    ) -> Answer:
        """Answer a problem document (RFC 9457); ``members`` are extension members."""
        document = {"type": type, "title": title, "status": status, "detail": detail, **members}
        headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
        return cls(status, headers, msgspec.json.encode(document))

    @classmethod
    def of_problem(cls, problem: Problem) -> Answer:
        """Answer ``problem`` with its reason word, and Retry-After where it says when."""
        answer = cls.problem(problem.status, problem.title, problem.detail, reason=problem.reason)
        if problem.status in ABSENT:
            answer.headers["cache-control"] = BRIEFLY
        if problem.retry_after_s is not None:
            answer.headers["retry-after"] = str(max(1, ceil(problem.retry_after_s)))
        return answer

    @property
    def length(self) -> int | None:
        """The body's size in bytes, None where only its end will tell."""
        body = self.body
        if isinstance(body, bytes):
            return len(body)
        if isinstance(body, list | tuple) or not isinstance(body, AsyncIterator):
            return part_bytes(body)
        declared = self.headers.get("content-length")
        return None if declared is None else int(declared)


Handler = Callable[[Exchange], Awaitable[Answer]]


class Hosts:
    """The Host values a listener answers to: the given names, and bare addresses where allowed."""

    def __init__(self, names: Sequence[str] = (), *, addresses: bool = True) -> None:
        """Allow ``names`` (``host`` or ``host:port``, lower case) and, if so told, any IP literal."""
        self._names = frozenset(names)
        self._addresses = addresses
        self._known = lru_cache(maxsize=1_024)(self._allows)

    def __call__(self, host: str) -> bool:
        """Say whether a request for ``host`` is for this listener."""
        return self._known(host)

    def _allows(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if not name or not (port.isdigit() or not port) or host.endswith("]"):
            name = host
        if host in self._names or name in self._names:
            return True
        if not self._addresses:
            return False
        try:
            ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


class _Route(NamedTuple):
    segments: tuple[str, ...]
    handlers: dict[str, Handler]
    open: bool

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        found: dict[str, str] = {}
        for at, want in enumerate(self.segments):
            if at >= len(segments):
                return None
            if want.endswith("...}"):
                found[want[1:-4]] = "/".join(segments[at:])
                return found
            if want.startswith("{"):
                if not segments[at]:
                    return None
                found[want[1:-1]] = segments[at]
            elif want != segments[at]:
                return None
        return found if len(segments) == len(self.segments) else None


class Router:
    """Finds the handler of an exchange, and turns whatever happens into one answer.

    ``allowed`` says which Host values are this listener's (anything else is 421). With ``token``,
    every route lives under ``/{token}``, compared in constant time, and cross-site requests
    (``Sec-Fetch-Site``) are refused, those that change something unless they are same-origin: another
    port of this machine is the same site; a route marked ``open`` needs no token.
    """

    def __init__(
        self,
        allowed: Callable[[str], bool],
        *,
        token: str = "",
        refused: Callable[[str], None] | None = None,
    ) -> None:
        """Keep who may ask, and ``refused``, called with the reason word of every error answered."""
        self.allowed = allowed
        self.refused: Callable[[str], None] = refused or (lambda _: None)
        self.tell: Callable[[str, str], None] = lambda _reason, _peer: None
        """Called with reason and peer where a client broke the rules; writes at most a line in the log."""
        self.admit: Callable[[str, str], None] = lambda _peer, _path: None
        """Called with peer and path before each request; raises where a contract refuses it."""
        self._token = token.encode()
        self._routes: list[_Route] = []
        self.asked = 0
        """Requests for any route but the open ones, which machines poll."""

    def route(self, method: str, pattern: str, handler: Handler, *, open: bool = False) -> None:  # noqa: A002
        """Serve ``method`` on ``pattern``: ``{name}`` is one segment, ``{name...}`` all the rest.

        A GET handler also serves HEAD; it sees the method and its body is not sent. Patterns are
        tried in the order they were added. ``open`` frees a route from the token.
        """
        segments = tuple(pattern[1:].split("/"))
        for known in self._routes:
            if known.segments == segments and known.open == open:
                known.handlers[method] = handler
                return
        self._routes.append(_Route(segments, {method: handler}, open))

    async def handle(self, exchange: Exchange) -> Answer:
        """Answer ``exchange``; never raises but for cancellation.

        The answer is ready to send: ranges and conditions are already applied (RFC 9110).
        """
        try:
            handler = self._find(exchange)
            self.admit(exchange.peer, exchange.path)
            answer = await handler(exchange)
        except Exception as error:  # noqa: BLE001 - a listener answers whatever its handlers do
            return self.fail(error, exchange.peer)
        answer = negotiate(answer, exchange.method, exchange.headers)
        if answer.status == 416:  # noqa: PLR2004 - RFC 9110 section 15.5.17
            self.refused("range")
        return answer

    def fail(self, error: Exception, peer: str = "") -> Answer:
        """Count ``error`` by its reason and answer the problem it is; ``peer`` is who asked, if known."""
        if not isinstance(error, FarcastError | TimeoutError):
            _LOG.error("a handler failed", exc_info=error)
        problem = problem_of(error)
        self.refused(problem.reason)
        if peer and problem.status in _BROKEN_RULES:
            self.tell(problem.reason, peer)
        answer = Answer.of_problem(problem)
        if isinstance(error, _NotAllowedError):
            answer.headers["allow"] = error.allow
        return answer

    def turn_away(self, reason: str, peer: str) -> None:
        """Count and tell of a connection that ends without an answer, by reason."""
        self.refused(reason)
        self.tell(reason, peer)

    def cut_short(self, error: Exception) -> None:
        """Count an answer that ended abnormally after its head was sent."""
        if isinstance(error, OSError):  # the client went away or stalled; TimeoutError is one too
            self.refused("client_gone")
        else:
            self.fail(error)

    def _find(self, exchange: Exchange) -> Handler:
        if not self.allowed(exchange.host):
            raise _refused(421, "this box does not answer for that Host", "unknown_host")
        if self._token and exchange.headers.get("sec-fetch-site") == "cross-site":
            raise _refused(403, "another site asked for this page; open it yourself", "cross_site")
        if self._token and exchange.method not in _READING and _elsewhere(exchange):
            raise _refused(403, "another page of this machine asked for a change here", "same_site")
        under = self._under_token(exchange.segments)
        allow: set[str] = set()
        for route in self._routes:
            segments = exchange.segments if route.open else under
            match = None if segments is None else route.match(segments)
            if match is None:
                continue
            method = "GET" if exchange.method == "HEAD" else exchange.method
            handler = route.handlers.get(exchange.method) or route.handlers.get(method)
            if handler is not None:
                self.asked += not route.open
                exchange.match = match
                return handler
            allow.update(route.handlers)
        if allow:
            raise _NotAllowedError(sorted(allow | ({"HEAD"} if "GET" in allow else set())))
        raise _refused(404, "nothing is at this path", "no_route")

    def _under_token(self, segments: tuple[str, ...]) -> tuple[str, ...] | None:
        if not self._token:
            return segments
        if hmac.compare_digest(segments[0].encode(), self._token):
            return segments[1:]
        return None


class _NotAllowedError(RefusedError):
    def __init__(self, allow: Sequence[str]) -> None:
        self.allow = ", ".join(allow)
        super().__init__(f"this path serves {self.allow}", status=405, reason="method")


def _elsewhere(exchange: Exchange) -> bool:
    """Say whether a browser sends this for a page of another origin; programs send no such header."""
    return exchange.headers.get("sec-fetch-site", "same-origin") != "same-origin"


def _refused(status: int, message: str, reason: str) -> RefusedError:
    return RefusedError(message, status=status, reason=reason)
