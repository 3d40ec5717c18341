"""Collections: which symbols of a generation are here, from whom.

A generation's symbols are told apart by sender, because one false symbol spoils all it is decoded with.
They are put together all the same, until that once gave a false whole; from then on each sender's stand
alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..protocol.errors import RemoteError
from ..protocol.generation import FEC_ID_BYTES, GenerationDescriptor

SENDERS_LIMIT = 8
ATTEMPTS = frozenset((0, 1, 2, 4, 8, 16, 32, 64))
"""At so many symbols over K decoding is tried: RaptorQ fails at K + h about once in 256^(h + 1)."""
SPARE_SYMBOLS = 64
"""RaptorQ fails with K + 64 symbols less than once in 10^100: whoever sent them chose them."""


class Ids:
    """A set of symbol ids as a bitmap, id 0 the lowest bit of the first byte."""

    def __init__(self) -> None:
        self.bits = bytearray()
        self.count = 0

    @classmethod
    def joined(cls, sets: Iterable[Ids]) -> Ids:
        """Return what is in any of them."""
        bits = 0
        for one in sets:
            bits |= int.from_bytes(one.bits, "little")
        found = cls()
        found.bits = bytearray(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))
        found.count = bits.bit_count()
        return found

    def __contains__(self, number: int) -> bool:
        """Say whether the id is in it."""
        at, bit = divmod(number, 8)
        return at < len(self.bits) and bool(self.bits[at] >> bit & 1)

    def add(self, number: int) -> bool:
        """Put an id in; False where it was there."""
        if number in self:
            return False
        at, bit = divmod(number, 8)
        if at >= len(self.bits):
            self.bits.extend(bytes(at + 1 - len(self.bits)))
        self.bits[at] |= 1 << bit
        self.count += 1
        return True


class Collection:
    """The symbols of one generation from one sender; ``vouched`` where a catalog key signed it."""

    def __init__(
        self, sender: str, envelope: bytes, descriptor: GenerationDescriptor, *, vouched: bool
    ) -> None:
        self.sender = sender
        self.envelope = envelope
        self.descriptor = descriptor
        self.vouched = vouched
        self.ids = Ids()

    @property
    def stored_bytes(self) -> int:
        """What they take."""
        return self.ids.count * (FEC_ID_BYTES + self.descriptor.symbol_bytes)


class Group:
    """One generation from all its senders; ``heard_at`` is when the last packet of it came.

    Where ``is_split`` each sender's symbols stand alone; else ``descriptor`` is that of all of them.
    """

    def __init__(self, descriptor: GenerationDescriptor) -> None:
        self.descriptor = descriptor
        self.parts: dict[str, Collection] = {}
        self.ids = Ids()
        self.is_split = False
        self.heard_at = 0.0

    @property
    def stored_bytes(self) -> int:
        """What the symbols of all senders take."""
        return sum(part.stored_bytes for part in self.parts.values())

    @property
    def is_vouched(self) -> bool:
        """Whether a catalog key is known to have signed it."""
        return any(part.vouched for part in self.parts.values())

    def due(self, part: Collection) -> list[Collection]:
        """Return whose symbols to decode now that ``part`` has grown: one sender's, or everybody's."""
        if part.ids.count - part.descriptor.symbols in ATTEMPTS:
            return [part]
        together = self.ids.count - self.descriptor.symbols
        if len(self.parts) > 1 and not self.is_split and together in ATTEMPTS:
            return sorted(self.parts.values(), key=lambda one: -one.ids.count)
        return []

    def join(self, part: Collection) -> None:
        """Take another sender's; one who describes another whole under this number stands alone."""
        self.is_split = self.is_split or not _is_same(part.descriptor, self.descriptor)
        self.parts[part.sender] = part

    def part_with(self, sender: str) -> None:
        """Forget what one sender brought."""
        del self.parts[sender]
        self.ids = Ids.joined(part.ids for part in self.parts.values())

    def weakest(self) -> Collection:
        """Return the collection that is missed least."""
        return min(self.parts.values(), key=lambda part: part.ids.count)


def _is_same(one: GenerationDescriptor, other: GenerationDescriptor) -> bool:
    """Say whether both describe the same symbols; they may have been signed at different times."""
    return (one.digest, one.length, one.symbol_bytes) == (other.digest, other.length, other.symbol_bytes)


def check_symbol(descriptor: GenerationDescriptor, body: bytes) -> int:
    """Keep from the decoder what it cannot bear; returns the symbol's id.

    Raises:
        RemoteError: ``bad_length``, ``bad_block`` or ``bad_symbol_id``.

    """
    if len(body) != FEC_ID_BYTES + descriptor.symbol_bytes:
        raise RemoteError(f"a symbol of {len(body)} bytes", reason="bad_length")
    if body[0]:
        raise RemoteError(f"a symbol of block {body[0]}, where there is one", reason="bad_block")
    number = int.from_bytes(body[1:FEC_ID_BYTES], "big")
    if number >= descriptor.symbol_ids:
        raise RemoteError(f"symbol {number} of a generation of {descriptor.symbols}", reason="bad_symbol_id")
    return number
