"""The satchel: pulses on a stick on their way home, and the origin's acks on their way back.

A post is named by the hash of its bytes and stands until acks cover every pulse in it; acks stay, the
newest of each ticket, because whoever made the pulses may not have seen them yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from ...protocol.batch import BATCH_LIMIT_BYTES, MAX_PULSES, Ack, PulsePost, TidAck, covers
from ...protocol.codec import decode, encode
from ...protocol.errors import RemoteError
from ...protocol.generation import Item, pack_bundle, unpack_bundle
from ...protocol.ports import SpooledPulse
from ...protocol.pulse import read_pulse
from ...protocol.ticket import DAY_MS
from .disk import DamagedError, StickDisk

POSTS = "pulses"
ACKS = "acks"
POSTS_LIMIT = 1_024
POSTS_LIMIT_BYTES = 64 << 20
POST_PULSES = 2_000
ACKS_LIMIT_BYTES = 8 << 20
KEPT_MS = 10 * DAY_MS
"""After the origin's late window a pulse is worth nothing to anybody."""

PulseKey = tuple[bytes, int]


class Satchel:
    """What one stick carries of pulses and acks; ``open_ack`` verifies an ack, ``damaged`` what was left out.

    Made by reading the stick. Raises as ``StickDisk``.
    """

    def __init__(self, disk: StickDisk, open_ack: Callable[[bytes], Ack]) -> None:
        self.damaged: list[DamagedError] = []
        self._disk = disk
        self._open_ack = open_ack
        self._posts: dict[str, PulsePost] = {}
        self._keys: dict[str, list[tuple[PulseKey, bytes, int]]] = {}
        self._bytes = 0
        self._acks: dict[bytes, tuple[TidAck, int, bytes]] = {}
        for name in disk.names(POSTS)[:POSTS_LIMIT]:
            try:
                self._read_post(name)
            except DamagedError as error:
                self.damaged.append(error)
        self._read_acks()

    @property
    def tids(self) -> list[bytes]:
        """The tickets of the pulses here."""
        return list(dict.fromkeys(key[0] for keys in self._keys.values() for key, _, _ in keys))

    @property
    def pulses(self) -> int:
        """How many pulses are here."""
        return sum(len(keys) for keys in self._keys.values())

    @property
    def acks(self) -> list[bytes]:
        """The acks here, each once, the newest first."""
        newest = sorted({(at_ms, data) for _, at_ms, data in self._acks.values()}, reverse=True)
        return [data for _, data in newest]

    def posts(self) -> list[bytes]:
        """Return the posts, as they are handed to whoever takes pulses."""
        return [encode(post) for post in self._posts.values()]

    def open(self, acks: Iterable[bytes]) -> int:
        """Return how many pulses here no ack covers, of those here and the ``acks`` given."""
        known = self._known(acks)
        return sum(not _covered(known, key) for keys in self._keys.values() for key, _, _ in keys)

    def settle(self, acks: Iterable[bytes], now_ms: int) -> int:
        """Keep what ``acks`` say and delete the posts they cover, or that are too old; returns how many.

        ``now_ms`` is a time that has surely come, such as the newest checkpoint's.
        """
        for data in acks:
            self._keep(data)
        gone = 0
        for name, keys in list(self._keys.items()):
            done = all(_covered(self._acks, key) for key, _, _ in keys)
            if done or all(made_ms < now_ms - KEPT_MS for _, _, made_ms in keys):
                self._disk.remove(f"{POSTS}/{name}")
                del self._posts[name], self._keys[name]
                gone += 1
        self._write_acks()
        return gone

    def pack(self, pulses: Iterable[SpooledPulse]) -> list[SpooledPulse]:
        """Write the pulses that are not here yet, as many as a stick may carry; returns them.

        Raises:
            StoreFullError: ``stick_full``.

        """
        here = {name for keys in self._keys.values() for _, name, _ in keys}
        fresh = [item for item in pulses if sha256(item.pulse).digest() not in here]
        written: list[SpooledPulse] = []
        for start in range(0, len(fresh), POST_PULSES):
            some = fresh[start : start + POST_PULSES]
            tickets = list(dict.fromkeys(item.ticket for item in some))
            data = encode(PulsePost(1, tickets, [item.pulse for item in some]))
            if len(self._posts) >= POSTS_LIMIT or self._bytes + len(data) > POSTS_LIMIT_BYTES:
                break  # whoever made them has them still
            name = post_name(data)
            self._disk.write(f"{POSTS}/{name}", [data])
            self._take(name, data)
            written += some
        return written

    def _read_post(self, name: str) -> None:
        data = self._disk.read(f"{POSTS}/{name}", BATCH_LIMIT_BYTES)
        if data is None:
            return
        if post_name(data) != name:
            raise DamagedError(f"{POSTS}/{name}", "is damaged: its bytes are not those it is named after")
        if self._bytes + len(data) > POSTS_LIMIT_BYTES:
            raise DamagedError(
                f"{POSTS}/{name}", f"is beyond the {POSTS_LIMIT_BYTES >> 20} MiB of pulses read"
            )
        try:
            self._take(name, data)
        except RemoteError as error:
            raise DamagedError(f"{POSTS}/{name}", f"is no post of pulses: {error}") from error

    def _take(self, name: str, data: bytes) -> None:
        post = decode(PulsePost, data, limit_bytes=BATCH_LIMIT_BYTES)
        keys: list[tuple[PulseKey, bytes, int]] = []
        for pulse in post.pulses[:MAX_PULSES]:
            body, _ = read_pulse(pulse)
            keys.append(((body.tid, body.seq), sha256(pulse).digest(), body.at_ms))
        self._posts[name], self._keys[name] = post, keys
        self._bytes += len(data)

    def _read_acks(self) -> None:
        try:
            data = self._disk.read(ACKS, ACKS_LIMIT_BYTES)
            for item in unpack_bundle(data) if data is not None else []:
                self._keep(item.data)
        except DamagedError as error:
            self.damaged.append(error)
        except RemoteError as error:
            self.damaged.append(DamagedError(ACKS, f"is damaged: {error}"))

    def _keep(self, data: bytes) -> None:
        self._add(self._acks, data)

    def _known(self, acks: Iterable[bytes]) -> Mapping[bytes, tuple[TidAck, int, bytes]]:
        known = dict(self._acks)
        for data in acks:
            self._add(known, data)
        return known

    def _add(self, known: dict[bytes, tuple[TidAck, int, bytes]], data: bytes) -> None:
        try:
            ack = self._open_ack(data)
        except RemoteError:
            return  # of another origin, or of a key this box does not know yet: no loss, acks come again
        for item in ack.tids:
            if item.tid not in known or known[item.tid][1] <= ack.at_ms:
                known[item.tid] = (item, ack.at_ms, data)

    def _write_acks(self) -> None:
        """Write the newest acks, as far as the limit reaches."""
        kept, size_bytes = list[Item](), 64
        for place, data in enumerate(self.acks):
            size_bytes += len(data) + 32
            if size_bytes > ACKS_LIMIT_BYTES:
                break
            kept.append(Item("ack", str(place), data))
        if kept:
            self._disk.update(ACKS, pack_bundle(kept))


def post_name(data: bytes) -> str:
    """Return the file name of a post: 32 hex digits of the SHA-256 of its bytes."""
    return sha256(data).hexdigest()[:32]


def _covered(known: Mapping[bytes, tuple[TidAck, int, bytes]], key: PulseKey) -> bool:
    found = known.get(key[0])
    return found is not None and covers(found[0], key[1])
