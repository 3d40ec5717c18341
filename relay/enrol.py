"""A relay's standing with its origin: the signed record it publishes, and keeping it fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..node.http.dial import HttpDialer
from ..node.http.problem import expect
from ..protocol.codec import encode
from ..protocol.directory import Endpoint, RelayRecord
from ..protocol.enrol import RelayRequest, open_relay_answer
from ..protocol.errors import UnreachableError, UsageError
from ..protocol.identity import Identity
from ..protocol.ports import Source

RECORD_TTL_MS = 24 * 3_600_000
RENEW_S = 6 * 3_600.0
PAYEE_FILE = "payee"


def announced(texts: Sequence[str]) -> list[Endpoint]:
    """Read ``[network] announce``: ``host:port`` or ``https://host`` entries; raises ``UsageError``."""
    found: list[Endpoint] = []
    for text in texts:
        place = text.removeprefix("https://")
        web = place != text
        host, _, port = (f"{place}:443" if web and ":" not in place else place).rpartition(":")
        if not host or not port.isdigit() or not 1 <= int(port) <= 65_535:  # noqa: PLR2004 - ports
            message = f"settings.toml: [network] announce: {text!r} is neither host:port nor https://host"
            raise UsageError(message)
        found.append(Endpoint(host.strip("[]"), int(port), web=web))
    return found


class Enrolment:
    """Posts this relay's record to the origin: at first with an invite's token, later without."""

    def __init__(
        self,
        identity: Identity,
        dialer: HttpDialer,
        origin: Callable[[], list[Source]],
        endpoints: Callable[[], list[Endpoint]],
        payee: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._identity = identity
        self._dialer = dialer
        self._origin = origin
        self._endpoints = endpoints
        self._payee = payee
        self._clock_ms = clock_ms
        self.standing = "unknown"

    async def renew(self, token: str = "") -> str:
        """Post the record; returns the standing: ``pending``, ``approved`` or ``refused``.

        Raises:
            UnreachableError: where no address of the origin answers.
            RefusedError: where the origin says no (a spent invite, an unknown relay).

        """
        now_ms = self._clock_ms()
        record = RelayRecord(
            1, self._identity.key, self._endpoints(), self._payee, now_ms, now_ms + RECORD_TTL_MS
        )
        body = encode(RelayRequest(1, token, self._identity.seal("record", record)))
        failure: Exception = UnreachableError(
            "no address of the origin is known; run `farcast relay join` first"
        )
        for source in self._origin():
            try:
                reply = await self._dialer.signed_request(source, "POST", "/v1/relays", body, self._identity)
            except UnreachableError as error:
                failure = error
                continue
            self.standing = open_relay_answer(expect(reply, 200, 202)).standing
            return self.standing
        raise failure


def read_payee(home: Path) -> str:
    """Return the payee set when this relay joined, empty where none was."""
    path = home / PAYEE_FILE
    return path.read_text().strip() if path.is_file() else ""
