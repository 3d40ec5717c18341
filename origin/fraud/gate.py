"""The gate: the origin's real admission over a log in memory, and nothing else of the intake.

Everything that this room and the simulated day know of admission's calls is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...protocol.batch import PulsePost, TidAck, open_batch
from ...protocol.codec import decode, encode
from ...protocol.rules import Rules
from ...protocol.ticket import TicketOffice
from ..pulses.admission import Admission, Arrival, Frame, Judgement, batch_arrival


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
    ) -> None:
        self.log: list[bytes] = []
        self._relays = relays
        self._admission = Admission(office, ticket_keys, rules)

    def post(self, data: bytes, now_ms: int) -> Judgement:
        """Take pulses as they are; the origin's own time is their receive time."""
        post = decode(PulsePost, data)
        return self._take(data, b"", Arrival(post.tickets, post.pulses, [now_ms] * len(post.pulses)), now_ms)

    def batch(self, data: bytes, now_ms: int) -> Judgement:
        """Take a carrier's signed batch; raises ``RemoteError`` where it is none."""
        batch = open_batch(data)
        parts = batch_arrival(batch, now_ms, relay=self._relays(batch.carrier))
        return self._take(data, batch.carrier, parts, now_ms)

    def ack(self, tid: bytes) -> TidAck | None:
        """Return what is stored under a ticket now."""
        return self._admission.ack(tid)

    def _take(self, data: bytes, carrier: bytes, parts: Arrival, now_ms: int) -> Judgement:
        judged = self._admission.judge(parts, now_ms)
        if judged.news:
            relay = bool(carrier) and self._relays(carrier)
            frame = Frame(1, now_ms, carrier, relay, data, judged.tickets, judged.verdicts)
            self._admission.apply(frame)
            self.log.append(encode(frame))
        return judged
