"""What becomes of every packet that falls from the sky."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.generation import (
    HEADER_BYTES,
    Item,
    describe,
    origin_id,
    pack_bundle,
    pack_packet,
    seal_descriptor,
)
from farcast.protocol.identity import Identity
from farcast.satellite import receiver as module
from farcast.satellite.fec import RaptorQ
from farcast.satellite.receiver import Completed, Receiver

CATALOG = Identity(b"c" * 32)
ORIGIN = origin_id(b"k" * 32)
FEC = RaptorQ()
SENDER = "10.0.0.1:7000"


class Broadcast:
    """One generation as packets: the descriptor, then all symbols with 60 % repair."""

    def __init__(
        self,
        size: int = 30_000,
        *,
        seed: int = 1,
        signer: Identity = CATALOG,
        origin: bytes = ORIGIN,
        expires_ms: int = 10_000,
        whole: bytes | None = None,
    ) -> None:
        block = random.Random(seed).randbytes(size)
        self.cid = Cid.of(RAW, block)
        self.items = [Item("checkpoint", "", b"head"), Item("block", str(self.cid), block)]
        bundle = pack_bundle(self.items) if whole is None else whole
        described = describe(bundle, origin, 1_280, expires_ms)
        self.number = described.number
        self.descriptor = pack_packet(
            origin, self.number, 0, seal_descriptor(described, signer), is_descriptor=True
        )
        symbols = FEC.encode(bundle, 1_280, described.symbols * 6 // 10 + 2)
        self.needed = described.symbols
        self.symbols = [pack_packet(origin, self.number, 1 + i, s) for i, s in enumerate(symbols)]

    @property
    def packets(self) -> list[bytes]:
        """One cycle."""
        return [self.descriptor, *self.symbols]


class Sky:
    """A receiver with its refusals counted."""

    def __init__(self, keys: list[bytes] | None = None, memory_bytes: int = 64_000_000) -> None:
        self.rejected: Counter[str] = Counter()
        self.keys = [CATALOG.key] if keys is None else keys
        self.receiver = Receiver(
            ORIGIN, lambda: self.keys, FEC.decoder, self._count, memory_bytes=memory_bytes
        )
        self.now = 0.0

    def _count(self, reason: str) -> None:
        self.rejected[reason] += 1

    def hear(self, packets: list[bytes], sender: str = SENDER) -> list[Completed]:
        """Take packets from one sender and return what they completed."""
        found = [self.receiver.receive(data, sender, self.now, 1_000) for data in packets]
        return [completed for completed in found if completed is not None]


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.floats(0.0, 0.35), st.integers(1, 90_000))
def test_any_enough_packets_in_any_order_complete_a_generation(
    rng: random.Random, loss: float, size: int
) -> None:
    air = Broadcast(size)
    packets = [
        air.descriptor,
        *rng.sample(air.symbols, max(air.needed + 2, int(len(air.symbols) * (1 - loss)))),
    ]
    rng.shuffle(packets)
    sky = Sky()
    [completed] = sky.hear(packets)
    assert completed.items == air.items
    assert completed.number == air.number
    assert sky.receiver.is_vouched(completed)
    assert not sky.rejected


def test_a_late_joiner_completes_over_two_cycles() -> None:
    air, sky = Broadcast(), Sky()
    assert not sky.hear(air.packets[-air.needed // 2 :])
    assert len(sky.hear(air.packets)) == 1


def test_symbols_before_their_descriptor_wait_in_bounds() -> None:
    air, sky = Broadcast(1_000_000), Sky()
    assert not sky.hear(air.symbols)
    assert sky.rejected["no_descriptor"] == len(air.symbols) - module.WAITING_PACKETS
    [completed] = sky.hear([air.descriptor, *air.symbols[: air.needed - module.WAITING_PACKETS + 1]])
    assert completed.items == air.items


def test_a_completed_generation_is_not_collected_again_until_it_is_forgotten() -> None:
    air, sky = Broadcast(), Sky()
    assert len(sky.hear(air.packets)) == 1
    assert not sky.hear(air.packets)
    assert sky.receiver.collecting == 0
    sky.receiver.want(air.cid)
    assert len(sky.hear(air.packets)) == 1


def test_a_poisoned_generation_is_dropped_its_sender_shut_out_and_others_unharmed() -> None:
    air, sky = Broadcast(), Sky()
    evil = "10.0.0.66:1"
    poisoned = [air.descriptor, *(data[:-1] + bytes([data[-1] ^ 1]) for data in air.symbols)]
    good, bad = iter(air.packets), iter(poisoned)
    done: list[Completed] = []
    for _ in range(len(air.packets)):
        done += sky.hear([next(bad)], evil)
        done += sky.hear([next(good)])
    assert [completed.items for completed in done] == [air.items]
    assert sky.rejected["poisoned"] == 1
    assert sky.rejected["quarantined"] > 0


def test_a_poisoner_is_heard_again_after_a_while() -> None:
    air, sky = Broadcast(), Sky()
    sky.hear([air.descriptor, *(data[:-1] + bytes([data[-1] ^ 1]) for data in air.symbols)])
    assert not sky.hear(air.packets)
    sky.now = module.QUARANTINE_S + 1
    assert len(sky.hear(air.packets)) == 1


def _damaged(data: bytes) -> dict[str, list[bytes]]:
    header, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    return {
        "short": [b"", data[:3], data[: HEADER_BYTES + 2]],
        "bad_magic": [b"XX" + data[2:]],
        "foreign_origin": [data[:2] + b"foreign!" + data[10:]],
        "bad_length": [data[:-1], data + b"x", data[:-700]],
        "bad_block": [header + b"\x07" + body[1:]],
    }


@pytest.mark.parametrize("reason", ["short", "bad_magic", "foreign_origin", "bad_length", "bad_block"])
def test_malformed_packets_are_counted_and_harmless(reason: str) -> None:
    air, sky = Broadcast(), Sky()
    sky.hear([air.descriptor])
    damaged = _damaged(air.symbols[0])[reason]
    assert not sky.hear(damaged)
    assert sky.rejected == {reason: len(damaged)}
    assert len(sky.hear(air.symbols)) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=10), st.lists(st.binary(max_size=1_300), max_size=6))
def test_arbitrary_datagrams_and_bodies_never_raise(noise: list[bytes], bodies: list[bytes]) -> None:
    air, sky = Broadcast(5_000), Sky()
    forged = [pack_packet(ORIGIN, air.number, 9, body) for body in bodies]
    forged += [pack_packet(ORIGIN, air.number, 9, body, is_descriptor=True) for body in bodies]
    sky.hear([*forged, air.descriptor, *noise, *forged], "10.9.9.9:9")
    assert len(sky.hear(air.packets)) == 1


def test_a_descriptor_by_another_key_expired_or_of_another_generation_is_refused() -> None:
    sky = Sky()
    sky.hear([Broadcast(signer=Identity(b"e" * 32)).descriptor])
    sky.hear([Broadcast(expires_ms=1_000).descriptor])
    body = Broadcast(seed=2).descriptor[HEADER_BYTES:]
    sky.hear([pack_packet(ORIGIN, 5, 0, body, is_descriptor=True)])
    assert sky.rejected == {"bad_signature": 1, "expired": 1, "bad_descriptor": 1}
    assert sky.receiver.collecting == 0


def test_before_the_keys_are_known_only_small_generations_come_and_are_not_vouched_for() -> None:
    sky = Sky(keys=[])
    assert not sky.hear([Broadcast(5_000_000).descriptor])
    assert sky.rejected == {"too_large_unverified": 1}
    [completed] = sky.hear(Broadcast(signer=Identity(b"e" * 32)).packets)
    assert not sky.receiver.is_vouched(completed)
    [honest] = sky.hear(Broadcast(seed=3).packets)
    sky.keys = [CATALOG.key]
    assert sky.receiver.is_vouched(honest)
    assert not sky.receiver.is_vouched(completed)


def test_a_signed_generation_that_is_no_bundle_is_counted_once() -> None:
    air, sky = Broadcast(whole=b"no bundle"), Sky()
    assert not sky.hear(air.packets * 3)
    assert sky.rejected == {"bad_bundle": 1}


def test_generations_in_progress_are_bounded_per_sender_and_in_all() -> None:
    sky = Sky(memory_bytes=1_000_000)
    airs = [Broadcast(200_000, seed=seed) for seed in range(8)]
    sky.hear([air.descriptor for air in airs])
    assert sky.receiver.collecting == module.PER_SENDER
    for index, air in enumerate(airs):
        sky.hear([air.descriptor], f"10.0.1.{index}:1")
    assert sky.receiver.collecting <= 4


class _Panic(BaseException):
    """What the library raises where it panics."""


class _Bomb:
    def decode(self, packet: bytes) -> bytes | None:
        raise _Panic(packet[:1])


class _Mute:
    def decode(self, packet: bytes) -> bytes | None:
        return None if packet else b""


@pytest.mark.parametrize(("decoder", "reason"), [(_Bomb(), "panic"), (_Mute(), "undecodable")])
def test_a_decoder_that_panics_or_never_ends_costs_its_sender_only(
    decoder: _Bomb | _Mute, reason: str
) -> None:
    rejected: Counter[str] = Counter()
    air = Broadcast(400_000)
    receiver = Receiver(ORIGIN, lambda: [CATALOG.key], lambda _l, _s: decoder, lambda r: rejected.update([r]))
    for data in air.packets:
        assert receiver.receive(data, SENDER, 0.0, 0) is None
    assert rejected[reason] == 1
    assert receiver.collecting == 0
    assert rejected["quarantined"] > 0


def test_lost_packets_are_told_from_the_numbers() -> None:
    air, sky = Broadcast(), Sky()
    sky.hear([air.descriptor, *air.symbols[:3], *air.symbols[8:10]])
    assert sky.receiver.missed == 5
    assert sky.receiver.heard_at == 0.0
