"""Joining an origin: from an invite link or a root.json file to a home that trusts it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...protocol.codec import encode
from ...protocol.enrol import DeviceRequest, open_device_answer
from ...protocol.errors import FarcastError, RemoteError, UnreachableError, UsageError
from ...protocol.invite import LINK_LIMIT_CHARS, Invite, parse_invite
from ...protocol.ports import Dialer, Source, TierName
from ..home import KEY_FILE, Home, Role, write_whole
from ..http.dial import HttpDialer
from ..http.problem import expect
from ..ladder.tiers import address, origin_sources
from ..settings import Settings
from .rootfile import FILE_LIMIT_BYTES, Hint, find_root, read_root
from .trust import Trust

REQUEST_TIMEOUT_S = 8.0
ENROLLED_FILE = "enrolled"
"""Its presence says that an account knows this device, so that tickets may be asked for."""


class Joined(NamedTuple):
    """What joining found out; ``enrolled`` says whether a device token was redeemed."""

    name: str
    origin: str
    enrolled: bool
    online: bool


def read_given(text: str) -> bytes | Invite:
    """Read what a person gave: the bytes of a root.json file, or a link; ``-`` reads it from stdin.

    Raises:
        UsageError: neither, or a link that is broken.

    """
    if text == "-":
        text = sys.stdin.readline(LINK_LIMIT_CHARS + 1)
    if text.strip().startswith("farcast:"):
        try:
            return parse_invite(text)
        except RemoteError as error:
            raise UsageError(str(error), reason=error.reason) from error
    path = Path(text)
    if not path.is_file():
        message = f"{text!r} is neither an invite link (farcast://...) nor a root.json file"
        raise UsageError(message, reason="bad_invite")
    if path.stat().st_size > FILE_LIMIT_BYTES:
        raise UsageError(f"{text} is too large to be a root.json; ask the origin for the right file")
    return path.read_bytes()


def trust_fetch(
    dialer: Dialer,
    sources: Callable[[], Sequence[Source]],
    failed: Callable[[FarcastError], object] = lambda _: None,
) -> Callable[[str], bytes | None]:
    """Return a fetcher of trust files from ``sources`` in turn; made on the event loop, called off it.

    ``failed`` hears why a source could not be asked.
    """
    loop = asyncio.get_running_loop()

    async def ask(name: str) -> bytes | None:
        for source in sources():
            try:
                reply = await dialer.request(
                    source,
                    "GET",
                    f"/v1/trust/{name}",
                    limit_bytes=FILE_LIMIT_BYTES,
                    timeout_s=REQUEST_TIMEOUT_S,
                )
            except FarcastError as error:
                failed(error)
                continue
            if reply.status == 200:  # noqa: PLR2004 - the next source may have it
                return reply.body
        return None

    def fetch(name: str) -> bytes | None:
        return asyncio.run_coroutine_threadsafe(ask(name), loop).result()

    return fetch


def known_origin(trust: Trust) -> list[Source]:
    """Return the origin's listeners: by the keyring, or before it by what root.json says."""
    if trust.keyring is not None:
        return origin_sources(trust.keyring)
    if trust.hint is None:
        return []
    return [
        Source(TierName.RELAY, "origin", address(endpoint), trust.hint.box)
        for endpoint in trust.hint.endpoints
    ]


async def join(
    path: Path,
    role: Role,
    settings: Settings,
    given: str | bytes | Invite,
    finish: Callable[[Home, HttpDialer, Trust], Awaitable[None]] | None = None,
) -> Joined:
    """Make a home that trusts the origin ``given`` names; with an account invite, enrol this device.

    From a root.json file it works without an uplink: the rest then comes by LAN or satellite.
    ``finish`` is what a role has to do before it counts as joined. Nothing is left behind where
    any of it fails.

    Raises:
        UsageError: the home exists with another origin, or ``given`` is no invite.
        RemoteError: ``wrong_root``, or the origin refuses the token.

    """
    found = read_given(given) if isinstance(given, str) else given
    if isinstance(found, Invite) and found.kind == "relay" and role == "node":
        message = "this invite is for a relay; use `farcast relay join`, or ask for a viewer's invite"
        raise UsageError(message, reason="bad_invite")
    async with HttpDialer(allow_private=settings.network.allow_private) as dialer:
        if isinstance(found, bytes):
            root, expected, sources = found, None, list[Source]()
        else:
            plain = Source(TierName.RELAY, found.address, f"http://{found.address}")
            sources, expected = [plain], found.root
            root = await _given_root(dialer, found, sources)
        read_root(root, expected)
        home = Home.open(path, role) if (path / KEY_FILE).exists() else Home.create(path, role)
        try:
            trust = Trust(home.path / "trust", trust_fetch(dialer, lambda: [*known_origin(trust), *sources]))
            hint = trust.adopt(root, expected)
            online, enrolled = await _try(trust), False  # before a token is spent on trust that fails
            if isinstance(found, Invite) and found.token and found.kind == "viewer" and role == "node":
                await _enrol(home, dialer, trust, found.token)
                write_whole(home.path / ENROLLED_FILE, b"")
                enrolled = True
            if finish is not None:
                await finish(home, dialer, trust)
            return Joined(hint.name, hint.peer_id, enrolled, online)
        except BaseException:
            home.unmake()
            raise
        finally:
            home.close()


async def known_root(dialer: Dialer, given: bytes | Invite) -> Hint:
    """Return whose origin ``given`` names, and trust or write nothing; raises as ``join``."""
    if isinstance(given, bytes):
        return read_root(given, None)
    plain = Source(TierName.RELAY, given.address, f"http://{given.address}")
    return read_root(await _given_root(dialer, given, [plain]), given.root)


async def _given_root(dialer: Dialer, invite: Invite, sources: list[Source]) -> bytes:
    """Return the root.json that ``invite`` names, from the origin itself; says why it cannot be had."""
    failures: list[FarcastError] = []
    fetch = trust_fetch(dialer, lambda: sources, failures.append)
    try:
        return await asyncio.to_thread(find_root, fetch, invite.root)
    except UnreachableError as error:
        why = failures[-1] if failures else "it hands none out"
        message = f"no root.json from the origin at {invite.address} ({why}); is it up, and are you online?"
        raise UnreachableError(message) from error
    except RemoteError as error:
        raise RemoteError(f"{invite.address}: {error}", reason=error.reason) from error


async def _try(trust: Trust) -> bool:
    try:
        await trust.refresh()
    except UnreachableError:
        return False
    except RemoteError as error:
        if error.reason != "expired":
            raise
        message = f"{error}; is this device's clock right? If it is, the origin has to renew them"
        raise RemoteError(message, reason="expired") from error
    return True


async def _enrol(home: Home, dialer: HttpDialer, trust: Trust, token: str) -> None:
    body = encode(DeviceRequest(1, token, home.identity.key))
    failure: FarcastError = UnreachableError("the origin's root.json names no address")
    for source in known_origin(trust):
        try:
            reply = await dialer.signed_request(source, "POST", "/v1/devices", body, home.identity)
        except UnreachableError as error:
            failure = error
            continue
        open_device_answer(expect(reply, 200))
        return
    raise failure
