"""The origin of the simulated day: the real admission and the real credit over a log in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from farcast.origin.money.credit import Credit, credit
from farcast.origin.pulses.admission import STORED, Admission, Frame, batch_arrival
from farcast.origin.pulses.evidence import Evidence
from farcast.protocol.batch import TidAck, open_batch
from farcast.protocol.codec import encode
from farcast.protocol.manifest import Manifest
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import TicketOffice

RULES = Rules()


class Till:
    """Takes batches, answers with what it has, and says at the end of the day what counts."""

    def __init__(self, office: TicketOffice, ticket_key: bytes) -> None:
        self._office = office
        self._admission = Admission(office, lambda: [ticket_key], RULES)
        self.log: list[bytes] = []
        self.verdicts: Counter[str] = Counter()

    def take(self, data: bytes, now_ms: int) -> list[TidAck]:
        """Judge a relay's batch, keep it if it brings anything new, and ack what is stored."""
        batch = open_batch(data)
        judged = self._admission.judge(batch_arrival(batch, now_ms, relay=True), now_ms)
        if judged.news:
            frame = Frame(1, now_ms, batch.carrier, True, data, judged.tickets, judged.verdicts)
            self._admission.apply(frame)
            self.log.append(encode(frame))
        self.verdicts.update(judged.verdicts)
        acks = [self._admission.ack(tid) for tid in dict.fromkeys(judged.tids)]
        return [ack for ack in acks if ack is not None]

    @property
    def stored(self) -> int:
        """How many pulses were taken for the first time."""
        return self.verdicts[STORED]

    def counted(self, days: range, manifests: Callable[[bytes], Manifest | None]) -> list[Credit]:
        """Read the log again and apply the rules of credit."""
        evidence = Evidence(self.log, self._office, days)
        return credit(evidence.facts(len(self.log), days, manifests), RULES)
