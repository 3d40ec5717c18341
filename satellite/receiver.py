"""The receiver: decides what becomes of every packet that falls from the sky.

Nothing reaches the decoder but symbols of the right length and block number for a generation whose
descriptor was accepted. Symbols are collected per sender, so one who sends false symbols spoils only
a collection of their own, and is known by it. What comes before the origin's keys are known is small
and handed on as not vouched for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

from ..protocol.cid import Cid
from ..protocol.errors import RemoteError
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

UNVERIFIED_LIMIT_BYTES = 4_500_000
"""Largest generation collected before the origin's keys are known: a head with a 2 MiB item to spare."""
MEMORY_BYTES = 64_000_000
PER_SENDER = 3
WAITING_PACKETS = 512
DONE_LIMIT = 4_096
CONTENTS_LIMIT = 16_384
QUARANTINE_S = 60.0
QUARANTINE_LIMIT = 1_024
SPARE_SYMBOLS = 64
"""RaptorQ fails with K + 64 symbols less than once in 10^100: whoever sent them chose them."""
HEARD_LIMIT = 64
_GAP_LIMIT = 1 << 16


class Decoder(Protocol):
    """Collects FEC symbols; ``decode`` may panic with a ``BaseException`` on hostile bytes."""

    def decode(self, packet: bytes) -> bytes | None:
        """Take FEC id and symbol; return the whole once it can be rebuilt."""
        ...


class Completed(NamedTuple):
    """A rebuilt bundle; ``envelope`` is the signed descriptor it came with."""

    number: int
    envelope: bytes
    items: list[Item]


class _Collection:
    """The symbols of one generation from one sender."""

    def __init__(self, descriptor: GenerationDescriptor, envelope: bytes, decoder: Decoder) -> None:
        self.descriptor = descriptor
        self.envelope = envelope
        self.decoder = decoder
        self.seen: set[bytes] = set()


_Key = tuple[int, str]


class Receiver:
    """Follows one origin's carousel.

    ``catalog_keys`` returns the accepted keys, none before trust arrived; ``decoder`` makes one for
    a length and symbol size; ``rejected`` is told the reason of each packet or collection refused.
    """

    def __init__(
        self,
        origin: bytes,
        catalog_keys: Callable[[], Sequence[bytes]],
        decoder: Callable[[int, int], Decoder],
        rejected: Callable[[str], None],
        *,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._origin = origin
        self._catalog_keys = catalog_keys
        self._decoder = decoder
        self._rejected = rejected
        self._memory_bytes = memory_bytes
        self._collections: OrderedDict[_Key, _Collection] = OrderedDict()
        self._waiting: OrderedDict[_Key, list[Packet]] = OrderedDict()
        self._done: OrderedDict[int, None] = OrderedDict()
        self._contents: OrderedDict[Cid, int] = OrderedDict()
        self._quarantine: OrderedDict[str, float] = OrderedDict()
        self._last_seq: OrderedDict[str, int] = OrderedDict()
        self.heard_at: float | None = None
        self.missed = 0

    @property
    def collecting(self) -> int:
        """How many generations are in progress."""
        return len(self._collections)

    def receive(self, data: bytes, sender: str, now: float, now_ms: int) -> Completed | None:
        """Take one datagram; returns the bundle it completed.

        ``now`` is monotonic seconds, ``now_ms`` the wall clock that descriptors expire by.
        """
        try:
            return self._take(data, sender, now, now_ms)
        except RemoteError as error:
            self._rejected(error.reason)
            return None

    def is_vouched(self, completed: Completed) -> bool:
        """Say whether a catalog key known by now signed the generation."""
        return is_vouched(completed.envelope, self._catalog_keys())

    def forget(self, number: int) -> None:
        """Collect a completed generation again when it comes round."""
        self._done.pop(number, None)

    def want(self, cid: Cid) -> None:
        """Collect again whatever brought ``cid``, because the store no longer has it."""
        number = self._contents.get(cid)
        if number is not None:
            self.forget(number)

    def _take(self, data: bytes, sender: str, now: float, now_ms: int) -> Completed | None:
        if self._quarantine.get(sender, 0.0) > now:
            raise RemoteError(f"{sender} sent false symbols before", reason="quarantined")
        packet = parse_packet(data)
        if packet.origin != self._origin:
            raise RemoteError("a carousel of another origin", reason="foreign_origin")
        if packet.number in self._done:
            self._hear(sender, packet.seq, now)
            return None
        if packet.is_descriptor:
            return self._describe(packet, sender, now, now_ms)
        return self._collect(packet, sender, now)

    def _describe(self, packet: Packet, sender: str, now: float, now_ms: int) -> Completed | None:
        key = (packet.number, sender)
        if key not in self._collections:
            descriptor = self._accept(packet, now_ms)
            decoder = self._decoder(descriptor.length, descriptor.symbol_bytes)
            self._collections[key] = _Collection(descriptor, packet.body, decoder)
            self._make_room(sender)
        self._hear(sender, packet.seq, now)
        completed = None
        for waiting in self._waiting.pop(key, []):
            if key in self._collections:
                completed = self._collect(waiting, sender, now) or completed
        return completed

    def _accept(self, packet: Packet, now_ms: int) -> GenerationDescriptor:
        descriptor = read_descriptor(packet.body)
        if (descriptor.number, descriptor.origin) != (packet.number, packet.origin):
            raise RemoteError("a descriptor in another generation's packet", reason="bad_descriptor")
        if descriptor.expires_ms <= now_ms:
            raise RemoteError("a generation past its time", reason="expired")
        keys = self._catalog_keys()
        if keys and not is_vouched(packet.body, keys):
            raise RemoteError("a generation that no catalog key signed", reason="bad_signature")
        if not keys and descriptor.length > UNVERIFIED_LIMIT_BYTES:
            raise RemoteError("too large while no key is known", reason="too_large_unverified")
        return descriptor

    def _collect(self, packet: Packet, sender: str, now: float) -> Completed | None:
        key = (packet.number, sender)
        collection = self._collections.get(key)
        if collection is None:
            self._wait(key, packet)
            return None
        self._collections.move_to_end(key)
        _check(collection.descriptor, packet.body)
        self._hear(sender, packet.seq, now)
        symbol_id = packet.body[1:FEC_ID_BYTES]
        if symbol_id in collection.seen:
            return None
        collection.seen.add(symbol_id)
        return self._decode(key, collection, packet.body, now)

    def _decode(self, key: _Key, collection: _Collection, body: bytes, now: float) -> Completed | None:
        try:
            whole = collection.decoder.decode(body)
        except BaseException as error:  # the library panics with a BaseException of its own
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            self._spoiled(key, now)
            raise RemoteError(f"symbols of {key[1]} that break the decoder", reason="panic") from error
        if whole is not None:
            return self._complete(key, collection, whole, now)
        if len(collection.seen) > collection.descriptor.symbols + SPARE_SYMBOLS:
            self._spoiled(key, now)
            raise RemoteError(f"symbols of {key[1]} that never add up", reason="undecodable")
        return None

    def _complete(self, key: _Key, collection: _Collection, whole: bytes, now: float) -> Completed | None:
        if sha256(whole).digest() != collection.descriptor.digest:
            self._spoiled(key, now)
            raise RemoteError(f"a generation of {key[1]} with false symbols", reason="poisoned")
        number = key[0]
        for other in [other for other in self._collections if other[0] == number]:
            del self._collections[other]
        self._done[number] = None
        if len(self._done) > DONE_LIMIT:
            self._done.popitem(last=False)
        try:
            items = unpack_bundle(whole)
        except RemoteError as error:
            raise RemoteError("a signed generation that is no bundle", reason="bad_bundle") from error
        self._remember(number, items)
        return Completed(number, collection.envelope, items)

    def _remember(self, number: int, items: Sequence[Item]) -> None:
        for item in items:
            if item.kind == "block":
                try:
                    self._contents[Cid.parse(item.name)] = number
                except RemoteError:
                    continue  # whoever stores the block refuses it by name
        while len(self._contents) > CONTENTS_LIMIT:
            self._contents.popitem(last=False)

    def _spoiled(self, key: _Key, now: float) -> None:
        """Drop everything a sender of false symbols has in progress, and do not listen to it."""
        del self._collections[key]
        self._quarantine[key[1]] = now + QUARANTINE_S
        self._quarantine.move_to_end(key[1])
        if len(self._quarantine) > QUARANTINE_LIMIT:
            self._quarantine.popitem(last=False)
        for other in [other for other in (*self._collections, *self._waiting) if other[1] == key[1]]:
            self._collections.pop(other, None)
            self._waiting.pop(other, None)

    def _wait(self, key: _Key, packet: Packet) -> None:
        """Keep a symbol until its descriptor comes; the generation that waits longest gives way."""
        self._waiting.setdefault(key, []).append(packet)
        while sum(map(len, self._waiting.values())) > WAITING_PACKETS:
            oldest = next(iter(self._waiting))
            self._waiting[oldest].pop(0)
            if not self._waiting[oldest]:
                del self._waiting[oldest]
            self._rejected("no_descriptor")

    def _make_room(self, sender: str) -> None:
        mine = [key for key in self._collections if key[1] == sender]
        if len(mine) > PER_SENDER:
            del self._collections[mine[0]]
        while sum(item.descriptor.length for item in self._collections.values()) > self._memory_bytes:
            self._collections.popitem(last=False)

    def _hear(self, sender: str, seq: int, now: float) -> None:
        self.heard_at = now
        last = self._last_seq.get(sender)
        gap = (seq - last) % SEQ_MODULUS if last is not None else 1
        if 1 < gap < _GAP_LIMIT:
            self.missed += gap - 1
        if gap < SEQ_MODULUS // 2:
            self._last_seq[sender] = seq
            self._last_seq.move_to_end(sender)
        if len(self._last_seq) > HEARD_LIMIT:
            self._last_seq.popitem(last=False)


def _check(descriptor: GenerationDescriptor, body: bytes) -> None:
    """Keep from the decoder what it cannot bear."""
    if len(body) != FEC_ID_BYTES + descriptor.symbol_bytes:
        raise RemoteError(f"a symbol of {len(body)} bytes", reason="bad_length")
    if body[0]:
        raise RemoteError(f"a symbol of block {body[0]}, where there is one", reason="bad_block")
