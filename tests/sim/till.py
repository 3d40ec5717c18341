"""The origin of the simulated day: the real admission and the real credit over a log in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from farcast.origin.fraud.gate import Gate
from farcast.origin.money.credit import Credit, credit
from farcast.origin.pulses.admission import PENDING, STORED, Verify
from farcast.origin.pulses.evidence import Evidence
from farcast.protocol.batch import SealRecord, TidAck
from farcast.protocol.manifest import Manifest
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import TicketOffice

RULES = Rules()


class Till:
    """Takes batches, answers with what it has, and says at the end of the day what counts."""

    def __init__(self, office: TicketOffice, ticket_key: bytes, verify: Verify) -> None:
        self._office = office
        self._gate = Gate(office, lambda: [ticket_key], lambda _: True, RULES, verify=verify)
        self.verdicts: Counter[str] = Counter()

    @property
    def log(self) -> list[bytes]:
        """The intake log."""
        return self._gate.log

    def take(self, data: bytes, now_ms: int) -> list[TidAck]:
        """Judge a relay's batch and ack what is stored."""
        judged = self._gate.batch(data, now_ms)
        self.verdicts.update(judged.verdicts)
        acks = [self._gate.ack(tid) for tid in dict.fromkeys(judged.tids)]
        return [ack for ack in acks if ack is not None]

    @property
    def taken(self) -> int:
        """How many pulses were stored, each when it came first."""
        return self.verdicts[STORED] + self.verdicts[PENDING]

    def seal(self, now_ms: int, tids: Iterable[bytes]) -> dict[bytes, list[SealRecord]]:
        """Prove and close every session; returns the verdicts of credit by ticket."""
        self._gate.seal(now_ms)
        return {tid: self._gate.records(tid) for tid in tids}

    def counted(self, days: range, manifests: Callable[[bytes], Manifest | None]) -> list[Credit]:
        """Read the log again and apply the rules of credit."""
        evidence = Evidence(self.log, self._office, days)
        return credit(evidence.facts(len(self.log), days, manifests), RULES)
