"""Invites: the links by which boxes and browsers come to this origin."""

from __future__ import annotations

from ...node.ladder.tiers import address
from ...protocol.directory import Endpoint
from ...protocol.errors import UsageError
from ...protocol.invite import Invite, Kind, format_invite
from ..keys import Keys


class Invites:
    """Makes the links of the origin with these ``keys``."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def endpoint(self) -> Endpoint:
        """Return where a node comes first; raises ``UsageError`` where nothing is announced."""
        endpoints = [endpoint for endpoint in self._keys.keyring.endpoints if not endpoint.web]
        if not endpoints:
            message = (
                "this origin has no address to put into an invite; name one with `farcast origin announce`"
            )
            raise UsageError(message, reason="no_endpoint")
        return endpoints[0]

    def link(self, kind: Kind, token: str) -> str:
        """Return the link that makes a box trust this origin and redeems ``token``."""
        endpoint = self.endpoint()
        return format_invite(
            Invite(endpoint.host, endpoint.port, self._keys.repository.root_sha256, token, kind)
        )

    def web_link(self, token: str) -> str | None:
        """Return the link that redeems an invitation in a browser; None without a ``web`` endpoint."""
        web = next((endpoint for endpoint in self._keys.keyring.endpoints if endpoint.web), None)
        return f"https://{address(web).removesuffix(':443')}/web/#token={token}" if web else None
