"""What the boxes of the simulated day keep pulses in, by the rules of the spool on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from farcast.protocol.batch import TidAck, batch_hash, covers
from farcast.protocol.ports import SpooledPulse


class Spool:
    """A spool in memory, by the rules of the one on disk: only an ack takes a pulse out."""

    def __init__(self) -> None:
        self.held: dict[bytes, dict[int, SpooledPulse]] = {}
        self.acks: dict[bytes, TidAck] = {}
        self.count = 0

    def add(self, items: Iterable[SpooledPulse]) -> list[SpooledPulse]:
        """Store what is new and not acked yet; returns it."""
        new: list[SpooledPulse] = []
        for item in items:
            tid, seq = item[0], item[1]
            held = self.held.get(tid)
            if held is None:
                held = self.held[tid] = {}
            elif seq in held:
                continue
            ack = self.acks.get(tid)
            if ack is None or not covers(ack, seq):
                held[seq] = item
                new.append(item)
            elif not held:
                del self.held[tid]
        self.count += len(new)
        return new

    def settle(self, ack: TidAck) -> None:
        """Let go of what the origin has."""
        known = self.acks.get(ack.tid)
        if known is not None and known.upto + len(known.extra) >= ack.upto + len(ack.extra):
            return
        self.acks[ack.tid] = ack
        held = self.held.get(ack.tid)
        if held is None:
            return
        upto = ack.upto
        if not ack.extra and not ack.rejects and max(held) <= upto:
            self.count -= len(held)
            del self.held[ack.tid]
            return
        extra = set(ack.extra).union(reject.seq for reject in ack.rejects)
        left = {seq: item for seq, item in held.items() if seq > upto and seq not in extra}
        self.count -= len(held) - len(left)
        if left:
            self.held[ack.tid] = left
        else:
            del self.held[ack.tid]

    def lose(self) -> None:
        """Lose everything, as a box whose disk has died."""
        self.held, self.acks, self.count = {}, {}, 0


class Shelf:
    """What the batcher asks of a spool: the pulses in no batch yet, and the batches not acked yet."""

    def __init__(self) -> None:
        self.fresh: list[SpooledPulse] = []
        self.open: dict[int, bytes] = {}
        self._last = (0, bytes(32))

    def unbatched(self, limit: int) -> list[SpooledPulse]:
        """Return the oldest pulses in no batch."""
        return self.fresh[:limit]

    def next_batch(self) -> tuple[int, bytes]:
        """Return the next batch's number and the hash of the last one."""
        return self._last[0] + 1, self._last[1]

    def add_batch(self, number: int, data: bytes, pulses: Sequence[SpooledPulse]) -> None:
        """Put up a sealed batch."""
        self.open[number] = data
        self._last = (number, batch_hash(data))
        del self.fresh[: len(pulses)]
