"""What an operator's `join` does: trust an origin, and stand in its directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..node.box import clock_ms
from ..node.catalog.join import Joined, join, known_origin, read_given
from ..node.catalog.trust import Trust
from ..node.home import Home, write_whole
from ..node.http.dial import HttpDialer
from ..node.ladder.tiers import address
from ..node.links import Links
from ..node.settings import Settings
from ..protocol.directory import PAYEE_PATTERN, Endpoint
from ..protocol.errors import UsageError
from ..protocol.invite import Invite
from .enrol import PAYEE_FILE, Enrolment, announced


async def join_as_relay(path: Path, link: str, payee: str) -> tuple[Joined, str, list[str]]:
    """Join and enrol; returns what joining found, the standing, and the published addresses.

    Raises:
        UsageError: a viewer's invite, a bad setting; ``RemoteError`` where the origin refuses.

    """
    given = read_given(link)
    if isinstance(given, Invite) and given.kind != "relay":
        raise UsageError("this invite is for a viewer; ask the origin for `farcast origin invite --relay`")
    settings = Settings.load(path, os.environ)
    endpoints = announced(settings.network.announce) or [
        Endpoint(host, listening_port(settings), web=False)
        for host in Links(settings.network.interfaces).addresses()[:8]
    ]
    if not re.fullmatch(PAYEE_PATTERN, payee):
        raise UsageError(f"--payee is lower-case letters, digits, dots and dashes, not {payee!r}")
    token = given.token if isinstance(given, Invite) else ""
    standing = ""

    async def enrol(home: Home, dialer: HttpDialer, trust: Trust) -> None:
        nonlocal standing
        if payee:
            write_whole(path / PAYEE_FILE, payee.encode() + b"\n")
        enrolment = Enrolment(
            home.identity, dialer, lambda: known_origin(trust), lambda: endpoints, payee, clock_ms
        )
        standing = await enrolment.renew(token)

    joined = await join(path, "relay", settings, given, enrol)
    return joined, standing, [address(endpoint) for endpoint in endpoints]


def listening_port(settings: Settings) -> int:
    """Return the port that others are told; raises ``UsageError`` where it would be another each time."""
    if not settings.listen.port:
        message = "a relay needs a port that stays: set [listen] port, or [network] announce to HOST:PORT"
        raise UsageError(message, reason="settings")
    return settings.listen.port
