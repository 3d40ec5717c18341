"""The receiver: decides what becomes of every packet that falls from the sky.

Nothing reaches the decoder but symbols of the right length, block and number for a generation whose
descriptor was accepted, and only once there are enough. Until then they lie on a shelf, by sender, so
that one who sends false symbols spoils only a collection of their own, and is known by it. What comes
before the origin's keys are known is small and handed on as not vouched for.

Over 400 lines: from admission to the whole, every step of a packet's way changes the same few tables.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from ..protocol.cid import Cid
from ..protocol.errors import FarcastError, RemoteError
from ..protocol.generation import (
    FEC_ID_BYTES,
    SEQ_MODULUS,
    GenerationDescriptor,
    Item,
    Packet,
    is_vouched,
    parse_packet,
    read_descriptor,
    unpack_bundle,
)
from .collection import SENDERS_LIMIT, SPARE_SYMBOLS, Collection, Group, Ids, check_symbol

UNVERIFIED_LIMIT_BYTES = 4_500_000
"""Largest generation collected before the origin's keys are known: a head with a 2 MiB item to spare."""
UNVERIFIED_STORED_BYTES = 32_000_000
STORED_BYTES = 256_000_000
GROUPS_LIMIT = 256
WAITING_PACKETS = 512
DONE_LIMIT = 4_096
CONTENTS_LIMIT = 16_384
QUARANTINE_S = 60.0
QUARANTINE_LIMIT = 1_024
HEARD_LIMIT = 64
QUIET_S = 2.0
"""A generation not heard for so long is no longer on air: what it lacks is a gap."""
REORDERED_PACKETS = 1_024
RESTARTED_PACKETS = 64
"""So many old numbers in a row, and the sender has begun anew."""
_GAP_LIMIT = 1 << 16

Decode = Callable[[int, int, Iterable[bytes]], bytes | None]
"""Length and symbol size in bytes, then symbols with their FEC ids; None where they do not suffice."""


class Shelf(Protocol):
    """Keeps symbols; each method raises ``LocalError`` where it cannot."""

    def open(self, number: int, sender: str, envelope: bytes) -> None:
        """Begin a generation's symbols from one sender."""
        ...

    def add(self, number: int, sender: str, symbol: bytes) -> None:
        """Keep one symbol, FEC id first."""
        ...

    def read(self, number: int, sender: str) -> Iterator[bytes]:
        """Give one sender's symbols back, in the order they came."""
        ...

    def drop(self, number: int, sender: str) -> None:
        """Forget one sender's symbols."""
        ...


class Completed(NamedTuple):
    """A rebuilt bundle; ``envelope`` is the signed descriptor it came with."""

    number: int
    envelope: bytes
    items: list[Item]


class Gap(NamedTuple):
    """What a generation no longer on air lacks: ``held`` is the bitmap of the symbols here."""

    number: int
    symbol_bytes: int
    lacking: int
    held: bytes


class Receiver:
    """Follows one origin's carousel.

    ``catalog_keys`` returns the accepted keys, none before trust arrived; ``rejected`` is told the
    reason of each packet or collection refused; ``shelf`` keeps at most ``stored_bytes`` of symbols.
    """

    def __init__(
        self,
        origin: bytes,
        catalog_keys: Callable[[], Sequence[bytes]],
        decode: Decode,
        rejected: Callable[[str], None],
        shelf: Shelf,
        *,
        stored_bytes: int = STORED_BYTES,
    ) -> None:
        self._origin = origin
        self._catalog_keys = catalog_keys
        self._decode = decode
        self._rejected = rejected
        self._shelf = shelf
        self._stored_bytes = stored_bytes
        self._groups: OrderedDict[int, Group] = OrderedDict()
        self._waiting: OrderedDict[tuple[int, str], list[Packet]] = OrderedDict()
        self._done: OrderedDict[int, None] = OrderedDict()
        self._contents: OrderedDict[Cid, int] = OrderedDict()
        self._quarantine: OrderedDict[str, float] = OrderedDict()
        self._last_seq: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self.heard_at: float | None = None
        self.missed = 0

    @property
    def collecting(self) -> int:
        """How many generations are in progress."""
        return sum(number not in self._done for number in self._groups)

    @property
    def stored_bytes(self) -> int:
        """What the symbols on the shelf take."""
        return sum(group.stored_bytes for group in self._groups.values())

    def receive(self, data: bytes, sender: str, now: float, now_ms: int) -> Completed | None:
        """Take one datagram; returns the bundle it completed.

        ``now`` is monotonic seconds, ``now_ms`` the wall clock that descriptors expire by.
        """
        try:
            return self._take(data, sender, now, now_ms)
        except FarcastError as error:
            self._rejected(error.reason)
            return None

    def restore(self, sender: str, envelope: bytes, ids: Sequence[int], now_ms: int) -> Completed | None:
        """Take back what an earlier run left on the shelf; returns the bundle where it was whole already."""
        try:
            descriptor = self._accept(envelope, now_ms)
        except RemoteError as error:
            self._rejected(error.reason)
            self._shelf.drop(read_descriptor(envelope).number, sender)
            return None
        number = descriptor.number
        group = self._groups.setdefault(number, Group(descriptor))
        part = Collection(sender, envelope, descriptor, vouched=bool(self._catalog_keys()))
        group.join(part)
        for one in ids:
            if one < descriptor.symbol_ids:
                part.ids.add(one)
                group.ids.add(one)
        self._make_room(number)
        try:
            if number in self._groups and group.ids.count >= descriptor.symbols:
                return self._attempt(number, group, [*group.parts.values()], 0.0)
        except FarcastError as error:
            self._rejected(error.reason)
        return None

    def is_vouched(self, completed: Completed) -> bool:
        """Say whether a catalog key known by now signed the generation."""
        return is_vouched(completed.envelope, self._catalog_keys())

    def delivered(self, number: int) -> None:
        """Hear that a completed generation is safe; its symbols are dropped."""
        self._forget_group(number)

    def forget(self, number: int) -> None:
        """Collect a completed generation again when it comes round."""
        self._forget_group(number)
        self._done.pop(number, None)

    def want(self, cid: Cid) -> None:
        """Collect again whatever brought ``cid``, because the store no longer has it."""
        number = self._contents.get(cid)
        if number is not None:
            self._done.pop(number, None)

    def gaps(self, now: float) -> list[Gap]:
        """Return what is lacking of generations that are not on air now, the least first."""
        found = [
            Gap(number, group.descriptor.symbol_bytes, lacking, bytes(group.ids.bits))
            for number, group in self._groups.items()
            if number not in self._done
            and group.is_vouched
            and not group.is_split
            and now - group.heard_at >= QUIET_S
            and (lacking := max(group.descriptor.symbols - group.ids.count, 1))
        ]
        return sorted(found, key=lambda gap: gap.lacking)

    def given(self, number: int, giver: str, symbols: Sequence[bytes], now: float) -> Completed | None:
        """Take symbols that a neighbour had of a generation in progress; ``giver`` is no sender's address."""
        group = self._groups.get(number)
        if group is None or number in self._done or group.is_split or not group.is_vouched:
            return None
        try:
            self._admit(giver, now)
            if giver not in group.parts:
                like = next(part for part in group.parts.values() if part.vouched)
                self._begin(group, giver, like.envelope, like.descriptor)
            for symbol in symbols:
                completed = self._keep(number, group, giver, symbol, now)
                if completed is not None:
                    return completed
                if giver not in group.parts or group.is_split:
                    break
        except FarcastError as error:
            self._rejected(error.reason)
        return None

    def lend(self, number: int, held: bytes, most: int) -> list[bytes]:
        """Return at most ``most`` symbols that are here and whose bits are not set in ``held``."""
        group = self._groups.get(number)
        if group is None or number in self._done or group.is_split or not group.is_vouched:
            return []
        there, found = Ids(), list[bytes]()
        there.bits = bytearray(held)
        for part in group.parts.values():
            for symbol in self._shelf.read(number, part.sender):
                if len(found) == most:
                    return found
                if there.add(int.from_bytes(symbol[1:FEC_ID_BYTES], "big")):
                    found.append(symbol)
        return found

    def _take(self, data: bytes, sender: str, now: float, now_ms: int) -> Completed | None:
        self._admit(sender, now)
        packet = parse_packet(data)
        if packet.origin != self._origin:
            raise RemoteError("a carousel of another origin", reason="foreign_origin")
        if packet.number in self._done:
            self._hear(sender, packet.seq, now)
            return None
        if packet.is_descriptor:
            return self._describe(packet, sender, now, now_ms)
        return self._collect(packet, sender, now)

    def _admit(self, sender: str, now: float) -> None:
        if self._quarantine.get(sender, 0.0) > now:
            raise RemoteError(f"{sender} sent false symbols before", reason="quarantined")

    def _describe(self, packet: Packet, sender: str, now: float, now_ms: int) -> Completed | None:
        group = self._groups.get(packet.number)
        if group is None or sender not in group.parts:
            descriptor = self._accept(packet.body, now_ms)
            if (descriptor.number, descriptor.origin) != (packet.number, packet.origin):
                raise RemoteError("a descriptor in another generation's packet", reason="bad_descriptor")
            group = self._groups.setdefault(packet.number, Group(descriptor))
            self._begin(group, sender, packet.body, descriptor)
            self._make_room(packet.number)
        group.heard_at = now
        self._hear(sender, packet.seq, now)
        completed = None
        for waiting in self._waiting.pop((packet.number, sender), []):
            if sender in group.parts and completed is None:
                completed = self._collect(waiting, sender, now)
        return completed

    def _accept(self, envelope: bytes, now_ms: int) -> GenerationDescriptor:
        descriptor = read_descriptor(envelope)
        if descriptor.origin != self._origin:
            raise RemoteError("a descriptor of another origin", reason="bad_descriptor")
        if descriptor.expires_ms <= now_ms:
            raise RemoteError("a generation past its time", reason="expired")
        keys = self._catalog_keys()
        if keys and not is_vouched(envelope, keys):
            raise RemoteError("a generation that no catalog key signed", reason="bad_signature")
        if not keys and descriptor.length > UNVERIFIED_LIMIT_BYTES:
            raise RemoteError("too large while no key is known", reason="too_large_unverified")
        return descriptor

    def _begin(self, group: Group, sender: str, envelope: bytes, descriptor: GenerationDescriptor) -> None:
        """Open a collection; where there are too many of one generation the weakest gives way."""
        number = descriptor.number
        if len(group.parts) >= SENDERS_LIMIT:
            self._drop(number, group, group.weakest().sender)
        self._shelf.open(number, sender, envelope)
        group.join(Collection(sender, envelope, descriptor, vouched=bool(self._catalog_keys())))

    def _collect(self, packet: Packet, sender: str, now: float) -> Completed | None:
        group = self._groups.get(packet.number)
        if group is None or sender not in group.parts:
            self._wait((packet.number, sender), packet)
            return None
        completed = self._keep(packet.number, group, sender, packet.body, now)
        group.heard_at = now
        self._hear(sender, packet.seq, now)
        return completed

    def _keep(self, number: int, group: Group, sender: str, body: bytes, now: float) -> Completed | None:
        """Put a symbol on the shelf, and decode where that was the last that lacked."""
        part = group.parts[sender]
        symbol_id = check_symbol(part.descriptor, body)
        self._groups.move_to_end(number)
        if symbol_id in part.ids:
            return None
        try:
            self._shelf.add(number, sender, body)
        except FarcastError:
            self._drop(number, group, sender)  # half a record at its end would spoil what follows
            raise
        part.ids.add(symbol_id)
        is_news = group.ids.add(symbol_id)
        due = group.due(part)
        if due and (is_news or len(due) == 1):
            return self._attempt(number, group, due, now)
        if part.ids.count % 64 == 0:
            self._make_room(number)
        return None

    def _attempt(
        self, number: int, group: Group, parts: Sequence[Collection], now: float
    ) -> Completed | None:
        """Decode the symbols of some senders; who alone gave a false whole is not heard for a while."""
        alone = parts[0].sender if len(parts) == 1 else None
        try:
            whole = self._whole(number, group, parts)
        except RemoteError as error:
            if alone is None:
                group.is_split = True
                raise RemoteError("a false symbol among several senders'", reason="mixed") from error
            self._spoiled(alone, now)
            raise
        return self._complete(number, parts[0].envelope, whole) if whole is not None else None

    def _whole(self, number: int, group: Group, parts: Sequence[Collection]) -> bytes | None:
        """Return the generation that the symbols give, None where they do not suffice yet."""
        descriptor = parts[0].descriptor
        whole = self._decode(descriptor.length, descriptor.symbol_bytes, self._distinct(number, parts))
        if whole is None:
            count = parts[0].ids.count if len(parts) == 1 else group.ids.count
            if count < descriptor.symbols + SPARE_SYMBOLS:
                return None
            raise RemoteError("symbols that never add up", reason="undecodable")
        if sha256(whole).digest() != descriptor.digest:
            raise RemoteError("a generation with false symbols", reason="poisoned")
        return whole

    def _distinct(self, number: int, parts: Sequence[Collection]) -> Iterator[bytes]:
        seen = Ids()
        for part in parts:
            for symbol in self._shelf.read(number, part.sender):
                if seen.add(int.from_bytes(symbol[1:FEC_ID_BYTES], "big")):
                    yield symbol

    def _complete(self, number: int, envelope: bytes, whole: bytes) -> Completed | None:
        self._done[number] = None
        while len(self._done) > DONE_LIMIT:
            self._done.popitem(last=False)
        try:
            items = unpack_bundle(whole)
        except RemoteError as error:
            self._forget_group(number)
            raise RemoteError("a signed generation that is no bundle", reason="bad_bundle") from error
        self._remember(number, items)
        return Completed(number, envelope, items)

    def _remember(self, number: int, items: Sequence[Item]) -> None:
        for item in items:
            if item.kind == "block":
                try:
                    self._contents[Cid.parse(item.name)] = number
                except RemoteError:
                    continue  # whoever stores the block refuses it by name
        while len(self._contents) > CONTENTS_LIMIT:
            self._contents.popitem(last=False)

    def _spoiled(self, sender: str, now: float) -> None:
        """Drop everything a sender of false symbols has in progress, and do not listen to it."""
        self._quarantine[sender] = now + QUARANTINE_S
        self._quarantine.move_to_end(sender)
        if len(self._quarantine) > QUARANTINE_LIMIT:
            self._quarantine.popitem(last=False)
        for number, group in list(self._groups.items()):
            if sender in group.parts and number not in self._done:
                self._drop(number, group, sender)
        for key in [key for key in self._waiting if key[1] == sender]:
            del self._waiting[key]

    def _drop(self, number: int, group: Group, sender: str) -> None:
        self._shelf.drop(number, sender)
        group.part_with(sender)
        if not group.parts:
            self._groups.pop(number, None)

    def _forget_group(self, number: int) -> None:
        group = self._groups.pop(number, None)
        for sender in group.parts if group is not None else ():
            self._shelf.drop(number, sender)

    def _wait(self, key: tuple[int, str], packet: Packet) -> None:
        """Keep a symbol until its descriptor comes; the generation that waits longest gives way."""
        self._waiting.setdefault(key, []).append(packet)
        while sum(map(len, self._waiting.values())) > WAITING_PACKETS:
            oldest = next(iter(self._waiting))
            self._waiting[oldest].pop(0)
            if not self._waiting[oldest]:
                del self._waiting[oldest]
            self._rejected("no_descriptor")

    def _make_room(self, current: int) -> None:
        """Keep the shelf within its bounds: what was heard longest ago goes, unverified things first."""
        unverified = [number for number, group in self._groups.items() if not group.is_vouched]
        while sum(self._groups[number].stored_bytes for number in unverified) > UNVERIFIED_STORED_BYTES:
            self._evict(unverified.pop(0))
        used = self.stored_bytes
        for number in list(self._groups):
            if used <= self._stored_bytes and len(self._groups) <= GROUPS_LIMIT:
                break
            if number != current:
                used -= self._groups[number].stored_bytes
                self._evict(number)
        group = self._groups.get(current)
        while group is not None and group.stored_bytes > self._stored_bytes and len(group.parts) > 1:
            self._drop(current, group, group.weakest().sender)

    def _evict(self, number: int) -> None:
        self._forget_group(number)
        self._rejected("no_room")

    def _hear(self, sender: str, seq: int, now: float) -> None:
        self.heard_at = now
        last, old = self._last_seq.get(sender, ((seq - 1) % SEQ_MODULUS, 0))
        gap = (seq - last) % SEQ_MODULUS
        if gap < SEQ_MODULUS // 2:
            if 1 < gap < _GAP_LIMIT:
                self.missed += gap - 1
            self._last_seq[sender] = (seq, 0)
        elif SEQ_MODULUS - gap > REORDERED_PACKETS:
            self._last_seq[sender] = (last, old + 1) if old + 1 < RESTARTED_PACKETS else (seq, 0)
            self._rejected("replayed")
        self._last_seq.move_to_end(sender)
        if len(self._last_seq) > HEARD_LIMIT:
            self._last_seq.popitem(last=False)
