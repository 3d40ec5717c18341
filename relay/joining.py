"""What an operator's `join` does: trust an origin, and stand in its directory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ..node.box import clock_ms
from ..node.catalog.join import Joined, join, known_origin, read_given
from ..node.catalog.trust import Trust
from ..node.home import Home, write_whole
from ..node.http.dial import HttpDialer
from ..node.ladder.tiers import address
from ..node.settings import Settings
from ..node.settingsfile import set_key
from ..protocol.directory import PAYEE_PATTERN
from ..protocol.errors import UsageError
from ..protocol.invite import Invite
from .enrol import LEFT_FILE, PAYEE_FILE, Enrolment, read_payee
from .outside import Outside


class Enrolled(NamedTuple):
    """How a relay stands after it joined; ``faults`` are lines about what the origin could not reach."""

    joined: Joined
    standing: str
    reason: str
    endpoints: list[str]
    faults: list[str]


async def join_as_relay(
    path: Path,
    link: str,
    payee: str,
    *,
    unlisted: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Enrolled:
    """Join and enrol; a relay does not listen yet, so that the origin reaches nothing is no fault.

    ``tell`` hears, before anything is sent, what everybody will see.

    Raises:
        UsageError: a viewer's invite, a bad setting; ``RemoteError`` where the origin refuses.

    """
    given = read_given(link)
    if isinstance(given, Invite) and given.kind != "relay":
        raise UsageError("this invite is for a viewer; ask the origin for `farcast origin invite --relay`")
    settings = Settings.load(path, os.environ)
    outside = outside_of(settings)
    if not re.fullmatch(PAYEE_PATTERN, payee):
        raise UsageError(f"--payee is lower-case letters, digits, dots and dashes, not {payee!r}")
    payee = payee or read_payee(path)  # joining again without one changes nobody's pay
    token = given.token if isinstance(given, Invite) else ""
    enrolment: Enrolment | None = None

    async def enrol(home: Home, dialer: HttpDialer, trust: Trust) -> None:
        nonlocal enrolment
        if payee:
            write_whole(path / PAYEE_FILE, payee.encode() + b"\n")
        if unlisted:
            set_key(path, "contract.listed", "false")
        listed = settings.contract.listed and not unlisted
        enrolment = Enrolment(
            home.identity, dialer, lambda: known_origin(trust), lambda: endpoints, payee, clock_ms,
            lambda: "listed" if listed else "unlisted",
        )  # fmt: skip
        if listed:
            shown = ", ".join(address(endpoint) for endpoint in endpoints)
            tell(f"the origin's directory will show everybody this box's address: {shown}")
        await enrolment.renew(token)
        (path / LEFT_FILE).unlink(missing_ok=True)

    async with outside.asked():
        endpoints = outside.endpoints()
        joined = await join(path, "relay", settings, given, enrol)
    assert enrolment is not None
    return Enrolled(
        joined,
        enrolment.standing,
        enrolment.reason,
        [address(endpoint) for endpoint in endpoints],
        [f"{place}: {why}" for place, why in enrolment.lost],
    )


def outside_of(settings: Settings) -> Outside:
    """Return this box as it is found from outside, for a command; raises as ``listening_port``."""
    port = listening_port(settings) if not settings.network.announce else 0
    outside = Outside(lambda: settings, lambda: port, lambda: None, CollectorRegistry())
    outside.overlay.ask_at(settings.network.yggdrasil)
    return outside


def listening_port(settings: Settings) -> int:
    """Return the port that others are told; raises ``UsageError`` where it would be another each time."""
    if not settings.listen.port:
        message = "a relay needs a port that stays: set [listen] port, or [network] announce to HOST:PORT"
        raise UsageError(message, reason="settings")
    return settings.listen.port
