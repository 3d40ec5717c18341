"""What the commands of an operator do: join an origin, run the relay."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from ..node.box import clock_ms
from ..node.console import Console
from ..node.home import Home, write_whole
from ..node.http.dial import HttpDialer
from ..node.join import Joined, join, known_origin, read_given, trust_fetch
from ..node.links import Links
from ..node.settings import Settings
from ..node.tiers import address
from ..node.trust import Trust
from ..protocol.directory import Endpoint
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
    joined = await join(path, "relay", settings, link)
    token = given.token if isinstance(given, Invite) else ""
    if payee:
        write_whole(path / PAYEE_FILE, payee.encode() + b"\n")
    endpoints = announced(settings.network.announce) or [
        Endpoint(host, settings.listen.port, web=False)
        for host in Links(settings.network.interfaces).addresses()[:8]
    ]
    with Home.open(path, "relay") as home:
        async with HttpDialer(allow_private=settings.network.allow_private) as dialer:
            trust = Trust(home.path / "trust", trust_fetch(dialer, lambda: known_origin(trust)))
            enrolment = Enrolment(
                home.identity, dialer, lambda: known_origin(trust), lambda: endpoints, payee, clock_ms
            )
            standing = await enrolment.renew(token)
    return joined, standing, [address(endpoint) for endpoint in endpoints]


def run_relay(path: Path, console: Console) -> None:
    """Run the relay in ``path`` until told to stop."""
    from .service import RelayService

    settings = Settings.load(path, os.environ)
    logging.basicConfig(level=settings.log.level.upper(), format="%(levelname)s %(name)s: %(message)s")
    home = Home.open(path, "relay")

    async def serve() -> None:
        service = RelayService(home, settings)

        def started() -> None:
            assert service.box.listener is not None
            console.result(
                {"public_port": service.box.listener.port, "local_url": service.box.local_url},
                f"Relay {home.identity.peer_id}",
                f"  public  port {service.box.listener.port} (TCP and UDP)",
                f"  page    {service.box.local_url}/",
            )

        await service.run(started)

    asyncio.run(serve())
