"""What becomes of every packet that falls from the sky."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError
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
from farcast.satellite.collection import SENDERS_LIMIT
from farcast.satellite.fec import RaptorQ
from farcast.satellite.receiver import Completed, Decode, Receiver

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
        self.described = described = describe(bundle, origin, 1_280, expires_ms)
        self.number = described.number
        self.descriptor = pack_packet(
            origin, self.number, 0, seal_descriptor(described, signer), is_descriptor=True
        )
        symbols = FEC.encode(bundle, 1_280, described.symbols * 16 // 10 + 2)
        self.needed = described.symbols
        self.symbols = [pack_packet(origin, self.number, 1 + i, s) for i, s in enumerate(symbols)]

    @property
    def packets(self) -> list[bytes]:
        """One cycle."""
        return [self.descriptor, *self.symbols]


class Memory:
    """A shelf without a disk."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], list[bytes]] = {}

    def open(self, number: int, sender: str, envelope: bytes) -> None:
        """Begin."""
        assert envelope
        self.kept[number, sender] = []

    def add(self, number: int, sender: str, symbol: bytes) -> None:
        """Keep."""
        self.kept[number, sender].append(symbol)

    def read(self, number: int, sender: str) -> Iterator[bytes]:
        """Give back."""
        yield from self.kept[number, sender]

    def drop(self, number: int, sender: str) -> None:
        """Forget."""
        self.kept.pop((number, sender), None)


class Sky:
    """A receiver with its refusals counted."""

    def __init__(
        self, keys: list[bytes] | None = None, stored_bytes: int = 64_000_000, decode: Decode = FEC.decode
    ) -> None:
        self.rejected: Counter[str] = Counter()
        self.keys = [CATALOG.key] if keys is None else keys
        self.shelf = Memory()
        self.receiver = Receiver(
            ORIGIN, lambda: self.keys, decode, self._count, self.shelf, stored_bytes=stored_bytes
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


def test_a_stranger_who_describes_another_whole_under_a_number_spoils_it_for_nobody_else() -> None:
    air, sky = Broadcast(), Sky(keys=[])
    claims: list[dict[str, Any]] = [
        {"digest": air.described.digest[:8] + bytes(24)}, {"length": 64}, {"symbol_bytes": 64}
    ]  # fmt: skip
    for at, claim in enumerate(claims):
        envelope = seal_descriptor(msgspec.structs.replace(air.described, **claim), Identity(b"e" * 32))
        lie = pack_packet(ORIGIN, air.number, 0, envelope, is_descriptor=True)
        assert not sky.hear([lie, *air.symbols], f"10.0.0.66:{at}")
    assert sky.rejected["poisoned"] == 2
    assert sky.rejected["bad_length"] == len(air.symbols)
    sky.keys = [CATALOG.key]
    [completed] = sky.hear(air.packets)
    assert completed.items == air.items
    assert sky.receiver.is_vouched(completed)


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


def test_what_is_kept_is_bounded_and_the_generation_heard_longest_ago_goes_first() -> None:
    sky = Sky(stored_bytes=400_000)
    airs = [Broadcast(200_000, seed=seed) for seed in range(8)]
    for air in airs:
        sky.hear(air.packets[:129])
        assert sky.receiver.stored_bytes <= 400_000 + 64 * 1_284
    assert sky.rejected == {"no_room": 6}
    assert {number for number, _ in sky.shelf.kept} == {airs[6].number, airs[7].number}


def test_senders_of_one_generation_are_bounded_and_the_strongest_stays() -> None:
    air, sky = Broadcast(200_000), Sky()
    sky.hear(air.packets[:100])
    for index in range(50):
        sky.hear([air.descriptor], f"10.0.1.{index}:1")
    assert len(sky.shelf.kept) == SENDERS_LIMIT
    assert (air.number, SENDER) in sky.shelf.kept


def test_what_comes_without_known_keys_is_bounded_more_narrowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNVERIFIED_STORED_BYTES", 300_000)
    sky = Sky(keys=[])
    for seed in range(8):
        sky.hear(Broadcast(200_000, seed=seed).packets[:100])
    assert sky.receiver.stored_bytes <= 300_000 + 64 * 1_284
    assert sky.rejected["no_room"] > 0


def _panic(_length: int, _size: int, symbols: Iterable[bytes]) -> bytes | None:
    raise RemoteError(f"{len([*symbols])} symbols", reason="panic")


def _mute(_length: int, _size: int, symbols: Iterable[bytes]) -> bytes | None:
    assert [*symbols]
    return None


@pytest.mark.parametrize(("decode", "reason"), [(_panic, "panic"), (_mute, "undecodable")])
def test_a_decoder_that_breaks_or_never_ends_costs_its_sender_only(decode: Decode, reason: str) -> None:
    air, sky = Broadcast(400_000), Sky(decode=decode)
    assert not sky.hear(air.packets)
    assert sky.rejected[reason] == 1
    assert sky.rejected["quarantined"] > 0
    assert sky.receiver.collecting == 0
    assert not sky.shelf.kept


def test_two_senders_of_one_generation_complete_it_together() -> None:
    """As after the uplink was restarted and sends from another port."""
    air, sky = Broadcast(), Sky()
    half = air.needed // 2
    assert not sky.hear(air.packets[: half + 1])
    assert len(sky.hear([air.descriptor, *air.symbols[half:]], "10.0.0.1:7001")) == 1
    assert not sky.rejected


def test_one_false_symbol_among_several_senders_costs_only_the_putting_together() -> None:
    air, sky = Broadcast(), Sky()
    lie = air.symbols[-1][: HEADER_BYTES + 4] + bytes(1_280)
    sky.hear([air.descriptor, lie], "10.0.0.66:1")
    assert not sky.hear(air.packets[: air.needed])
    assert sky.rejected == {"mixed": 1}
    assert len(sky.hear(air.packets[air.needed :])) == 1


def test_symbols_survive_a_restart_and_what_was_whole_is_whole_at_once() -> None:
    air, first = Broadcast(), Sky()
    first.hear(air.packets[: air.needed - 5])
    second = Sky()
    second.shelf = first.shelf
    second.receiver = Receiver(
        ORIGIN, lambda: second.keys, FEC.decode, lambda reason: second.rejected.update([reason]), first.shelf
    )
    ids = [int.from_bytes(one[1:4], "big") for one in first.shelf.kept[air.number, SENDER]]
    envelope = air.descriptor[HEADER_BYTES:]
    assert second.receiver.restore(SENDER, envelope, ids, 1_000) is None
    [gap] = second.receiver.gaps(10.0)
    assert gap.lacking == 6
    [completed] = second.hear(air.packets[air.needed - 6 : air.needed + 1])
    assert completed.items == air.items
    third = Receiver(ORIGIN, lambda: [CATALOG.key], FEC.decode, lambda _: None, first.shelf)
    whole = third.restore(SENDER, envelope, [*range(air.needed)], 1_000)
    assert whole is not None
    third.delivered(air.number)
    assert not first.shelf.kept


@pytest.mark.parametrize(
    ("air", "reason"),
    [
        (Broadcast(signer=Identity(b"e" * 32)), "bad_signature"),
        (Broadcast(expires_ms=500), "expired"),
        (Broadcast(origin=b"another!"), "bad_descriptor"),
    ],
)
def test_what_an_earlier_run_kept_is_judged_again(air: Broadcast, reason: str) -> None:
    sky = Sky()
    sky.shelf.open(air.number, SENDER, b"x")
    assert sky.receiver.restore(SENDER, air.descriptor[HEADER_BYTES:], [1, 2], 1_000) is None
    assert sky.rejected == {reason: 1}
    assert not sky.shelf.kept


@pytest.mark.parametrize("mine", [0, 1])
def test_two_receivers_that_lost_different_packets_complete_each_other(mine: int) -> None:
    air = Broadcast(300_000)
    rng = random.Random(5)
    both = (Sky(), Sky())
    for sky in both:
        heard = [data for data in air.symbols[: air.needed * 13 // 10] if rng.random() < 0.6]
        assert not sky.hear([air.descriptor, *heard])
    sky, other = both[mine], both[1 - mine]
    assert sky.receiver.gaps(1.0) == []  # maybe still on air
    [gap] = sky.receiver.gaps(3.0)
    lent = other.receiver.lend(gap.number, gap.held, gap.lacking)
    completed = sky.receiver.given(gap.number, "neighbour", lent, 3.0)
    assert completed is not None
    assert completed.items == air.items
    assert len(lent) == gap.lacking


def test_a_neighbours_false_symbols_spoil_nothing_the_sky_brings() -> None:
    air, sky = Broadcast(), Sky()
    sky.hear(air.packets[: air.needed - 3])
    lies = [air.symbols[-1 - at][HEADER_BYTES : HEADER_BYTES + 4] + bytes(1_280) for at in range(6)]
    assert sky.receiver.given(air.number, "neighbour", lies, 3.0) is None
    assert sky.rejected == {"mixed": 1}
    assert sky.receiver.gaps(10.0) == []
    assert sky.receiver.lend(air.number, b"", 10) == []
    assert len(sky.hear(air.packets[air.needed - 3 :])) == 1


def test_a_neighbour_may_give_symbols_of_a_generation_in_progress_only() -> None:
    air, sky = Broadcast(), Sky()
    bodies = [data[HEADER_BYTES:] for data in air.symbols]
    assert sky.receiver.given(air.number, "neighbour", bodies, 0.0) is None
    assert not sky.shelf.kept
    sky.hear(air.packets[:3])
    assert sky.receiver.given(air.number, "neighbour", [bodies[9][:-1]], 0.0) is None
    assert sky.rejected == {"bad_length": 1}


def test_a_symbol_id_that_no_uplink_sends_is_refused() -> None:
    air, sky = Broadcast(), Sky()
    body = b"\0" + b"\xff\xff\xff" + bytes(1_280)
    sky.hear([air.descriptor, pack_packet(ORIGIN, air.number, 1, body)])
    assert sky.rejected == {"bad_symbol_id": 1}


def test_old_numbers_are_replays_and_many_in_a_row_a_sender_that_began_anew() -> None:
    air, sky = Broadcast(40_000), Sky()
    old = [
        pack_packet(ORIGIN, air.number, seq, air.descriptor[HEADER_BYTES:], is_descriptor=True)
        for seq in range(100)
    ]
    sky.hear([pack_packet(ORIGIN, air.number, 9_000, old[0][HEADER_BYTES:], is_descriptor=True)])
    sky.hear(old)
    assert sky.rejected == {"replayed": module.RESTARTED_PACKETS}
    assert sky.receiver.missed == 0


def spoilt(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return what a hostile or broken sender makes of a packet."""
    at = rng.randrange(len(data))
    return rng.choice(
        [
            data[:at],
            data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
            data + rng.randbytes(rng.randrange(1, 40)),
            data[:HEADER_BYTES] + other[HEADER_BYTES:],
            pack_packet(b"foreign!", rng.getrandbits(64), rng.getrandbits(31), data[HEADER_BYTES:]),
            data[: HEADER_BYTES + 1] + rng.randbytes(3) + data[HEADER_BYTES + 4 :],
            rng.randbytes(at),
            data,
        ]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1).map(random.Random))  # st.randoms would draw the storm's megabytes itself
def test_a_storm_of_spoilt_packets_raises_nothing_grows_nothing_and_the_films_arrive(
    rng: random.Random,
) -> None:
    airs = [Broadcast(rng.randrange(1, 60_000), seed=seed) for seed in range(3)]
    sky, neighbourly = Sky(stored_bytes=400_000), rng.random() < 0.5
    done: dict[int, Completed] = {}
    everything = [data for air in airs for data in air.packets]
    for air in airs:
        for data in air.packets:
            for _ in range(rng.randrange(3)):
                evil = spoilt(rng, rng.choice(everything), rng.choice(everything))
                for found in sky.hear([evil], f"10.0.0.{rng.randrange(60, 64)}:1"):
                    done[found.number] = found
            if neighbourly and rng.random() < 0.05:
                lies = [spoilt(rng, data, data)[HEADER_BYTES:] for _ in range(rng.randrange(4))]
                given_back = sky.receiver.given(air.number, "neighbour", lies, sky.now)
                if given_back is not None:
                    done[given_back.number] = given_back
                sky.receiver.lend(air.number, rng.randbytes(rng.randrange(9)), 5)
            sky.now += rng.choice([0.0, 0.001, 1.0])
            for found in sky.hear([data]):
                done[found.number] = found
            assert sky.receiver.stored_bytes <= 400_000 + 64 * 1_284
    assert {number: found.items for number, found in done.items()} == {air.number: air.items for air in airs}


def test_lost_packets_are_told_from_the_numbers() -> None:
    air, sky = Broadcast(), Sky()
    sky.hear([air.descriptor, *air.symbols[:3], *air.symbols[8:10]])
    assert sky.receiver.missed == 5
    assert sky.receiver.heard_at == 0.0
