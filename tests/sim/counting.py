"""The counting signer: cryptography that counts where it would compute, one time in a hundred for real.

A signature that only counts is the signer's public key, twice; a box that only counts is its content with
a mark behind it. Who reads them sees at once which kind they are, so a real one is really verified and
opened. What is not signed for real is still linked by hashes to what is.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

from farcast.protocol import identity, pulse
from farcast.protocol.codec import decode
from farcast.protocol.identity import Identity, Kind
from farcast.protocol.pulse import Pulse, PulseSigner, Viewing
from farcast.protocol.ticket import TicketOffice

REAL_EVERY = 100
MARK = b"only counted...."
ROOMS = ("farcast.origin.pulses", "farcast.protocol", "farcast.node.pulses")

verify_really, open_really = identity.verify, pulse.open_viewing


class CountingIdentity(Identity):
    """Signs one message in a hundred; the others get a counted signature."""

    __slots__ = ("_made",)

    def __init__(self, seed: bytes) -> None:
        super().__init__(seed)
        self._made = seed[0] % REAL_EVERY

    def sign(self, kind: Kind, body: bytes) -> bytes:
        """Return a signature of either kind."""
        self._made += 1
        if self._made % REAL_EVERY == 0:
            return super().sign(kind, body)
        return self.key + self.key


class CountingBox:
    """Encrypts one box in a hundred; the others are left in clear, with a mark where the tag would be."""

    def __init__(self, box: Any, start: int) -> None:  # noqa: ANN401 - the cipher of the library
        self._box = box
        self._made = start

    def encrypt(self, nonce: bytes, plain: bytes, clear: bytes) -> bytes:
        """Return a box of either kind."""
        self._made += 1
        return self._box.encrypt(nonce, plain, clear) if self._made % REAL_EVERY == 0 else plain + MARK


class CountingOffice(TicketOffice):
    """An office that derives each ticket's key once."""

    def __init__(self, signer: Identity, secret: bytes) -> None:
        super().__init__(signer, secret)
        self._keys: dict[bytes, bytes] = {}

    def key(self, tid: bytes) -> bytes:
        """Return the symmetric key of ``tid``."""
        found = self._keys.get(tid)
        if found is None:
            found = self._keys[tid] = super().key(tid)
        return found


class CountingSigner(PulseSigner):
    """The real signer of a ticket's pulses over a counting identity and a counting box."""

    def __init__(self, ticket: bytes, key: bytes, session: CountingIdentity) -> None:
        super().__init__(ticket, key, session)
        self._box = cast("Any", CountingBox(self._box, key[0]))


@contextmanager
def counting() -> Generator[Counter[str]]:
    """Let everybody who verifies and opens know both kinds; yields how many of each there were."""
    counts: Counter[str] = Counter()

    def verify(kind: Kind, key: bytes, body: bytes, sig: bytes) -> bool:
        if sig == key + key:
            counts["counted"] += 1
            return True
        counts["real"] += 1
        return verify_really(kind, key, body, sig)

    def open_viewing(pulse_: Pulse, key: bytes) -> Viewing:
        if pulse_.box[-16:] != MARK:
            return open_really(pulse_, key)
        length = int.from_bytes(pulse_.box[:2], "big")
        return decode(Viewing, pulse_.box[2 : 2 + length])

    patches = [
        patch.object(module, name, other)
        for path, module in list(sys.modules.items())
        if path.startswith(ROOMS)
        for name, real, other in (
            ("verify", verify_really, verify),
            ("open_viewing", open_really, open_viewing),
        )
        if getattr(module, name, None) is real
    ]
    for each in patches:
        each.start()
    try:
        yield counts
    finally:
        for each in patches:
            each.stop()
