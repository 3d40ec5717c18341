"""The gate: the origin's real admission over a log in memory, and nothing else of the intake.

Everything that this room and the simulated day know of admission's calls is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol.batch import PulsePost, SealRecord, TidAck, batch_hash, open_parcel
from ...protocol.codec import decode, encode
from ...protocol.rules import Rules
from ...protocol.ticket import TicketOffice
from ..pulses.admission import Admission, Arrival, Frame, Judgement, Verify, batch_arrival
from ..pulses.frame import Seals


class Gate:
    """Judges what arrives and keeps in ``log`` what brought anything new.

    ``relays`` says whose stamps count.
    """

    def __init__(
        self,
        office: TicketOffice,
        ticket_keys: Callable[[], Sequence[bytes]],
        relays: Callable[[bytes], bool],
        rules: Rules,
        *,
        verify: Verify = "eager",
    ) -> None:
        self.log: list[bytes] = []
        self._relays = relays
        self._admission = Admission(office, ticket_keys, rules, verify=verify)

    def post(self, data: bytes, now_ms: int) -> Judgement:
        """Take pulses as they are; the origin's own time is their receive time."""
        post = decode(PulsePost, data)
        return self._take(data, b"", Arrival(post.tickets, post.pulses, [now_ms] * len(post.pulses)), now_ms)

    def batch(self, data: bytes, now_ms: int) -> Judgement:
        """Take a carrier's signed batch; raises ``RemoteError`` where it is none."""
        batch, pulses = open_parcel(data)
        parts = batch_arrival(batch, pulses, now_ms, relay=self._relays(batch.carrier))
        return self._take(data, batch.carrier, parts, now_ms)

    def ack(self, tid: bytes) -> TidAck | None:
        """Return what is stored under a ticket now."""
        return self._admission.ack(tid)

    def records(self, tid: bytes) -> list[SealRecord]:
        """Return the verdicts on a ticket's closed sessions."""
        return self._admission.records(tid)

    def seal(self, now_ms: int) -> None:
        """Prove and close whatever waits."""
        self._note(self._admission.seal(now_ms, below=-1), now_ms)

    def _take(self, data: bytes, carrier: bytes, parts: Arrival, now_ms: int) -> Judgement:
        relay = bool(carrier) and self._relays(carrier)
        judged = self._admission.admit(parts, now_ms, carrier, relay=relay, name=batch_hash(data))
        self._note(self._admission.take_found(), now_ms)
        if judged.news:
            frame = Frame(1, now_ms, carrier, relay, data, judged.tickets, judged.verdicts)
            self.log.append(encode(frame))
        return judged

    def _note(self, found: Seals | None, now_ms: int) -> None:
        if found is not None:
            self.log.append(encode(Frame(1, now_ms, b"", False, encode(found), [], [])))
