"""The one line an operator reads first: how the relay stands, because of what, and what to do (sans-IO)."""

from __future__ import annotations

from typing import NamedTuple


class Standing(NamedTuple):
    """What a verdict is made from.

    ``standing`` is the origin's word (``unknown`` before it has spoken) and ``reason`` why; ``lost``
    the published addresses it could not reach, with why, ``halved`` those it reached by one protocol
    of two; ``wakes`` is a date; ``stale_s`` is how long ago the origin was last heard.
    """

    state: str
    standing: str
    reason: str = ""
    listed: str = "listed"
    endpoints: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()
    halved: tuple[tuple[str, str], ...] = ()
    catalog: bool = True
    wakes: str = ""
    stale_s: float = 0.0
    damaged_blocks: int = 0
    disk_full: bool = False
    trouble: str = ""
    """Why the origin did not take the newest record, empty where it did."""
    address: str = ""
    """What is wrong with this box's address as a whole, such as carrier-grade NAT; empty if nothing."""


STALE_S = 900.0


def verdict(now: Standing) -> str:
    """Return the sentence; ``Serving`` alone is all there is to say when all is well."""
    if now.state == "paused":
        return "Paused: nothing new is served; `farcast relay resume` serves again"
    if now.state == "hibernating":
        return (
            f"Hibernating until {now.wakes}, because this month's volume is used or saved for later; "
            "a larger [contract] volume_bytes and SIGHUP wake it at once"
        )
    return _not_serving(now) or _not_reachable(now) or _degraded(now) or _well(now)


def _not_serving(now: Standing) -> str:
    because = f" because {now.reason}" if now.reason else ""
    if now.standing == "refused":
        return f"Not serving: the origin refused this relay{because}; ask its team, or join another origin"
    if now.standing == "pending":
        return "Waiting for the origin to approve this relay (`farcast origin relays approve`)"
    if now.trouble:
        return f"Not serving: the origin does not take this relay's record ({now.trouble}); mend that"
    if not now.catalog:
        return "Not serving: no catalog yet, because the origin has not answered; is this box online?"
    return ""


def _not_reachable(now: Standing) -> str:
    if now.lost and len(now.lost) >= len(now.endpoints):
        address, why = now.lost[0]
        mend = now.address or "forward TCP and UDP of that port to this box and open them in its firewall"
        return f"Not reachable: the origin cannot connect to {address} ({why}); {mend}"
    if not now.endpoints and now.listed == "listed":
        return "Not reachable: this box has no address to publish; set [network] announce to HOST:PORT"
    return ""


def _degraded(now: Standing) -> str:
    return _upstream(now) or _address(now) or _disk(now)


def _upstream(now: Standing) -> str:
    if now.stale_s > STALE_S:
        minutes = int(now.stale_s // 60)
        return f"Degraded: the origin has not answered for {minutes} minutes; what is held is served on"
    if now.standing != "approved":
        return "Degraded: the origin has not answered yet whether it lists this relay; look again in a minute"
    return ""


def _address(now: Standing) -> str:
    if now.lost:
        address, why = now.lost[0]
        return f"Degraded: the origin cannot connect to {address} ({why}); open it, or announce it no more"
    if now.halved:
        address, why = now.halved[0]
        return f"Degraded: half of {address} is closed ({why}); open TCP and UDP of that port"
    return ""


def _disk(now: Standing) -> str:
    if now.disk_full:
        return "Degraded: the disk is full, so nothing new is kept; make room or lower [store] quota_bytes"
    if now.damaged_blocks:
        return (
            f"Degraded: {now.damaged_blocks} blocks on the disk were damaged and dropped; "
            "check the disk (smartctl) before it fails"
        )
    return ""


def _well(now: Standing) -> str:
    return "Serving" if now.listed == "listed" else "Serving, unlisted: only who knows its address finds it"
