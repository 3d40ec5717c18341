"""A relay of the simulated world: stamps pulses and brings them home in numbered, linked batches."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.batch import Batch, batch_hash, pulses_root, seal_parcel
from ...protocol.identity import Identity
from ...protocol.ports import SpooledPulse, TierName
from ...protocol.pulse import Served


class Relay:
    """Signs real batches; whether its stamps are true is up to whoever calls it."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._number = 0
        self._prev = bytes(32)

    @property
    def key(self) -> bytes:
        """The relay's public key."""
        return self.identity.key

    def served(self, kbytes: int) -> list[Served]:
        """Return how a pulse names this relay for ``kbytes``."""
        return [Served(TierName.RELAY, self.key[:16], kbytes)]

    def batch(self, items: Sequence[SpooledPulse], stamps: Sequence[int]) -> bytes:
        """Seal the next batch: each pulse with the time at which the relay says it got it."""
        pulses = [item.pulse for item in items]
        tickets = list(dict.fromkeys(item.ticket for item in items))
        self._number += 1
        batch = Batch(
            1, self.key, self._number, self._prev, min(stamps), max(stamps), pulses_root(pulses), tickets,
            list(stamps),
        )  # fmt: skip
        data = seal_parcel(batch, pulses, self.identity)
        self._prev = batch_hash(data)
        return data
