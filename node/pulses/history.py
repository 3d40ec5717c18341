"""The history of what this box has sent: its own pulses, opened with its own keys, as sentences' facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...protocol.errors import RemoteError
from ...protocol.ports import TierName
from ...protocol.pulse import Viewing, open_viewing, read_pulse
from ...protocol.ticket import DAY_MS
from .sentbook import SentPulse
from .spool import DiskSpool
from .wallet import Wallet

PULSES_LIMIT = 4_096


class History:
    """Reads the last 24 hours, and whatever waits for longer; blocking."""

    def __init__(self, spool: DiskSpool, wallet: Wallet) -> None:
        self._spool = spool
        self._wallet = wallet

    def read(self, now_ms: int, titles: Mapping[bytes, str]) -> list[dict[str, Any]]:
        """Return every pulse as JSON has it, the newest first; ``titles`` by their manifests' digests.

        ``state`` is ``waiting`` (with this box), ``left`` (somebody carries it), ``acked`` or
        ``refused``; once its session is judged ``not_counted`` says why not all of it counts. What
        only a lost key opens is told without its inside.
        """
        keys = self._wallet.ticket_keys()
        found = self._spool.sent(now_ms - DAY_MS, PULSES_LIMIT)
        return [_told(one, keys.get(one.tid), titles) for one in found]

    def sessions(self, now_ms: int) -> list[dict[str, Any]]:
        """Return the origin's verdicts of the last 24 hours as JSON has them, the newest session first."""
        return [
            {
                "at_ms": one.begun_ms or None,
                "viewed_ms": one.claimed_ms,
                "counted_ms": one.counted_ms,
                "codes": one.codes.split(",") if one.codes else [],
            }
            for one in self._spool.sealed(now_ms - DAY_MS)
        ]


def _told(sent: SentPulse, key: bytes | None, titles: Mapping[bytes, str]) -> dict[str, Any]:
    pulse, _ = read_pulse(sent.pulse)
    viewing = _opened(sent, key)
    return {
        "at_ms": sent.made_ms,
        "title": titles.get(viewing.manifest, "") if viewing else "",
        "viewed_ms": pulse.delta_ms,
        "position_ms": viewing.position_ms if viewing else None,
        "served": [
            {"tier": TierName(one.tier).label, "kbytes": one.kbytes}
            for one in (viewing.served if viewing else ())
        ],
        "bytes": len(sent.pulse),
        "state": _state(sent),
        "way": sent.way or ("neighbour" if sent.acked_ms else ""),  # whose ack comes, somebody carried it
        "left_ms": sent.left_ms or None,
        "acked_ms": sent.acked_ms or None,
        "reason": sent.code,
        "judged_ms": sent.judged_ms or None,
        "not_counted": sent.cuts.split(",") if sent.cuts else [],
    }


def _opened(sent: SentPulse, key: bytes | None) -> Viewing | None:
    if key is None:
        return None
    try:
        return open_viewing(read_pulse(sent.pulse)[0], key)
    except RemoteError:
        return None


def _state(sent: SentPulse) -> str:
    if sent.acked_ms:
        return "refused" if sent.code else "acked"
    return "left" if sent.left_ms else "waiting"
