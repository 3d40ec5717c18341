"""A device: signs real pulses under real tickets, for what was watched or for what never was."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.beacon import HOUR_MS
from ...protocol.identity import Identity
from ...protocol.ports import SpooledPulse
from ...protocol.pulse import ACTIVE, START, PulseSigner, Served, Viewing
from ...protocol.ticket import DAY_MS, Holder, TicketOffice
from .dice import Dice

STEP_MS = 120_000
"""Between two pulses here: the longest a heartbeat may take (60 s and 60 s more), for half the work."""
BREAK_MS = 360_000
"""Long enough to end a session."""
SESSION_MS = 5 * HOUR_MS
"""Short enough for the cap of a session."""
NO_WITNESS = bytes(16)


class Device:
    """One device of an account; ``clock_off_ms`` is how far its clock is ahead of everybody's."""

    def __init__(
        self, office: TicketOffice, account: bytes, number: int, dice: Dice, *, clock_off_ms: int = 0
    ) -> None:
        self.account = account
        self._office = office
        self._number = number
        self._dice = dice
        self._clock_off_ms = clock_off_ms
        self._signers: dict[tuple[int, int], PulseSigner] = {}
        self._sessions: dict[tuple[int, int], Identity] = {}

    def signer(self, day: int, ticket: int = 0) -> PulseSigner:
        """Return the signer of the device's ticket number ``ticket`` of a day, asked for when first used."""
        key = (day, ticket)
        if key not in self._signers:
            session = Identity(self._dice.bytes(32))
            grant = self._office.issue(
                self._dice.bytes(16), day, session.key, Holder(self.account, self._number)
            )
            self._sessions[key] = session
            self._signers[key] = PulseSigner(grant.ticket, grant.key, session)
        return self._signers[key]

    def session(self, day: int) -> Identity:
        """Return the session key of the day's first ticket."""
        self.signer(day)
        return self._sessions[day, 0]

    def stolen(self, day: int) -> PulseSigner:
        """Return a second signer with the keys of the day's ticket, where the device's own stands now."""
        signer = self.signer(day)
        return PulseSigner(
            signer.ticket, self._office.key(signer.body.tid), self._sessions[day, 0],
            seq=signer.seq, cum_ms=signer.cum_ms, prev=signer.prev,
        )  # fmt: skip

    def beat(
        self,
        title: bytes,
        at_ms: int,
        delta_ms: int,
        *,
        state: int = ACTIVE,
        served: Sequence[Served] = (),
        day: int | None = None,
        ticket: int = 0,
        beacon: int | None = None,
    ) -> SpooledPulse:
        """Sign one pulse at ``at_ms`` by everybody's clock, under the ticket of the device's own day."""
        own_ms = at_ms + self._clock_off_ms
        signer = self.signer(own_ms // DAY_MS if day is None else day, ticket)
        newest = at_ms // HOUR_MS if beacon is None else beacon
        return beat(signer, title, own_ms, delta_ms, state=state, served=served, beacon=newest)._replace(
            seen_ms=at_ms
        )

    def watch(
        self,
        title: bytes,
        start_ms: int,
        length_ms: int,
        *,
        served: Sequence[Served] = (),
        day: int | None = None,
        ticket: int = 0,
        beacon: int | None = None,
    ) -> list[SpooledPulse]:
        """Sign for one session: its beginning, and a pulse each two minutes until ``length_ms`` are over."""
        pulses = [self.beat(title, start_ms, 0, state=START, day=day, ticket=ticket, beacon=beacon)]
        pulses += [
            self.beat(title, at_ms, STEP_MS, served=served, day=day, ticket=ticket, beacon=beacon)
            for at_ms in range(start_ms + STEP_MS, start_ms + length_ms + 1, STEP_MS)
        ]
        return pulses

    def binge(
        self, title: bytes, start_ms: int, length_ms: int, *, day: int | None = None
    ) -> list[SpooledPulse]:
        """Sign for ``length_ms`` in sessions of five hours, with a break after each."""
        pulses: list[SpooledPulse] = []
        while length_ms >= STEP_MS:
            stretch_ms = min(length_ms, SESSION_MS)
            pulses += self.watch(title, start_ms, stretch_ms, day=day)
            length_ms -= stretch_ms
            start_ms += stretch_ms + BREAK_MS
        return pulses


def beat(
    signer: PulseSigner,
    title: bytes,
    own_ms: int,
    delta_ms: int,
    *,
    state: int = ACTIVE,
    served: Sequence[Served] = (),
    beacon: int = 0,
) -> SpooledPulse:
    """Let a signer sign one pulse at ``own_ms`` by the clock of whoever holds it."""
    viewing = Viewing(state, title, 0, 0, list(served), NO_WITNESS)
    pulse = signer.sign(own_ms, delta_ms, beacon, viewing)
    return SpooledPulse(signer.body.tid, signer.seq, pulse, signer.ticket, seen_ms=own_ms, own=True)


def stretch(signer: PulseSigner, title: bytes, start_ms: int, length_ms: int) -> list[SpooledPulse]:
    """Let a signer sign for one session, whoever holds it."""
    pulses = [beat(signer, title, start_ms, 0, state=START)]
    pulses += [
        beat(signer, title, at_ms, STEP_MS)
        for at_ms in range(start_ms + STEP_MS, start_ms + length_ms + 1, STEP_MS)
    ]
    return pulses
