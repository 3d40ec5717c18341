"""The ports: interfaces through which floors meet without knowing each other.

Cores and carriers see only these; ``node/`` implements them. Every method that may touch a disk is
blocking and thread-safe, so an asyncio shell calls it through ``asyncio.to_thread``; every ``async``
method may be cancelled at any await and then leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from .cid import Cid
from .digest import Numbers
from .hint import Topic


class TierName(IntEnum):
    """The four ways a block can come, nearest cost first; the number is the wire value."""

    CDN = 1
    RELAY = 2
    MESH = 3
    SATELLITE = 4

    @property
    def label(self) -> str:
        """The lower-case name used in metrics, JSON and tables."""
        return self.name.lower()


class Cost(IntEnum):
    """What a tier's bytes cost, cheapest first: what costs more is asked later, and for less.

    Over ``METERED`` every byte is paid for: nothing is ever asked for twice there. ``RADIO`` is a link of
    a few kilobits a second besides: nothing is brought over it that nobody waits for.
    """

    FREE = 0
    METERED = 1
    RADIO = 2


class Source(NamedTuple):
    """One place that may hold blocks: a CDN address, a relay, a neighbour, the carousel.

    ``key`` is the Ed25519 public key for relays and neighbours, empty for a CDN address;
    ``address`` is where to dial: a base URL for a CDN, ``host:port`` otherwise.
    """

    tier: TierName
    name: str
    address: str
    key: bytes = b""


class Tier(Protocol):
    """One way for blocks to come.

    It is ``Cost.METERED`` where ``metered`` says so, and ``Cost.RADIO`` where it also has a true ``radio``.
    """

    name: TierName
    metered: bool

    def sources(self) -> Sequence[Source]:
        """Return the sources known now, in no particular order."""
        ...

    async def fetch(self, source: Source, cid: Cid) -> bytes:
        """Return the block's bytes, not yet verified.

        Raises:
            UnreachableError: refused, reset, silent.
            RefusedError: an answer other than 200.

        """
        ...


class Reply(NamedTuple):
    """What a dialled peer answered to one small request; the body is whole and bounded."""

    status: int
    headers: dict[str, str]
    body: bytes


class Dialer(Protocol):
    """Talks to boxes authenticated by key, over whatever transport reaches them."""

    async def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        limit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
    ) -> Reply:
        """Make one request to ``source`` and return its answer, whatever the status.

        Raises:
            UnreachableError: no authenticated connection, or silence until ``timeout_s``.
            RemoteError: ``wrong_key`` where the peer is not ``source.key``; ``too_large`` past
                ``limit_bytes``.

        """
        ...


class StreamDialer(Protocol):
    """Opens connections of our own to boxes authenticated by key, encrypted both ways."""

    async def open_stream(
        self, source: Source, alpn: str, protocol: Callable[[], object], *, timeout_s: float = 5.0
    ) -> None:
        """Connect to ``source`` by TLS under the ALPN name ``alpn``.

        ``protocol`` makes the ``asyncio`` protocol that is served once the peer has proved its key.

        Raises:
            UnreachableError: nobody answered within ``timeout_s``.
            RemoteError: ``wrong_key`` where the peer is not ``source.key``; ``unknown_alpn`` where it does
                not speak that.

        """
        ...


class BlockDialer(Protocol):
    """Fetches blocks from boxes and CDN addresses, by whatever carries them fastest."""

    async def get_block(
        self,
        source: Source,
        cid: Cid,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        arrived: Callable[[int], None] | None = None,
    ) -> bytes:
        """Return the block ``cid`` from ``source``; ``headers`` go with the request.

        ``arrived`` is told how many of its bytes are here, as they come.
        A block that came unauthenticated from a box known by its key has been verified; every other
        is the caller's to verify.

        Raises:
            UnreachableError, RemoteError: as ``Dialer.request``.
            RefusedError: any status but 200.

        """
        ...


class BlockStore(Protocol):
    """Verified, immutable blocks by CID."""

    def has(self, cid: Cid) -> bool:
        """Say whether the block is here."""
        ...

    def get(self, cid: Cid) -> bytes | None:
        """Return the block, hashed again on the way out; a corrupt one is dropped and None returned."""
        ...

    def put(self, cid: Cid, data: bytes, *, tier: TierName | None = None) -> bool:
        """Verify and keep a block; True where it was not here before.

        ``tier`` is the tier whose source brought it, None for blocks made on this box.

        Raises:
            RemoteError: ``hash_mismatch``.
            StoreFullError: no room and nothing may be evicted.

        """
        ...


ANYBODY = "*"
"""Stands for every peer where a spool is asked who promised to carry a pulse."""


class SpooledPulse(NamedTuple):
    """One signed pulse waiting for the origin's ack.

    ``tid``/``seq`` are its dedup key; ``pulse`` and ``ticket`` the signed envelopes; ``seen_ms``
    when this box first stored it; ``own`` whether this box's viewer made it.
    """

    tid: bytes
    seq: int
    pulse: bytes
    ticket: bytes
    seen_ms: int
    own: bool


class Spool(Protocol):
    """Durable pulses on their way home; only the origin's ack removes one (or age, if foreign)."""

    def add(self, pulses: Iterable[SpooledPulse]) -> int:
        """Store pulses durably before returning; returns how many were new."""
        ...

    def pending(
        self, limit: int, *, not_handed_to: str | None = None, handed_before_ms: int = 0
    ) -> list[SpooledPulse]:
        """Return the oldest pulses that no ack covers yet.

        With ``not_handed_to`` without those that peer (``ANYBODY``: any) promised to carry since
        ``handed_before_ms``.
        """
        ...

    def numbers(
        self, promised_before_ms: int | None = None, seen_before_ms: int | None = None
    ) -> dict[bytes, Numbers]:
        """Return the sequence numbers held per tid, for anti-entropy.

        With ``promised_before_ms`` without those that anybody promised to carry since then; with
        ``seen_before_ms`` without those that came later.
        """
        ...

    def find(self, wanted: Iterable[tuple[bytes, int]]) -> list[SpooledPulse]:
        """Return every body held under these (tid, seq)."""
        ...

    def mark_left(self, keys: Iterable[tuple[bytes, int]], way: str, at_ms: int) -> None:
        """Note which way own pulses of these (tid, seq) left this box, for its viewer to read."""
        ...

    def acks(self, tids: Iterable[bytes]) -> list[bytes]:
        """Return the newest signed ack envelopes that cover any of ``tids``."""
        ...

    def settle(self, ack: bytes) -> int:
        """Apply one verified signed ack: keep it, drop what it covers; returns pulses dropped."""
        ...


class Told(NamedTuple):
    """What somebody told; ``doubt`` is called where it does not verify, so that its teller loses credit."""

    news: bytes
    doubt: Callable[[], None]


class Hints(Protocol):
    """Untrusted news: somebody says there is a newer checkpoint, or where somebody is."""

    async def publish(self, topic: Topic, news: bytes) -> None:
        """Tell whoever listens; best effort, and never waits for anybody."""
        ...

    def listen(self, topic: Topic) -> AsyncIterator[Told]:
        """Yield what others told; nothing in it is trusted. One listener a topic."""
        ...
