"""Problems: which HTTP status and which public sentence an error becomes (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import msgspec

from ...protocol.errors import (
    FarcastError,
    LocalError,
    RefusedError,
    RemoteError,
    StoreFullError,
    UnreachableError,
)
from ...protocol.ports import Reply

_STATUSES: tuple[tuple[type[FarcastError], int], ...] = (
    (UnreachableError, HTTPStatus.BAD_GATEWAY),
    (RemoteError, HTTPStatus.BAD_REQUEST),
    (StoreFullError, HTTPStatus.INSUFFICIENT_STORAGE),
    (LocalError, HTTPStatus.INTERNAL_SERVER_ERROR),
)


class Problem(NamedTuple):
    """What a client is told: the status, its standard phrase, one sentence, and the reason word."""

    status: int
    title: str
    detail: str
    reason: str
    retry_after_s: float | None = None


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def phrase(status: int) -> str:
    """Return the standard phrase of ``status``, or ``Status`` where there is none."""
    return _PHRASES.get(status, "Status")


def problem_of(error: BaseException) -> Problem:
    """Say what a client may know of ``error``: our own sentences in full, of anything else nothing."""
    if isinstance(error, RefusedError):
        return Problem(error.status, phrase(error.status), str(error), error.reason, error.retry_after_s)
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return Problem(status, phrase(status), str(error), error.reason)
    if isinstance(error, TimeoutError):
        return Problem(504, phrase(504), "the answer took too long", "timeout", 1.0)
    return Problem(500, phrase(500), "this box failed to answer; its log says why", "bug")


class _Document(msgspec.Struct, frozen=True):
    detail: str = ""
    reason: str = "refused"


def expect(reply: Reply, *statuses: int) -> bytes:
    """Return the body of an answer that has one of ``statuses``.

    Raises:
        RefusedError: otherwise, with the sentence and reason of the problem document it carries, and its
            Retry-After where that is in seconds.

    """
    if reply.status in statuses:
        return reply.body
    try:
        document = msgspec.json.decode(reply.body, type=_Document)
    except msgspec.MsgspecError:
        document = _Document()
    detail = document.detail or f"the answer was {reply.status} {phrase(reply.status)}"
    after = reply.headers.get("retry-after", "")
    raise RefusedError(
        detail[:400],
        status=reply.status,
        retry_after_s=float(after[:9]) if after.isascii() and after.isdigit() else None,
        reason=document.reason[:40],
    )
