"""The governor's asyncio shell: carriers that may wait ask this one, in the words of HTTP.

``await meter.spend(peer, size)`` before each chunk of a body, ``meter.admit`` before a request (the
router does it for aiohttp and HTTP/3), ``meter.connect`` and ``meter.disconnect`` around a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from ...protocol.errors import RefusedError
from .governor import Governor, Refusal

_TRANSFERS = ("/ipfs/", "/watch/")
_STEERING = "/v1/steering/"


class Meter:
    """Asks ``governor`` with the monotonic clock, and waits where it says so."""

    def __init__(self, governor: Governor, now: Callable[[], float] = monotonic) -> None:
        """Serve every carrier of this process."""
        self.governor = governor
        self._now = now

    async def spend(self, peer: str, size_bytes: int) -> None:
        """Wait until ``size_bytes`` may go to ``peer``, and count them; a transfer begun is never refused."""
        governor = self.governor
        if governor.metered and not governor.local(peer):
            wait_s = governor.owe(size_bytes, self._now())
            if wait_s > 0:
                try:
                    await asyncio.sleep(wait_s)
                except asyncio.CancelledError:
                    governor.give_back(size_bytes)
                    raise
        governor.flow(peer).bytes += size_bytes

    def admit(self, peer: str, path: str) -> None:
        """Take on a request of ``peer`` for ``path``.

        Raises:
            RefusedError: 429 or 503 with Retry-After.

        """
        governor = self.governor
        if governor.wan.guarded:
            refusal = governor.request(peer, self._now(), transfer=is_transfer(path))
            if refusal is not None:
                if path.startswith(_STEERING):  # on a 429 players give steering up for good
                    refusal = refusal._replace(status=503)
                raise refused(refusal)

    def connect(self, peer: str) -> Refusal | None:
        """Count a new connection, or say why it must be closed."""
        return self.governor.connect(peer)

    def disconnect(self, peer: str) -> None:
        """Count the end of a connection that was taken on."""
        self.governor.disconnect(peer)


def is_transfer(path: str) -> bool:
    """Say whether a path names blocks or files of titles, the bytes a contract is about."""
    return path.startswith(_TRANSFERS)


def refused(refusal: Refusal) -> RefusedError:
    """Return the error that answers a refusal."""
    return RefusedError(
        refusal.detail, status=refusal.status, reason=refusal.reason, retry_after_s=refusal.retry_after_s
    )
