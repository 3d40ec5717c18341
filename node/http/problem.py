"""Problems: which HTTP status and which public sentence an error becomes (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from ...protocol.errors import (
    FarcastError,
    LocalError,
    RefusedError,
    RemoteError,
    StoreFullError,
    UnreachableError,
)

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


def phrase(status: int) -> str:
    """Return the standard phrase of ``status``, or ``Status`` where there is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


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
