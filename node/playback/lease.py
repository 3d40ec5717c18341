"""Leases of content keys: which key may be used now, and when the origin is asked again (sans-IO).

A key once given may be used while the origin cannot be reached, for as long as tickets reach ahead;
while it can, it is asked again every few minutes, so that a revoked account stops soon.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from ...protocol.contentkey import Lease

RETRY_MS = 15_000
"""After a try without an answer; doubled for each further one, up to the time between checks."""
REFUSED_MS = 60_000
"""After a refusal: what the origin refused a minute ago is not asked for again for each segment."""
CLOCK_SLACK_MS = 3_600_000
"""A clock this far before the moment of the grant was turned back, so the key's end means nothing."""
KEYS_KEPT = 4_096


class Refusal(NamedTuple):
    """Why there is no key: the reason word, the origin's sentence, and whether asking again may help."""

    reason: str
    sentence: str
    final: bool


@dataclass(slots=True)
class _Standing:
    lease: Lease | None = None
    refusal: Refusal | None = None
    ask_at_ms: int = 0
    failures: int = 0


_UNKNOWN = _Standing()


class Leases:
    """What is held and what was answered, key by key; the least lately used are forgotten."""

    def __init__(self, recheck_ms: int) -> None:
        """Ask again for a key in use every ``recheck_ms``."""
        self._recheck_ms = recheck_ms
        self._standings: OrderedDict[bytes, _Standing] = OrderedDict()

    def __len__(self) -> int:
        """Return how many keys are held, usable or not."""
        return sum(standing.lease is not None for standing in [*self._standings.values()])

    def restore(self, lease: Lease) -> None:
        """Take a key that was kept on the disk; the origin is asked at its next use all the same."""
        self._of(lease.key_id).lease = lease

    def usable(self, key_id: bytes, now_ms: int) -> bytes | None:
        """Return the key, None where there is none that may be used now."""
        lease = self._seen(key_id).lease
        if lease is None or not lease.granted_ms - CLOCK_SLACK_MS <= now_ms < lease.until_ms:
            return None
        return lease.key

    def refusal(self, key_id: bytes) -> Refusal | None:
        """Return why the origin did not give the key the last time, None where it did or was not asked."""
        return self._seen(key_id).refusal

    def lapsed(self, key_id: bytes, now_ms: int) -> bool:
        """Say whether a key is held that may no longer be used, or not under this clock."""
        return self._seen(key_id).lease is not None and self.usable(key_id, now_ms) is None

    def older(self, key_id: bytes, now_ms: int, age_ms: int) -> bool:
        """Say whether a key is not held, or was given longer than ``age_ms`` ago."""
        lease = self._seen(key_id).lease
        return lease is None or not 0 <= now_ms - lease.granted_ms <= age_ms

    def due(self, key_id: bytes, now_ms: int) -> bool:
        """Say whether to ask the origin for a key that is wanted now."""
        return now_ms >= self._seen(key_id).ask_at_ms

    def asked(self, key_id: bytes, now_ms: int) -> None:
        """Note that the origin is being asked: nobody asks a second time meanwhile."""
        self._of(key_id).ask_at_ms = now_ms + RETRY_MS

    def granted(self, lease: Lease) -> None:
        """Note the origin's yes."""
        standing = self._of(lease.key_id)
        standing.lease, standing.refusal, standing.failures = lease, None, 0
        standing.ask_at_ms = lease.granted_ms + self._recheck_ms

    def refused(self, key_id: bytes, refusal: Refusal, now_ms: int) -> None:
        """Note the origin's no: a final one takes the key away, any other leaves it as it is."""
        standing = self._of(key_id)
        standing.refusal = refusal
        standing.failures += 1
        if refusal.final:
            standing.lease, standing.failures = None, 0
            standing.ask_at_ms = now_ms + REFUSED_MS
        else:
            standing.ask_at_ms = now_ms + self._wait_ms(standing)

    def _wait_ms(self, standing: _Standing) -> int:
        return min(RETRY_MS << min(standing.failures - 1, 16), max(self._recheck_ms, RETRY_MS))

    def _seen(self, key_id: bytes) -> _Standing:
        """Return a standing to look at: looking at all titles of a list displaces nobody's key."""
        return self._standings.get(key_id, _UNKNOWN)

    def _of(self, key_id: bytes) -> _Standing:
        found = self._standings.get(key_id)
        if found is None:
            found = self._standings[key_id] = _Standing()
            if len(self._standings) > KEYS_KEPT:
                self._standings.popitem(last=False)
        self._standings.move_to_end(key_id)
        return found
