"""Rows of the columns: what the entries of the intake log hold, as lines that DuckDB reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from ...protocol.errors import RemoteError
from ...protocol.ports import TierName
from ...protocol.pulse import Viewing, open_viewing, pulse_hash, read_pulse
from ...protocol.ticket import TicketOffice
from .admission import DUPLICATE, EQUIVOCATION, WITNESS, Copy, Frame, arrival, open_frame, tickets
from .chain import Found, Sieve
from .duck import duck, parquet
from .segments import Entry, Place

FIRST, AGAIN, OTHER_BODY, UNREADABLE, DOUBTFUL = 0, 1, 2, 3, 4
"""Kinds of row: a body's first copy, a later copy of it, another body under a number, no readable viewing,
and what tells of a body that is not shown to be authentic, or whose witness was found false."""
NOBODY = 0
"""The number of a title or relay that has none here; whoever watched it is judged by the log itself."""
MAX_NEW_RELAYS = 1_000
"""Relays a part may number: what viewers sign is theirs to invent, and must not fill the tables."""
_SERVED = 4


class Names:
    """Small numbers for titles and relays, from 1, in the order they are met."""

    def __init__(
        self, titles: Iterable[bytes], relays: Iterable[bytes], known: Callable[[bytes], object]
    ) -> None:
        """Continue after these; only a title that ``known`` finds is given a number."""
        self._known = known
        self.titles = list(titles)
        self.relays = list(relays)
        self._title = {name: number for number, name in enumerate(self.titles, 1)}
        self._relay = {name: number for number, name in enumerate(self.relays, 1)}
        self._fresh = 0

    def title(self, digest: bytes) -> int:
        """Return the number of a title, ``NOBODY`` for one that is not published."""
        number = self._title.get(digest, NOBODY)
        if number == NOBODY and self._known(digest) is not None:
            self.titles.append(digest)
            number = self._title[digest] = len(self.titles)
        return number

    def relay(self, key: bytes) -> int:
        """Return the number of a relay, ``NOBODY`` where this part has met too many new ones."""
        number = self._relay.get(key, NOBODY)
        if number == NOBODY and self._fresh < MAX_NEW_RELAYS:
            self._fresh += 1
            self.relays.append(key)
            number = self._relay[key] = len(self.relays)
        return number

    def next_part(self) -> None:
        """Let the next part number relays again."""
        self._fresh = 0


def bucket_of(account: bytes) -> int:
    """Return the bucket of an account, 0 to 255."""
    return sha256(account).digest()[0]


class Rows:
    """Turns log entries into lines that DuckDB reads."""

    def __init__(self, folder: Path, first: int, office: TicketOffice, names: Names) -> None:
        self.first = self.end = first
        self.place = Place("", 0)
        self.chain = b""
        self._folder = folder
        self._office = office
        self._names = names
        self._met: dict[bytes, int] = {}
        self._keys: dict[bytes, bytes] = {}
        self._brought: set[bytes] = set()
        self._sieve = Sieve()

    def read(self, entries: Iterable[Entry], earlier: Sequence[Path], root: Path) -> None:
        """Write the lines of ``entries``; ``earlier`` are the tickets of the parts before, under ``root``."""
        with (
            (self._folder / "pulses.csv").open("w") as pulses,
            (self._folder / "met.csv").open("w") as met,
            (self._folder / "frames.csv").open("w") as frames,
        ):
            for entry in entries:
                self._entry(entry, pulses, met, frames)
            if self._sieve.doubtful():
                self._learn(earlier, root)
                pulses.writelines(map(self._found, self._sieve.rest()))
                for found in self._sieve.doubtful():
                    pulses.write(self._row(found.copy, found.position, DOUBTFUL))
            for tid, number in self._met.items():
                if tid not in self._brought:
                    met.write(f"{number},{tid.hex()},,,,,,\n")

    def _learn(self, earlier: Sequence[Path], root: Path) -> None:
        """Find the session keys of tickets that earlier parts brought."""
        tids = {found.copy.pulse.tid for found in self._sieve.doubtful()} - self._brought
        if tids and earlier:
            with duck(root) as db:
                known = f"SELECT tid, session FROM {parquet(earlier)} WHERE list_contains($1, tid)"
                for tid, session in db.execute(known, [list(tids)]).fetchall():
                    self._sieve.learn(tid, session)

    def _entry(self, entry: Entry, pulses: TextIO, met: TextIO, frames: TextIO) -> None:
        frame = open_frame(entry.payload)
        number, place = self.end, entry.place
        frames.write(f"{number},{frame.at_ms},{place.segment},{place.offset},{entry.leaf.hex()}\n")
        for ticket in tickets(frame):
            if ticket.tid not in self._brought:
                self._brought.add(ticket.tid)
                holder = self._office.holder(ticket)
                met.write(
                    f"{self._number(ticket.tid)},{ticket.tid.hex()},{holder.account.hex()},{holder.device},"
                    f"{ticket.day},{bucket_of(holder.account)},{number},{ticket.session.hex()}\n"
                )
        pulses.writelines(map(self._found, self._sieve.read(number, frame)))
        if WITNESS in frame.verdicts:
            pulses.writelines(self._condemned(frame, number))
        self.end, self.place, self.chain = number + 1, place, entry.chain

    def _condemned(self, frame: Frame, entry: int) -> Iterator[str]:
        for data, verdict in zip(arrival(frame).pulses, frame.verdicts, strict=True):
            if verdict == WITNESS:
                pulse, signed = read_pulse(data)
                yield self._row(Copy(pulse, pulse_hash(signed.body), frame.at_ms, verdict), entry, DOUBTFUL)

    def _found(self, found: Found) -> str:
        """Write a copy; one that only a later entry shows to be authentic is for the log itself to judge."""
        sure = self._sieve.is_sure(found)
        return self._row(found.copy, found.position, FIRST if sure else DOUBTFUL)

    def _row(self, copy: Copy, entry: int, doubt: int = FIRST) -> str:
        pulse = copy.pulse
        met = self._number(pulse.tid)
        kind = AGAIN if copy.verdict == DUPLICATE else OTHER_BODY if copy.verdict == EQUIVOCATION else FIRST
        try:
            viewing = open_viewing(pulse, self._keys[pulse.tid])
        except RemoteError:
            state, title, served = 0, NOBODY, ""
            kind = AGAIN if kind == AGAIN else UNREADABLE
        else:
            state, title = viewing.state, self._names.title(viewing.manifest)
            items = list(self._served(viewing))
            kind = UNREADABLE if kind == FIRST and any(relay == NOBODY for relay, _ in items) else kind
            served = ",".join(f"{relay},{kbytes}" for relay, kbytes in items)
            served += "," * (2 * (_SERVED - len(items)) - (0 if items else 1))
        kind = doubt or kind
        return (
            f"{met},{pulse.seq},{pulse.at_ms},{copy.stamp_ms},{pulse.cum_ms},{pulse.delta_ms},{state},{title},"
            f"{kind},{entry},{served or ',' * (2 * _SERVED - 1)}\n"
        )

    def _served(self, viewing: Viewing) -> Iterator[tuple[int, int]]:
        for item in viewing.served:
            if item.tier == TierName.RELAY:
                yield self._names.relay(item.relay), item.kbytes

    def _number(self, tid: bytes) -> int:
        number = self._met.get(tid)
        if number is None:
            number = self._met[tid] = len(self._met)
            self._keys[tid] = self._office.key(tid)
        return number
