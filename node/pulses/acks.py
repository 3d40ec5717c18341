"""Acks: the origin's word that pulses are stored, verified once and applied to the spool."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from ...protocol.batch import Ack, open_ack
from ...protocol.errors import RemoteError
from ...protocol.keyring import Keyring
from ...protocol.ports import Spool

REVOKED = "revoked"
"""The code of pulses made after their account was revoked."""


class Acks:
    """The one door through which anything leaves the spool."""

    def __init__(
        self, spool: Spool, keyring: Callable[[], Keyring | None], registry: CollectorRegistry
    ) -> None:
        self._spool = spool
        self._keyring = keyring
        self.revoked: Callable[[bytes], object] = lambda _: None
        """Told of each ticket the origin says is revoked, after every such ack; blocking."""
        self._results = Counter("farcast_node_acks", "Acks by result.", ["result"], registry=registry)

    def accept(self, data: bytes) -> Ack:
        """Verify a signed ack and apply it. Blocking; raises ``RemoteError``."""
        keyring = self._keyring()
        try:
            ack = open_ack(data, list(keyring.intake) if keyring else [])
        except RemoteError as error:
            self._results.labels(error.reason).inc()
            raise
        self._spool.settle(data)
        self._results.labels("accepted").inc()
        for item in ack.tids:
            if any(reject.code == REVOKED for reject in item.rejects):
                self.revoked(item.tid)
        return ack
