"""The relays' desk: who carries for this origin, and who may."""

from __future__ import annotations

from collections.abc import Callable

from ...node.ladder.tiers import address
from ...protocol.errors import UsageError
from ...protocol.identity import peer_id
from ..action import Actions, Result, date
from ..roster import Roster

REASON_CHARS = 400


class RelayDesk:
    """Shows the ``roster`` and decides who stands in the directory."""

    def __init__(self, roster: Roster, clock_ms: Callable[[], int]) -> None:
        self.roster = roster
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {"relays": self.list_relays, "relay_judge": self.judge}

    def list_relays(self) -> Result:
        """List the relays and how they stand."""
        return {
            "relays": [
                {
                    "id": relay.peer_id,
                    "standing": relay.standing,
                    "endpoints": [address(endpoint) for endpoint in relay.record.endpoints],
                    "payee": relay.record.payee,
                    "seen": date(relay.record.created_ms),
                    "expired": relay.record.expires_ms <= self._clock_ms(),
                    "wish": relay.wish,
                    "reason": relay.reason,
                    "listed": relay.listed(self._clock_ms()),
                    "faults": [f"{fault.endpoint}: {fault.why}" for fault in relay.faults],
                }
                for relay in self.roster.relays()
            ]
        }

    def judge(self, relay: str, *, approve: bool, reason: str = "") -> Result:
        """Approve or refuse a relay, and tell its operator why."""
        if len(reason) > REASON_CHARS or not reason.isprintable():
            raise UsageError(f"--reason is one line of at most {REASON_CHARS} characters")
        judged = self.roster.judge(relay, "approved" if approve else "refused", reason)
        self.roster.sign(self._clock_ms())
        return {"id": peer_id(judged), "standing": "approved" if approve else "refused"}
