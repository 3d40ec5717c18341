"""How a dish stands: what it says of itself, and the sentence a person gets of it. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...protocol.errors import RemoteError
from .fields import Fields, field
from .schema import Reading, Schema

SERVICE = "SpaceX.API.Device.Device"
METHOD = f"{SERVICE}/Handle"
ALERTS_LIMIT = 64
_LEAST_SHARE = 0.001
"""Of the sky: less is not worth a word."""
_UNRESTRICTED = ("", "UNKNOWN_STATE", "OKAY")
_CAUSES = {
    "BOOTING": "is starting",
    "STOWED": "is stowed: unstow it in its app",
    "THERMAL_SHUTDOWN": "has switched off because it is too hot, and comes back when it has cooled",
    "NO_SCHEDULE": "searches for satellites",
    "NO_SATS": "sees no satellite",
    "OBSTRUCTED": "is obstructed: something stands between it and the satellite",
    "NO_DOWNLINK": "hears nothing from its satellite",
    "NO_PINGS": "hears its satellite, but the Internet behind that does not answer",
    "ACTUATOR_ACTIVITY": "is turning",
    "CABLE_TEST": "tests its cable",
    "SLEEPING": "sleeps by its own schedule",
    "MOVING_WHILE_NOT_ALLOWED": "moves, which its plan does not allow",
}
_LIMITS = {
    "NO_ACTIVE_ACCOUNT": "it has no active account",
    "TOO_FAR_FROM_SERVICE_ADDRESS": "it is too far from its service address",
    "IN_OCEAN": "it is at sea",
    "BLOCKED_COUNTRY": "this country is blocked",
    "DATA_OVERAGE_SANDBOX_POLICY": "the data of its plan is used up",
    "CELL_IS_DISABLED": "there is no service here",
    "ROAM_RESTRICTED": "its plan does not roam here",
    "ACCOUNT_DISABLED": "its account is disabled",
}


class Standing(NamedTuple):
    """What a dish says of itself; ``outage`` and ``limit`` are its words for why it carries nothing.

    Empty ones mean that it is connected, and that its provider restricts nothing. Numbers that its
    software does not tell are None; shares are of 1.
    """

    outage: str
    limit: str
    obstructed: bool
    obstructed_share: float | None
    lost_share: float | None
    latency_ms: float | None
    down_bps: float | None
    up_bps: float | None
    alerts: tuple[str, ...]

    @property
    def connected(self) -> bool:
        """Whether it carries the Internet now."""
        return not (self.outage or self.limit)

    @property
    def trouble(self) -> str:
        """Say why it carries nothing; empty where it does."""
        if self.outage:
            said = self.outage.lower().replace("_", " ")
            return f"the Starlink dish {_CAUSES.get(self.outage, f'has an outage ({said})')}"
        if self.limit:
            said = self.limit.lower().replace("_", " ")
            return f"the Starlink dish is restricted: {_LIMITS.get(self.limit, said)}"
        return ""

    def sentence(self) -> str:
        """Say how it stands, in a sentence without its full stop."""
        if self.trouble:
            return self.trouble
        share = self.obstructed_share or 0.0
        seen = f", {share:.1%} of its sky obstructed".replace("%", " %") if share >= _LEAST_SHARE else ""
        now = ", and obstructed at this moment" if self.obstructed else ""
        return f"the Starlink dish is connected{seen}{now}"

    @property
    def facts(self) -> dict[str, Any]:
        """What status shows."""
        return {
            "connected": self.connected,
            "outage": self.outage.lower(),
            "limit": self.limit.lower(),
            "obstructed": self.obstructed,
            "obstructed_share": self.obstructed_share,
            "lost_share": self.lost_share,
            "latency_ms": self.latency_ms,
            "down_bps": self.down_bps,
            "up_bps": self.up_bps,
            "alerts": list(self.alerts),
            "sentence": self.sentence(),
        }


def question(schema: Schema) -> bytes:
    """Return the request for a status; raises ``RemoteError`` ``schema`` where no such can be asked."""
    asked, _ = schema.methods.get(METHOD, ("", ""))
    number, _ = schema.messages.get(asked, {}).get("get_status", (0, ""))
    if not number:
        raise _strange("cannot be asked for its status")
    return field(number, b"")


def read_standing(schema: Schema, answer: bytes) -> Standing:
    """Read an answer.

    Raises:
        RemoteError: ``malformed`` for bytes that are none, ``schema`` for one without a dish's status.

    """
    _, kind = schema.methods.get(METHOD, ("", ""))
    status = Reading(schema, kind, Fields(answer)).inner("dish_get_status")
    if status is None:
        raise _strange("did not tell its status")
    outage, sky, alerts = (status.inner(name) for name in ("outage", "obstruction_stats", "alerts"))
    limit = status.choice("disablement_code") or ""
    return Standing(
        outage=outage.first_choice("cause") if outage else "",
        limit="" if limit in _UNRESTRICTED else limit,
        obstructed=sky is not None and sky.flag("currently_obstructed"),
        obstructed_share=sky.real("fraction_obstructed") if sky else None,
        lost_share=status.real("pop_ping_drop_rate"),
        latency_ms=status.real("pop_ping_latency_ms"),
        down_bps=status.real("downlink_throughput_bps"),
        up_bps=status.real("uplink_throughput_bps"),
        alerts=tuple(alerts.raised()[:ALERTS_LIMIT]) if alerts else (),
    )


def _strange(what: str) -> RemoteError:
    return RemoteError(f"what answers at the dish's address {what}: is it a Starlink dish?", reason="schema")
