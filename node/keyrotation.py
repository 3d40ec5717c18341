"""A relay's new key: agreed by both keys, told to the origin, and only then the one of this home.

The new key waits in ``identity.next`` until the origin has it, so that whatever moment the process or
the machine dies at, the same command again goes on where it broke off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ..protocol.codec import decode
from ..protocol.errors import UnreachableError, UsageError
from ..protocol.identity import KEY_BYTES, Identity, peer_id
from ..protocol.rotation import seal_rotation
from .catalog.join import known_origin, trust_fetch
from .catalog.trust import Trust
from .home import KEY_FILE, ROLE_FILE, Home, write_whole
from .http.dial import HttpDialer
from .http.problem import expect
from .pulses.acks import Acks
from .pulses.batcher import Batcher
from .pulses.spool import DiskSpool
from .settings import Settings

NEXT_FILE = "identity.next"
FIRST_FILE = "identity.first"
"""The public key that names a relay which has had several."""


class Rotated(NamedTuple):
    """Peer ids: who the relay is, and the keys it had and has."""

    relay: str
    old: str
    new: str


async def rotate(path: Path, settings: Settings, clock_ms: Callable[[], int]) -> Rotated:
    """Give the relay at ``path`` a new key; what its old key has promised is delivered first.

    Raises:
        UsageError: the home is no relay's, or in use.
        UnreachableError: the origin does not answer; nothing has changed, or the next try goes on.
        RefusedError: the origin says no.

    """
    role = path / ROLE_FILE
    if role.is_file() and role.read_text().strip() != "relay":
        raise UsageError(f"only a relay's key can be rotated, and {path} is the home of another box")
    with Home.open(path, "relay") as home:
        old, new = home.identity, _next(path)
        first = (path / FIRST_FILE).read_bytes() if (path / FIRST_FILE).is_file() else old.key
        async with HttpDialer(allow_private=settings.network.allow_private) as dialer:
            trust = Trust(
                path / "trust", trust_fetch(dialer, lambda: known_origin(trust)), CollectorRegistry()
            )
            await _deliver(path, old, dialer, trust, clock_ms)
            await _tell(seal_rotation(first, old, new, clock_ms()), new, dialer, trust)
        write_whole(path / FIRST_FILE, first)
        (path / NEXT_FILE).replace(path / KEY_FILE)
        return Rotated(peer_id(first), old.peer_id, new.peer_id)


def _next(path: Path) -> Identity:
    waiting = path / NEXT_FILE
    with suppress(FileNotFoundError):
        seed = waiting.read_bytes()
        if len(seed) == KEY_BYTES:
            return Identity(seed)
    seed = secrets.token_bytes(KEY_BYTES)
    write_whole(waiting, seed)
    return Identity(seed)


async def _deliver(
    path: Path, old: Identity, dialer: HttpDialer, trust: Trust, clock_ms: Callable[[], int]
) -> None:
    """Send what waits in batches of the old key, whose stamps count no longer afterwards."""
    registry = CollectorRegistry()
    spool = DiskSpool(path / "spool.db", registry)
    try:
        acks = Acks(spool, lambda: trust.keyring, registry)
        await Batcher(spool, old, dialer, lambda: known_origin(trust), acks, clock_ms, registry).flush()
    finally:
        spool.close()


async def _tell(rotation: bytes, new: Identity, dialer: HttpDialer, trust: Trust) -> None:
    failure = UnreachableError("no address of the origin is known; run `farcast relay join` first")
    for source in known_origin(trust):
        try:
            reply = await dialer.signed_request(source, "POST", "/v1/relays/rotation", rotation, new)
        except UnreachableError as error:
            failure = error
            continue
        decode(bytes, expect(reply, 200))
        return
    raise failure
