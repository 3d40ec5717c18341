"""What is decided of many pulses at once is what deciding on them one by one comes to."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.origin.pulses import admission as module
from farcast.origin.pulses.admission import (
    PENDING,
    STORED,
    Admission,
    Arrival,
    Copy,
    Frame,
    Verify,
    arrival,
)
from farcast.origin.pulses.chain import counting
from farcast.origin.pulses.dossier import Dossier
from farcast.origin.pulses.judging import Round
from farcast.origin.pulses.opened import Opened
from farcast.protocol.codec import decode, encode
from farcast.protocol.identity import Signed
from farcast.protocol.pulse import PulseSigner
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS, Holder
from farcast.tests.unit.origin.mint import (
    CARRIER,
    FIRST_DAY,
    OFFICE,
    RELAY,
    TICKET,
    Viewer,
    account,
    batch,
    post,
)
from farcast.tests.unit.origin.pulses.test_chain import (
    EVERY,
    EVIL,
    FILM,
    FORGED,
    HONEST,
    RELAYS,
    VIEWERS,
    Piece,
    piece,
)

BEGUN = (FIRST_DAY + 2) * DAY_MS + 3_600_000
"""When both began to watch; what they say of later minutes is ahead of an origin's clock that says less."""
OWN = [[one for one in HONEST if one.tid == viewer.tid] for viewer in VIEWERS]
"""Of each viewer seven that follow one another, then twins of the third and fourth."""
CHAINS = [chain for own in OWN for chain in (own[:7], own[:2] + own[7:], own[:2] + own[7:8] + own[3:6])]
TICKETS = [viewer.ticket for viewer in VIEWERS]


class Came(NamedTuple):
    """One arrival: from whom, what, with which stamps, how long after the one before; is it taken back?"""

    carrier: bytes
    pieces: list[Piece]
    stamp_s: int
    after_s: int
    undone: bool


class OneByOne(Admission):
    """Looks at each pulse by itself, without a short way for any."""

    def _take(self, round_: Round, brought: object, verdict: str) -> bool:
        del round_, brought, verdict
        return False

    def _take_one(self, round_: Round, dossier: Dossier, item: Opened, verdict: str) -> bool:
        del round_, dossier, item, verdict
        return False


assert {"_take", "_take_one"} <= vars(Admission).keys(), "what is not there is not replaced"


def skipping() -> list[Piece]:
    """Return the third, fourth and sixth of another chain, of which the sixth names the third."""
    viewer, found = Viewer(1), list[Piece]()
    for seq, prev in ((3, None), (4, 0), (6, 0)):
        viewer.signer.seq, viewer.signer.cum_ms = seq - 1, seq * 60_000
        viewer.signer.prev = bytes(32) if prev is None else found[prev].name
        signed = decode(Signed, viewer.beat(FILM, 3_600_000 + seq * 60_000, 60_000))
        found.append(piece(signed.body, signed.sig, viewer.session.key))
    return found


SKIPPING = skipping()


def run_of(start: int, length: int, chain: int, gap: int, *, turned: bool) -> list[Piece]:
    """Return consecutive pulses of one viewer, perhaps with one left out, or newest first."""
    found = [one for place, one in enumerate(CHAINS[chain]) if start <= place < start + length]
    found = [one for place, one in enumerate(found) if place != gap]
    return found[::-1] if turned else found


RUN = st.builds(
    run_of, st.integers(0, 5), st.integers(1, 7), st.integers(0, 5), st.integers(0, 9), turned=st.booleans()
)
BAG = st.lists(st.sampled_from([*EVERY, *SKIPPING]), max_size=4)
PIECES = st.lists(st.one_of(RUN, BAG), min_size=1, max_size=4).map(
    lambda parts: [one for part in parts for one in part]
)
HISTORY = st.lists(
    st.builds(
        Came,
        st.sampled_from([b"", CARRIER.key, RELAY.key, EVIL.key]),
        PIECES,
        st.integers(0, 60),
        st.sampled_from([0, 60, 90, 40_000]),
        st.booleans() | st.just(value=False),
    ),
    max_size=6,
)
TWICE = OWN[0][:3] + OWN[0][2:3]
TWINS_AT_ONCE = OWN[0][:3] + OWN[0][7:8]
FORGED_THIRD = [one for one in FORGED if one.tid == VIEWERS[0].tid and one.seq == 3]
FORGED_FIRST = [one for one in FORGED if one.tid == VIEWERS[0].tid and one.seq == 1]
FORGED_AMONG = OWN[0][:2] + FORGED_THIRD + OWN[0][3:6]
REVOKED = st.sampled_from([{}, {account(1): BEGUN + 150_000}])


def came(carrier: bytes, *arrivals: list[Piece]) -> list[Came]:
    """Return a history in which all is brought by one, four minutes after it began."""
    return [Came(carrier, pieces, 0, 60 * (4 - place), undone=False) for place, pieces in enumerate(arrivals)]


def bring(one: Admission, arrived: Came, now_ms: int, number: int) -> tuple[list[str], bool, list[int]]:
    """Have an arrival decided on."""
    stamps = [now_ms - 1_000 * ((arrived.stamp_s + 7 * place) % 60) for place in range(len(arrived.pieces))]
    relay = arrived.carrier in RELAYS
    if not relay:
        stamps = [now_ms] * len(stamps)
    parts = Arrival(TICKETS, [piece.data for piece in arrived.pieces], stamps)
    judged = one.admit(parts, now_ms, arrived.carrier, relay=relay, name=bytes([number]))
    if arrived.undone:
        one.undo()
    return judged.verdicts, judged.news, judged.tickets


def bodies(dossier: Dossier) -> dict[int, dict[bytes, int]]:
    """Return what is here as authentic, each body with its smallest stamp, by number."""
    found = {seq: {name: dossier.stamps[seq]} for seq, name in dossier.names.items()}
    for seq, others in dossier.others.items():
        found[seq] |= others
    return found


def state(one: Admission) -> dict[bytes, tuple[object, ...]]:
    """Return all that is known, by ticket, and what counts where numbers have several bodies.

    A link to the number before may be noted or not.
    """
    return {
        tid: (
            bodies(found), found.upto, found.rejects, set(found.unproven), set(found.open), found.ack([]),
            {name for seq in found.others for name in bodies(found)[seq] if found.counts(seq, name)},
        )
        for tid, found in one.register.known.items()
    }  # fmt: skip


@given(HISTORY, REVOKED)
@example(came(b"", TWICE), {})
@example(came(b"", TWINS_AT_ONCE), {})
@example(came(b"", OWN[0][2:3], OWN[0][:2] + OWN[0][7:]), {})
@settings(max_examples=100, deadline=None)
def test_eager_at_once_is_eager_one_by_one(history: list[Came], revoked: dict[bytes, int]) -> None:
    fast, slow = (
        kind(OFFICE, lambda: [TICKET.key], Rules(), revoked=revoked) for kind in (Admission, OneByOne)
    )
    now_ms = BEGUN
    for number, arrived in enumerate(history):
        now_ms += 1_000 * arrived.after_s
        assert bring(fast, arrived, now_ms, number) == bring(slow, arrived, now_ms, number)
        assert state(fast) == state(slow)
        assert fast.register.open == slow.register.open
        assert fast.register.open_pulses == slow.register.open_pulses
        assert fast.register.charged == slow.register.charged


@given(HISTORY, REVOKED, st.sampled_from([2, 5, 1 << 20]))
@example(came(RELAY.key, TWINS_AT_ONCE), {}, 1 << 20)
@example(came(RELAY.key, OWN[0][2:3], OWN[0][:2] + OWN[0][7:]), {}, 1 << 20)
@example(came(EVIL.key, FORGED_AMONG), {}, 1 << 20)
@example(came(EVIL.key, FORGED_FIRST + SKIPPING), {}, 1 << 20)
@settings(max_examples=100, deadline=None)
def test_chained_at_once_ends_where_eager_one_by_one_does(
    history: list[Came], revoked: dict[bytes, int], spot_every: int
) -> None:
    fast = Admission(OFFICE, lambda: [TICKET.key], Rules(), verify="chained", secret=b"s", revoked=revoked)
    slow = OneByOne(OFFICE, lambda: [TICKET.key], Rules(), revoked=revoked)
    now_ms, before = BEGUN, module.SPOT_EVERY
    try:
        module.SPOT_EVERY = spot_every
        for number, arrived in enumerate(history):
            now_ms += 1_000 * arrived.after_s
            bring(fast, arrived, now_ms, number)
            bring(slow, arrived, now_ms, number)
    finally:
        module.SPOT_EVERY = before
    fast.prove()
    assert state(fast) == state(slow)
    for dossier in fast.register.known.values():  # a seal record says of a body what settlement will
        found = [Copy(held.pulse, held.name, held.stamp_ms, STORED) for held in dossier.open.values()]
        assert {one.name for one in found if dossier.counts(one.pulse.seq, one.name)} == counting(found)
    assert fast.register.open_pulses == slow.register.open_pulses


@pytest.mark.parametrize("how", ["eager", "chained"])
def test_a_ticket_named_by_zeros_is_one_beside_what_is_no_pulse(how: Verify) -> None:
    viewer = Viewer(9)
    grant = OFFICE.issue(bytes(16), viewer.day, viewer.session.key, Holder(account(9), 0))
    viewer.signer = PulseSigner(grant.ticket, grant.key, viewer.session)
    first, second = viewer.watch(FILM, 1)
    one = Admission(OFFICE, lambda: [TICKET.key], Rules(), verify=how, secret=b"s")
    now_ms = BEGUN + 60_000
    parts = Arrival([grant.ticket], [first, b"", second, first[:-1]], [now_ms] * 4)
    verdict = STORED if how == "eager" else PENDING
    judged = one.admit(parts, now_ms, RELAY.key, relay=True)
    assert judged.verdicts == [verdict, "malformed", verdict, "malformed"]


def entries(one: Admission, arrived: Came, now_ms: int, number: int) -> list[Frame]:
    """Have an arrival decided on; returns what goes into the log, as the intake writes it."""
    pulses = [piece.data for piece in arrived.pieces]
    stamps = [now_ms - 1_000 * ((arrived.stamp_s + 7 * place) % 60) for place in range(len(pulses))]
    carrier = next((who for who in (CARRIER, RELAY, EVIL) if who.key == arrived.carrier), None)
    data = batch(carrier, VIEWERS, pulses, stamps) if carrier else post(VIEWERS, pulses)
    relay = arrived.carrier in RELAYS
    came_in = Frame(1, now_ms, arrived.carrier, relay, data, [], [""] * len(pulses))
    judged = one.admit(arrival(came_in), now_ms, arrived.carrier, relay=relay, name=bytes([number]))
    found = one.take_found()
    proven = [Frame(1, now_ms, b"", False, encode(found), [], [])] if found else []
    kept = replace(came_in, tickets=judged.tickets, verdicts=judged.verdicts)
    return [*proven, kept] if judged.news else proven


@given(HISTORY, REVOKED, st.sampled_from([2, 5, 1 << 20]), st.sampled_from(["eager", "chained"]))
@settings(max_examples=50, deadline=None)
def test_what_the_log_tells_is_what_was_known(
    history: list[Came], revoked: dict[bytes, int], spot_every: int, how: Verify
) -> None:
    def fresh() -> Admission:
        return Admission(OFFICE, lambda: [TICKET.key], Rules(), verify=how, secret=b"s", revoked=revoked)

    live, log = fresh(), list[Frame]()
    now_ms, before = BEGUN, module.SPOT_EVERY
    try:
        module.SPOT_EVERY = spot_every
        for number, arrived in enumerate(one for one in history if one.pieces):
            again = fresh()
            for frame in log:
                again.apply(frame)
            now_ms += 1_000 * arrived.after_s
            came_in = entries(live, arrived, now_ms, number)
            assert entries(again, arrived, now_ms, number) == came_in
            log += came_in
            assert state(again) == state(live)
            assert again.register.open_pulses == live.register.open_pulses
            assert again.register.charged == live.register.charged
    finally:
        module.SPOT_EVERY = before
