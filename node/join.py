"""Joining an origin: from an invite link or a root.json file to a home that trusts it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..protocol.enrol import DeviceRequest, open_device_answer
from ..protocol.codec import encode
from ..protocol.errors import RefusedError, RemoteError, UsageError
from ..protocol.identity import peer_id
from ..protocol.invite import Invite, parse_invite
from ..protocol.ports import Source, TierName
from .home import Home
from .http.dial import HttpDialer
from .replica import Replica
from .settings import Settings
from .tiers import origin_sources
from .trust import Trust

ROOT_LIMIT_BYTES = 512 << 10
REQUEST_TIMEOUT_S = 10.0


class Joined(NamedTuple):
    """What joining found out; ``enrolled`` says whether a device token was redeemed."""

    name: str
    origin: str
    titles: int
    enrolled: bool
    online: bool


def root_from(text: str) -> tuple[bytes | None, Invite | None]:
    """Read what a person gave: a root.json file or a link; raises ``UsageError``/``RemoteError``."""
    if text.strip().startswith("farcast://"):
        return None, parse_invite(text)
    path = Path(text)
    if not path.is_file():
        raise UsageError(f"{text} is neither an invite link (farcast://...) nor a root.json file")
    data = path.read_bytes()
    if len(data) > ROOT_LIMIT_BYTES:
        raise UsageError(f"{text} is too large to be a root.json; ask the origin for the right file")
    return data, None


async def fetch_root(dialer: HttpDialer, invite: Invite) -> bytes:
    """Fetch root.json over plain HTTP and check it against the invite's hash.

    Raises:
        RemoteError: ``wrong_root`` where what is there is not what the invite names.

    """
    source = Source(TierName.RELAY, invite.address, f"http://{invite.address}")
    reply = await dialer.request(
        source, "GET", "/v1/trust/root.json", limit_bytes=ROOT_LIMIT_BYTES, timeout_s=REQUEST_TIMEOUT_S
    )
    if reply.status != 200:  # noqa: PLR2004 - there or not
        raise RefusedError(f"{invite.address} has no root.json (status {reply.status})", status=reply.status)
    if hashlib.sha256(reply.body).hexdigest() != invite.root:
        message = (
            f"the root.json at {invite.address} is not the one this invite names; "
            "do not use it, and ask the origin for a new invite"
        )
        raise RemoteError(message, reason="wrong_root")
    return reply.body


async def join(home: Home, settings: Settings, given: str, *, enrol: bool) -> tuple[Joined, Trust, HttpDialer, Invite | None]:
    """Trust an origin in ``home`` and, with an account invite, enrol this device's key.

    Works without an uplink from a root.json file: the catalog then comes by LAN or satellite.
    The returned dialer is open; the caller closes it.
    """
    root, invite = root_from(given)
    dialer = HttpDialer(allow_private=settings.network.allow_private or _is_private(invite))
    try:
        if root is None:
            assert invite is not None
            root = await fetch_root(dialer, invite)
        trust = Trust.create(home.path / "trust", root, fetcher(dialer, invite))
        online = await _try_refresh(trust)
        replica = Replica(home.path / "catalog", lambda: trust.keyring)
        enrolled = False
        if enrol and invite is not None and invite.token and invite.kind == "viewer":
            await _enrol(home, dialer, trust, invite)
            enrolled = True
        hint = trust.hint
        return Joined(hint.name, hint.peer_id, len(replica.catalog.titles()), enrolled, online), trust, dialer, invite
    except BaseException:
        await dialer.close()
        raise
