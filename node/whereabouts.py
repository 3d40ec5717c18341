"""Where relays say they are by now, in records newer than the directory's: moved, or still there.

A pure core. Only a relay that the origin lists is heard, and by its own signature. Addresses the
directory has hold at once, so that relays stay known while the origin is away for longer than their
records last; a new address holds once this box has seen the relay's key there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from ..protocol.directory import Endpoint, RelayRecord

AHEAD_MS = 120_000
LIFE_MS = 48 * 3_600_000
"""A record says where a relay is for a day or two; one that says more is not believed."""
TRY_MS = 600_000
"""How often a relay's new addresses are tried at most."""
STALE_MS = 12 * 3_600_000
"""A directory's record that much older than its relay's newest: the origin is away."""
RETELL_MS = 6 * 3_600_000
RELAYS_KEPT = 1_000
CANDIDATES_KEPT = 32

NEWS, TO_PROVE = "news", "to_prove"


def worth_telling(own: RelayRecord, listed: Sequence[RelayRecord], told: RelayRecord | None) -> bool:
    """Say whether a relay's newest record is news to those who have the directory ``listed``.

    It is where the relay has moved, or the origin is away so long that its listed record runs out;
    ``told`` is the record it told last. A relay that is where everybody knows it to be says nothing.
    """
    vouched = next((one for one in listed if one.relay == own.relay), None)
    if vouched is None or own.created_ms <= vouched.created_ms:
        return False
    moved = own.endpoints != vouched.endpoints
    if not moved and own.created_ms - vouched.created_ms < STALE_MS:
        return False
    if told is None or own.created_ms - told.created_ms >= RETELL_MS:
        return True
    return moved and own.endpoints != told.endpoints


class Whereabouts:
    """Decides over records that were verified; times in milliseconds since 1970."""

    def __init__(self) -> None:
        self._newer: OrderedDict[bytes, RelayRecord] = OrderedDict()
        self._candidates: OrderedDict[bytes, RelayRecord] = OrderedDict()
        self._tried: OrderedDict[bytes, int] = OrderedDict()

    def hear(self, record: RelayRecord, listed: Sequence[RelayRecord], now_ms: int) -> str:
        """Take a relay's own record; returns ``news``, ``to_prove``, or the reason why it is neither."""
        refusal = self._refusal(record, now_ms)
        if refusal:
            return refusal
        vouched = next((one for one in listed if one.relay == record.relay), None)
        if vouched is None:
            return "unlisted"
        known = (vouched, self._newer.get(record.relay), self._candidates.get(record.relay))
        if record.created_ms <= max(one.created_ms for one in known if one is not None):
            return "known"
        if all(endpoint in vouched.endpoints for endpoint in record.endpoints):
            self._adopt(record)
            return NEWS
        if now_ms - self._tried.get(record.relay, -TRY_MS) < TRY_MS:
            return "too_soon"
        self._candidates.pop(record.relay, None)
        self._candidates[record.relay] = record
        while len(self._candidates) > CANDIDATES_KEPT:
            self._candidates.popitem(last=False)
        return TO_PROVE

    def candidate(self, now_ms: int) -> RelayRecord | None:
        """Return the next record whose addresses are to be tried, None where there is none."""
        if not self._candidates:
            return None
        relay, record = self._candidates.popitem(last=False)
        self._tried.pop(relay, None)
        self._tried[relay] = now_ms
        while len(self._tried) > RELAYS_KEPT:
            self._tried.popitem(last=False)
        return record

    def proven(self, record: RelayRecord, endpoints: Sequence[Endpoint]) -> None:
        """Note at which of a record's addresses the relay was met, by its key."""
        newer = self._newer.get(record.relay)  # heard while this one was tried
        if endpoints and (newer is None or newer.created_ms < record.created_ms):
            self._adopt(msgspec.structs.replace(record, endpoints=list(endpoints)))

    def records(self, listed: Sequence[RelayRecord], now_ms: int) -> list[RelayRecord]:
        """Return the directory's records, each replaced by what its relay has said since."""
        found: list[RelayRecord] = []
        for record in listed:
            newer = self._newer.get(record.relay)
            if newer is not None and newer.created_ms > record.created_ms and newer.expires_ms > now_ms:
                found.append(newer)
            else:
                found.append(record)
        return found

    def _refusal(self, record: RelayRecord, now_ms: int) -> str:
        if record.created_ms > now_ms + AHEAD_MS:
            return "future"
        if record.expires_ms <= now_ms:
            return "expired"
        return "too_long" if record.expires_ms - record.created_ms > LIFE_MS else ""

    def _adopt(self, record: RelayRecord) -> None:
        self._newer.pop(record.relay, None)
        self._newer[record.relay] = record
        while len(self._newer) > RELAYS_KEPT:
            self._newer.popitem(last=False)
