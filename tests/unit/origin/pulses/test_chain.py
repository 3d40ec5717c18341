"""Eager and chained verification, and a plain reading of the rule, on the same hostile histories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.fraud.gate import Gate
from farcast.origin.money.credit import Fact
from farcast.origin.pulses.admission import Admission, Arrival, Verify
from farcast.origin.pulses.chain import Sieve, counted
from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.frame import open_frame
from farcast.protocol.codec import decode, encode
from farcast.protocol.identity import Identity, Signed, verify
from farcast.protocol.pulse import Pulse, PulseSigner, pulse_hash
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.origin.mint import CARRIER, FIRST_DAY, OFFICE, RELAY, TICKET, Viewer, batch, post

NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
EVIL = Identity(b"\x21" * 32)
"""An enrolled relay that forges."""
RELAYS = {RELAY.key, EVIL.key}
ORDER = 2**252 + 27742317777372353535851937790883648493
FILM = b"f" * 32


class Piece(NamedTuple):
    """One signed envelope of a history, and whether its signature is right."""

    data: bytes
    name: bytes
    tid: bytes
    seq: int
    prev: bytes
    signed: bool


def piece(body: bytes, sig: bytes, session: bytes) -> Piece:
    pulse = decode(Pulse, body)
    signed = verify("pulse", session, body, sig)
    return Piece(encode(Signed(body, sig)), pulse_hash(body), pulse.tid, pulse.seq, pulse.prev, signed)


def resigned(data: bytes, viewer: Viewer, how: str) -> Piece:
    """Return a pulse with its signature replaced in a way that must not verify."""
    signed = decode(Signed, data)
    session = viewer.session.key
    sig = {
        "garbled": bytes(64),
        "cross-protocol": viewer.session.sign("request", signed.body),
        "high s": signed.sig[:32]
        + (int.from_bytes(signed.sig[32:], "little") + ORDER).to_bytes(32, "little"),
        "small order": bytes([1]) + bytes(63),
    }[how]
    found = piece(signed.body, sig, session)
    assert not found.signed
    return found


def stage() -> tuple[list[Viewer], list[Piece], list[Piece], list[Piece]]:
    """Two viewers: their honest pulses, twins of two numbers, stripped copies, and forgeries."""
    honest: list[Piece] = []
    stripped: list[Piece] = []
    forged: list[Piece] = []
    viewers = [Viewer(1), Viewer(2)]
    ways = ["garbled", "cross-protocol", "high s", "small order"]
    for viewer in viewers:
        pulses = viewer.watch(FILM, 6)
        twin = Viewer(viewers.index(viewer) + 1)
        twin.signer.seq, twin.signer.cum_ms = 2, 60_000
        twin.signer.prev = pulse_hash(decode(Signed, pulses[1]).body)
        pulses = [*pulses, *(twin.beat(FILM, 3_600_000 + minute * 61_000, 60_000) for minute in (2, 3))]
        for index, data in enumerate(pulses):
            signed = decode(Signed, data)
            honest.append(piece(signed.body, signed.sig, viewer.session.key))
            stripped.append(resigned(data, viewer, ways[index % len(ways)]))
        liar = Viewer(viewers.index(viewer) + 1)  # a forger knows the ticket, not its key
        for seq in (0, 2, 4, 6):
            prev = honest[-len(pulses) + seq].prev
            key = OFFICE.key(viewer.tid)
            liar.signer = PulseSigner(viewer.ticket, key, Identity(b"\x31" * 32), seq=seq, prev=prev)
            signed = decode(Signed, liar.beat(FILM, 3_600_000 + seq * 60_000 + 5, 60_000))
            forged.append(piece(signed.body, signed.sig, viewer.session.key))
    return viewers, honest, stripped, forged


VIEWERS, HONEST, STRIPPED, FORGED = stage()
EVERY = [*HONEST, *STRIPPED, *FORGED]


class Delivery(NamedTuple):
    """A post (no carrier) or batch of pieces; ``seals`` whether sessions are sealed after it.

    A batch's pulses were received over the minute before, the first of them ``early_s`` before.
    """

    carrier: Identity | None
    pieces: list[Piece]
    seals: bool
    early_s: int = 0


def deliver(deliveries: Sequence[Delivery], how: Verify) -> list[bytes]:
    """Return the log that an origin of this way of verifying keeps, every frame read again."""
    gate = Gate(OFFICE, lambda: [TICKET.key], RELAYS.__contains__, Rules(), verify=how)
    for number, (carrier, pieces, seals, early_s) in enumerate(deliveries):
        now_ms = NOON + 1_000 * number
        pulses = [one.data for one in pieces]
        if carrier is None:
            gate.post(post(VIEWERS, pulses), now_ms)
        else:
            stamps = [now_ms - 1_000 * ((early_s + 7 * place) % 60) for place in range(len(pulses))]
            gate.batch(batch(carrier, VIEWERS, pulses, stamps), now_ms)
        if seals:
            gate.seal(now_ms)
    return gate.log


def facts(log: list[bytes]) -> list[list[Fact]]:
    """Return what settlement is told, as of every second in which something came."""
    days = range(FIRST_DAY, FIRST_DAY + 30)
    evidence = Evidence(log, OFFICE, days)
    return [
        sorted(evidence.facts(evidence.size_at(NOON + 1_000 * number), days, lambda _: None))
        for number in range(9)
    ]


def by_the_rule(deliveries: Sequence[Delivery]) -> dict[bytes, set[bytes]]:
    """Return what counts, straight from the sentence: signed, or linked to by what is; one per number."""
    pieces = {one for item in deliveries for one in item.pieces}
    authentic = {one.name for one in pieces if one.signed}
    while True:
        more = {
            one.name
            for one in pieces
            if any(o.name in authentic and o.prev == one.name and o.seq > one.seq for o in pieces)
        }
        if more <= authentic:
            break
        authentic |= more
    bodies = {(one.tid, one.seq, one.name, one.prev) for one in pieces if one.name in authentic}
    counted_: dict[bytes, set[bytes]] = {}
    for tid, seq, name, _ in bodies:
        rivals = {n for t, s, n, _ in bodies if (t, s) == (tid, seq)}
        linked = {n for n in rivals if any(p == n and s > seq and t == tid for t, s, _, p in bodies)}
        if rivals == {name} or linked == {name}:
            counted_.setdefault(tid, set()).add(name)
    return counted_


def of(found: dict[bytes, set[bytes]]) -> dict[bytes, set[bytes]]:
    return {tid: names for tid, names in found.items() if names}


def some(*pieces: list[Piece]) -> st.SearchStrategy[list[Piece]]:
    return st.lists(st.sampled_from([one for part in pieces for one in part]), min_size=1, max_size=8)


def delivered(
    carriers: list[Identity | None], pieces: st.SearchStrategy[list[Piece]]
) -> st.SearchStrategy[Delivery]:
    return st.builds(Delivery, st.sampled_from(carriers), pieces, st.booleans(), st.sampled_from([0, 20, 40]))


HISTORY = st.lists(
    st.one_of(
        delivered([None, CARRIER], some(HONEST, FORGED)),
        delivered([RELAY], some(HONEST, STRIPPED)),
        delivered([EVIL], some(STRIPPED, FORGED)),
    ),
    min_size=1,
    max_size=8,
)


@given(HISTORY, st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_both_ways_count_the_same_in_any_order_and_batching(
    history: list[Delivery], rng: random.Random
) -> None:
    expected = by_the_rule(history)
    assert of(counted(deliver(history, "eager"))) == expected
    assert of(counted(deliver(history, "chained"))) == expected
    again = [Delivery(item.carrier, [one], rng.random() < 0.3) for item in history for one in item.pieces]
    rng.shuffle(again)
    assert of(counted(deliver(again, "chained"))) == expected
    assert of(counted(deliver(again, "eager"))) == expected


@given(st.lists(delivered([None, CARRIER, RELAY, EVIL], some(EVERY)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_both_ways_end_at_the_same_set_whoever_brings_what(history: list[Delivery]) -> None:
    eager, chained = deliver(history, "eager"), deliver(history, "chained")
    assert of(counted(eager)) == of(counted(chained))
    assert facts(eager) == facts(chained)


BOTH = pytest.mark.parametrize("how", ["eager", "chained"])


def own_of(pieces: list[Piece], viewer: Viewer) -> list[Piece]:
    return [one for one in pieces if one.tid == viewer.tid]


@BOTH
def test_unsigned_bodies_count_that_come_with_the_signed_one_that_leads_to_them(how: Verify) -> None:
    """A forger makes the ticket doubtful first; then 5, 6 and 4 come, of which only 6 is signed."""
    first, second = VIEWERS
    honest, stripped = own_of(HONEST, second), own_of(STRIPPED, second)
    rivals = [own_of(STRIPPED, first)[2], own_of(FORGED, first)[1]]
    assert [one.seq for one in rivals] == [3, 3]
    history = [
        Delivery(EVIL, [rivals[0], stripped[5], rivals[1]], seals=False),
        Delivery(RELAY, [stripped[4], honest[5], stripped[3]], seals=False),
    ]
    assert of(counted(deliver(history, how))) == {second.tid: {one.name for one in honest[3:6]}}


@BOTH
def test_a_body_came_with_the_earliest_of_its_copies_however_they_are_signed(how: Verify) -> None:
    honest, stripped = own_of(HONEST, VIEWERS[0]), own_of(STRIPPED, VIEWERS[0])
    history = [
        Delivery(RELAY, stripped[4:5], seals=False, early_s=20),
        Delivery(EVIL, stripped[4:5], seals=False, early_s=50),
        Delivery(RELAY, honest[4:6], seals=False),
    ]
    told = facts(deliver(history, how))[-1]
    assert {one.seq: one.received_ms - NOON for one in told} == {5: 1_000 - 50_000, 6: 2_000 - 7_000}


def test_what_a_seal_proved_needs_no_second_check() -> None:
    log = deliver([Delivery(RELAY, HONEST, seals=True)], "chained")
    sieve = Sieve()
    found = [
        copy
        for index, data in enumerate(log)
        for copy in (one.copy for one in sieve.read(index, open_frame(data)))
    ]
    assert {copy.name for copy in found} == {one.name for one in HONEST}
    assert sieve.rest() == []


def test_a_pending_copy_keeps_the_place_it_came_at() -> None:
    log = deliver(
        [Delivery(RELAY, HONEST[:3], seals=False), Delivery(None, HONEST[9:10], seals=True)], "chained"
    )
    sieve = Sieve()
    found = [item for index, data in enumerate(log) for item in sieve.read(index, open_frame(data))]
    assert {one.position for one in found if one.copy.pulse.tid == VIEWERS[0].tid} == {0}


def test_one_signature_a_session_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []

    def count(_: str, key: bytes, body: bytes, sig: bytes) -> bool:
        checked.append(sig)
        return verify("pulse", key, body, sig)

    monkeypatch.setattr("farcast.origin.pulses.dossier.verify", count)
    monkeypatch.setattr("farcast.origin.pulses.judging.verify", count)
    monkeypatch.setattr("farcast.origin.pulses.admission.SPOT_EVERY", 10**9)
    chain = [one for one in HONEST if one.tid == VIEWERS[0].tid][:7]
    deliver([Delivery(RELAY, chain, seals=True)], "chained")
    assert len(checked) == 1
    checked.clear()
    for order in ([5, 0, 1, 2, 3, 4, 6], [6, 5, 4, 3, 2, 1, 0]):  # in whatever order and pieces they come
        deliver([Delivery(RELAY, [chain[at]], seals=at == order[-1]) for at in order], "chained")
    assert len(checked) == 2
    checked.clear()
    gap = [*chain[:2], *chain[3:]]  # behind a gap each piece needs its own
    deliver([Delivery(RELAY, gap, seals=True)], "chained")
    assert len(checked) == 2


def test_a_relay_that_forges_is_charged_and_waits_no_more() -> None:
    admission = Admission(OFFICE, lambda: [TICKET.key], Rules(), verify="chained", secret=b"spot")
    tickets = [viewer.ticket for viewer in VIEWERS]

    def bring(pieces: list[Piece], carrier: Identity) -> list[str]:
        parts = Arrival(tickets, [one.data for one in pieces], [NOON] * len(pieces))
        return admission.admit(parts, NOON, carrier.key, relay=True, name=b"batch").verdicts

    poison = [one for one in FORGED if one.tid == VIEWERS[0].tid]
    true = [one for one in HONEST if one.tid == VIEWERS[0].tid][:7]
    assert set(bring(poison, EVIL)) == {"pending"}
    verdicts = bring(true, RELAY)  # the branch whose signature verifies wins
    assert set(verdicts) <= {"pending", "stored"}
    admission.seal(NOON, below=-1)
    assert admission.register.charged == {EVIL.key: len(poison)}
    ack = admission.ack(VIEWERS[0].tid)
    assert ack is not None
    assert (ack.upto, ack.extra) == (7, [])
    other = [one for one in HONEST if one.tid == VIEWERS[1].tid][:3]
    assert set(bring(other, EVIL)) == {"stored"}  # checked at arrival from now on
    assert RELAY.key not in admission.register.charged
