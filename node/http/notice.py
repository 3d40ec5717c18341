"""Notices: what hostile or broken clients do, told once a minute and kind, without saying who."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

_LOG = logging.getLogger(__name__)

QUIET_S = 60.0
KINDS_KEPT = 64


class Notices:
    """Decides which refusals become a line in the log. Pure: time is an argument."""

    def __init__(self) -> None:
        """Know of nothing yet."""
        self._told: dict[tuple[str, bool], tuple[float, int]] = {}

    def note(self, reason: str, now: float, *, local: bool) -> str | None:
        """Count one refusal; returns the line to log, at most one a minute for each reason and side."""
        key = reason, local
        told = self._told.get(key)
        if told is not None and now - told[0] < QUIET_S:
            self._told[key] = told[0], told[1] + 1
            return None
        if told is None and len(self._told) >= KINDS_KEPT:
            return None
        self._told[key] = now, 0
        side = "the LAN" if local else "the WAN"
        more = f" ({told[1]} more since the last line)" if told is not None and told[1] else ""
        return f"refused a client on {side}: {reason}{more}"


class Herald:
    """Writes notices into the log for every carrier of a listener; no address ever gets there."""

    def __init__(self, local: Callable[[str], bool], clock: Callable[[], float] = monotonic) -> None:
        """Say of each peer whether it is ``local``; ``clock`` gives monotonic seconds."""
        self._notices = Notices()
        self._local = local
        self._clock = clock

    def __call__(self, reason: str, peer: str) -> None:
        """Tell of one refusal, if its turn has come."""
        line = self._notices.note(reason, self._clock(), local=self._local(peer))
        if line is not None:
            _LOG.info(line)
