"""A relay's standing with its origin: the signed record it publishes, and keeping it fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..node.http.dial import HttpDialer
from ..node.http.problem import expect
from ..node.ladder.tiers import address
from ..node.news import Own
from ..protocol.codec import encode
from ..protocol.directory import Endpoint, RelayRecord
from ..protocol.enrol import Fault, RelayAnswer, RelayRequest, Wish, open_relay_answer
from ..protocol.errors import RefusedError, UnreachableError, UsageError
from ..protocol.identity import Identity
from ..protocol.ports import Source

RECORD_TTL_MS = 24 * 3_600_000
RENEW_S = 6 * 3_600.0
ANSWER_S = 20.0
"""The origin dials back before it answers."""
PAYEE_FILE = "payee"
LEFT_FILE = "left"
"""Stands in the home of a relay that has left its origin."""


def announced(texts: Sequence[str]) -> list[Endpoint]:
    """Read ``[network] announce``: ``host:port`` or ``https://host`` entries; raises ``UsageError``."""
    found: list[Endpoint] = []
    for text in texts:
        place = text.removeprefix("https://")
        web = place != text
        if web and ":" not in place.rpartition("]")[2]:
            place += ":443"
        host, _, port = place.rpartition(":")
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
        wish: Callable[[], Wish] = lambda: "listed",
    ) -> None:
        """Publish ``endpoints`` to ``origin``; ``wish`` is what is wanted of its directory."""
        self._identity = identity
        self._dialer = dialer
        self._origin = origin
        self._endpoints = endpoints
        self._payee = payee
        self._clock_ms = clock_ms
        self._wish = wish
        self._renewing = asyncio.Lock()
        self.standing = "unknown"
        self.reason = ""
        """Why the origin refused this relay, in its words."""
        self.published: list[Endpoint] = []
        """What the box wanted published at the last renewal."""
        self.trouble = ""
        """Why the origin did not take the newest record, empty where it did or did not answer."""
        self.own: Own | None = None
        """The newest record, whether or not the origin has it; None for a relay that wants no viewers."""
        self.listed = False
        """Whether the origin's directory has it, as of the last answer."""
        self.faults: list[Fault] = []
        """What the origin could not connect to."""

    @property
    def wish(self) -> Wish:
        """What this relay wants of the directory now."""
        return self._wish()

    @property
    def lost(self) -> list[tuple[str, str]]:
        """The published addresses that cannot be used at all, each with why."""
        return [(fault.endpoint, fault.why) for fault in self.faults if fault.lost == "both"]

    async def renew(self, token: str = "", *, wish: Wish | None = None) -> str:
        """Post the record; returns the standing: ``pending``, ``approved`` or ``refused``.

        Raises:
            UnreachableError: where no address of the origin answers.
            RefusedError: where the origin says no (a spent invite, an unknown relay).

        """
        async with self._renewing:
            endpoints = self.published = self._endpoints()
            if not endpoints:
                raise UsageError("this relay has no address to publish; set [network] announce to HOST:PORT")
            answer = await self._post(endpoints, token, wish or self._wish())
            lost = {fault.endpoint for fault in answer.faults if fault.lost == "both"}
            reached = [endpoint for endpoint in endpoints if address(endpoint) not in lost]
            if reached and len(reached) < len(endpoints):
                # viewers are told only of what works; all are tried again at the next renewal
                faults = answer.faults
                answer = await self._post(reached, "", wish or self._wish())
                answer = msgspec.structs.replace(answer, faults=[*faults, *answer.faults][:8])
            self.standing, self.reason = answer.standing, answer.reason
            self.listed, self.faults = answer.listed, answer.faults
            return self.standing

    async def _post(self, endpoints: list[Endpoint], token: str, wish: Wish) -> RelayAnswer:
        """Post a record of these endpoints.

        Raises:
            UnreachableError: where no address of the origin answers.
            RefusedError: where the origin says no (a spent invite, an unknown relay).

        """
        now_ms = self._clock_ms()
        record = RelayRecord(1, self._identity.key, endpoints, self._payee, now_ms, now_ms + RECORD_TTL_MS)
        sealed = self._identity.seal("record", record)
        self.own = Own(record, sealed) if wish == "listed" else None
        body = encode(RelayRequest(2, token, sealed, wish))
        failure: Exception = UnreachableError(
            "no address of the origin is known; run `farcast relay join` first"
        )
        for source in self._origin():
            try:
                reply = await self._dialer.signed_request(
                    source, "POST", "/v1/relays", body, self._identity, timeout_s=ANSWER_S
                )
            except UnreachableError as error:
                failure = error
                continue
            try:
                answer = open_relay_answer(expect(reply, 200, 202))
            except RefusedError as error:
                self.trouble = str(error)
                raise
            self.trouble = ""
            return answer
        raise failure


def read_payee(home: Path) -> str:
    """Return the payee set when this relay joined, empty where none was."""
    path = home / PAYEE_FILE
    return path.read_text().strip() if path.is_file() else ""
