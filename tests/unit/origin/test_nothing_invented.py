"""Attack by attack through the real intake and a real settlement: 0 s beyond what was honestly watched.

Each row says what an attacker sends and when; what is settled must be what an honest viewer of the same
wall time would have got, to the millisecond. The honest rows lose at most a thousandth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

from farcast.origin.money.ledger import Ledger
from farcast.origin.pulses.intake import Intake
from farcast.protocol.batch import Parcel
from farcast.protocol.beacon import HOUR_MS
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Kind, Signed
from farcast.protocol.pulse import MAX_DELTA_MS, START, Pulse, PulseSigner
from farcast.protocol.ticket import DAY_MS, Holder, Ticket, TicketOffice
from farcast.tests.unit.origin.mint import (
    CARRIER,
    CLOSE_MS,
    FIRST_DAY,
    FIRST_MS,
    MONTH,
    OFFICE,
    RELAY,
    SECRET,
    TICKET,
    Shelf,
    Viewer,
    account,
    batch,
    closing,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
OTHER = SHELF.add("other", {"bob": 10_000})
MINUTE, HOUR = 60_000, 3_600_000
DAY = FIRST_DAY + 2
NOON = DAY * DAY_MS + 12 * HOUR
EVENING = (DAY + 1) * DAY_MS
TEN_MINUTES = 10 * MINUTE
START_MS = 11 * HOUR
"""Within the day of most rows: what is sent at noon is an hour old."""
SMALL_ORDER = bytes.fromhex("0100000000000000000000000000000000000000000000000000000000000000")
"""The neutral element, under which a loose verifier takes the same signature for any message."""


class Sent(NamedTuple):
    """Something that arrives: a post, or a carrier's batch, at the origin's own time."""

    data: bytes
    now_ms: int = NOON


Attack = Callable[[], Sequence[Sent]]


def settled_ms(folder: Path, sent: Sequence[Sent]) -> int:
    """Let everything come in, in order, and settle the month; returns the viewed ms that count."""
    intake: Intake = open_intake(folder)
    for data, now_ms in sent:
        take = intake.batch if data.startswith(b"\x92") else intake.post
        with suppress(RemoteError):  # refused whole: nothing of it counts
            take(data, now_ms)
    ledger = Ledger(folder / "ledger.db")
    ledger.book_revenue(100_000, FIRST_MS, b"revenue")
    found = closing(folder, ledger, SHELF).settle(MONTH, now_ms=CLOSE_MS + 12 * DAY_MS, dry_run=True)
    ledger.close()
    intake.close()
    return found.outcome.statement.viewed_ms


def watched(number: int = 1, *, device: int = 0, minutes: int = 10, from_ms: int = START_MS) -> Viewer:
    viewer = Viewer(number, DAY, device=device)
    viewer.watch(FILM, minutes, from_ms=from_ms)
    return viewer


def resigned(viewer: Viewer, change: Callable[[bytes], bytes]) -> list[bytes]:
    """Return a viewer's pulses with another signature, made from each body."""
    bodies = [decode(Signed, pulse).body for pulse in viewer.pulses]
    return [encode(Signed(body, change(body))) for body in bodies]


# --- attacks that are nothing but copies of what was watched


def replayed() -> Sequence[Sent]:
    viewer = watched()
    first = batch(RELAY, [viewer], viewer.pulses, [NOON] * 11)
    again = batch(RELAY, [viewer], viewer.pulses[::-1], [NOON] * 11, 2)
    carried = batch(CARRIER, [viewer], viewer.pulses, [NOON] * 11)
    direct = post([viewer], viewer.pulses)
    return [Sent(data, NOON + step) for step, data in enumerate((first, again, carried, direct) * 3)]


def replayed_under_another_ticket() -> Sequence[Sent]:
    viewer, other = watched(), Viewer(2, DAY)
    moved = [
        encode(Signed(encode(replace(decode(Pulse, signed.body), tid=other.tid)), signed.sig))
        for signed in (decode(Signed, pulse) for pulse in viewer.pulses)
    ]
    return [Sent(post([viewer], viewer.pulses)), Sent(post([other], moved))]


def two_relays_report() -> Sequence[Sent]:
    viewer = watched()
    return [
        Sent(batch(RELAY, [viewer], viewer.pulses, [NOON - MINUTE] * 11), NOON),
        Sent(batch(CARRIER, [viewer], viewer.pulses, [NOON - HOUR] * 11), NOON + 1),
    ]


def a_sum_that_outruns_the_wall() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.beat(FILM, START_MS, 0, state=START)
    for minute in range(1, 11):
        viewer.beat(FILM, START_MS + minute * MINUTE, MAX_DELTA_MS)
    return [Sent(post([viewer], viewer.pulses))]


def a_clock_wound_back_and_forth() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    for _ in range(3):
        viewer.beat(FILM, START_MS, 0, state=START)
        for minute in range(1, 11):
            viewer.beat(FILM, START_MS + minute * MINUTE, MINUTE)
    return [Sent(post([viewer], viewer.pulses))]


# --- attacks that count nothing at all


def before_its_ticket() -> Sequence[Sent]:
    viewer = watched(from_ms=-300_001 - TEN_MINUTES)
    return [Sent(post([viewer], viewer.pulses))]


def after_its_ticket() -> Sequence[Sent]:
    viewer = watched(from_ms=DAY_MS + 300_000)
    return [Sent(post([viewer], viewer.pulses), NOON + 2 * DAY_MS)]


def before_the_beacon_it_names() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    for minute in range(11):
        viewer.beat(FILM, START_MS + minute * MINUTE, MINUTE, beacon=(DAY * DAY_MS + START_MS) // HOUR_MS + 1)
    return [Sent(post([viewer], viewer.pulses))]


def a_beacon_that_does_not_exist_yet() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    for minute in range(11):
        viewer.beat(FILM, START_MS + minute * MINUTE, MINUTE, beacon=NOON // HOUR_MS + 1)
    return [Sent(post([viewer], viewer.pulses))]


def after_the_late_window() -> Sequence[Sent]:
    viewer = watched()
    return [Sent(post([viewer], viewer.pulses), FIRST_MS + 40 * DAY_MS + 1)]


def from_the_future() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 10, from_ms=12 * HOUR + 120_001)
    return [Sent(post([viewer], viewer.pulses))]


def from_the_future_by_a_relay_that_lies() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 10, from_ms=12 * HOUR + 120_001)
    return [Sent(batch(RELAY, [viewer], viewer.pulses, [EVENING] * 11))]


def backdated_by_a_relay_that_lies() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 10, from_ms=12 * HOUR + 120_001)
    return [Sent(batch(RELAY, [viewer], viewer.pulses, [FIRST_MS] * 11))]


def signed_by_the_relay() -> Sequence[Sent]:
    viewer = watched()
    return [
        Sent(batch(RELAY, [viewer], resigned(viewer, lambda body: RELAY.sign("pulse", body)), [NOON] * 11))
    ]


def a_batch_in_the_relays_name() -> Sequence[Sent]:
    viewer = watched()
    parcel = decode(Parcel, batch(RELAY, [viewer], viewer.pulses, [NOON] * 11))
    body = decode(Signed, parcel.batch).body
    return [Sent(encode(Parcel(encode(Signed(body, CARRIER.sign("batch", body))), parcel.pulses)))]


def other_pulses_in_a_relays_batch() -> Sequence[Sent]:
    viewer = watched()
    signed = decode(Parcel, batch(RELAY, [viewer], watched(2).pulses, [NOON] * 11)).batch
    return [Sent(encode(Parcel(signed, viewer.pulses)))]


def a_ticket_of_the_relays_making() -> Sequence[Sent]:
    viewer = watched()
    office = TicketOffice(RELAY, SECRET)
    viewer.ticket = office.issue(viewer.tid, DAY, viewer.session.key, Holder(account(1), 0)).ticket
    return [Sent(batch(RELAY, [viewer], viewer.pulses, [NOON] * 11))]


def a_ticket_moved_to_another_day() -> Sequence[Sent]:
    viewer = watched(from_ms=START_MS + DAY_MS)
    signed = decode(Signed, viewer.ticket)
    viewer.ticket = encode(Signed(encode(replace(decode(Ticket, signed.body), day=DAY + 1)), signed.sig))
    return [Sent(post([viewer], viewer.pulses), NOON + 2 * DAY_MS)]


def a_box_of_another_key() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.signer = PulseSigner(viewer.ticket, bytes(32), viewer.session)
    viewer.watch(FILM, 10, from_ms=START_MS)
    return [Sent(post([viewer], viewer.pulses))]


def a_title_nobody_published() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(b"?" * 32, 10, from_ms=START_MS)
    return [Sent(post([viewer], viewer.pulses))]


def two_chains_under_one_ticket() -> Sequence[Sent]:
    one, two = Viewer(1, DAY), Viewer(1, DAY)
    one.watch(FILM, 10, from_ms=START_MS)
    two.watch(OTHER, 10, from_ms=START_MS + 30 * MINUTE)
    return [Sent(post([one], one.pulses)), Sent(post([two], two.pulses))]


def another_kind(kind: Kind) -> Attack:
    def act() -> Sequence[Sent]:
        viewer = watched()
        return [Sent(post([viewer], resigned(viewer, lambda body: viewer.session.sign(kind, body))))]

    return act


def a_signature_without_its_domain() -> Sequence[Sent]:
    viewer = watched()
    return [Sent(post([viewer], resigned(viewer, viewer.session.sign_raw)))]


def a_ticket_signed_for_another_kind() -> Sequence[Sent]:
    viewer = watched()
    viewer.ticket = TICKET.seal("receipt", decode(Ticket, decode(Signed, viewer.ticket).body))
    return [Sent(post([viewer], viewer.pulses))]


def longer_integers() -> Sequence[Sent]:
    """Bodies that say the same in other bytes, rightly signed."""
    viewer = watched()

    def stretch(pulse: bytes) -> bytes:
        body = decode(Signed, pulse).body
        assert body[:2] == b"\x99\x01"
        other = b"\x99\xcc\x01" + body[2:]
        assert msgspec.msgpack.decode(other) == msgspec.msgpack.decode(body)
        return encode(Signed(other, viewer.session.sign("pulse", other)))

    return [Sent(post([viewer], [stretch(pulse) for pulse in viewer.pulses]))]


def longer_envelopes() -> Sequence[Sent]:
    viewer = watched()

    def stretch(pulse: bytes) -> bytes:
        signed = decode(Signed, pulse)
        size = len(signed.body).to_bytes(4, "big")
        return b"\x92\xc6" + size + signed.body + b"\xc4\x40" + signed.sig

    return [Sent(post([viewer], [stretch(pulse) for pulse in viewer.pulses]))]


def one_field_more() -> Sequence[Sent]:
    viewer = watched()

    def stretch(pulse: bytes) -> bytes:
        body = decode(Signed, pulse).body
        other = b"\x9a" + body[1:] + b"\x00"
        return encode(Signed(other, viewer.session.sign("pulse", other)))

    return [Sent(post([viewer], [stretch(pulse) for pulse in viewer.pulses]))]


def a_session_key_of_small_order() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    grant = OFFICE.issue(viewer.tid, DAY, SMALL_ORDER, Holder(account(1), 0))
    viewer.ticket = grant.ticket
    viewer.signer = PulseSigner(grant.ticket, grant.key, viewer.session)
    viewer.watch(FILM, 10, from_ms=START_MS)
    loose = SMALL_ORDER + bytes(32)  # R is the neutral element too, S is 0
    return [Sent(post([viewer], resigned(viewer, lambda _: loose)))]


def a_signature_with_s_over_the_order() -> Sequence[Sent]:
    order = 2**252 + 27742317777372353535851937790883648493
    viewer = watched()

    def malleable(pulse: bytes) -> bytes:
        signed = decode(Signed, pulse)
        s = int.from_bytes(signed.sig[32:], "little") + order
        return encode(Signed(signed.body, signed.sig[:32] + s.to_bytes(32, "little")))

    return [Sent(post([viewer], [malleable(pulse) for pulse in viewer.pulses]))]


# --- seams and caps


def eight_hours_without_a_break() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 8 * 60, from_ms=HOUR)
    return [Sent(post([viewer], viewer.pulses), EVENING)]


def a_pulse_across_the_six_hours() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 6 * 60 - 1, from_ms=HOUR)
    for step in (1, 2):
        viewer.beat(FILM, HOUR + (6 * 60 - 1) * MINUTE + step * 100_000, 100_000)
    return [Sent(post([viewer], viewer.pulses), EVENING)]


def only_seams_of_five_minutes() -> Sequence[Sent]:
    """A pulse each five minutes and a millisecond, claiming as much as one may."""
    viewer = Viewer(1, DAY)
    viewer.beat(FILM, HOUR, 0, state=START)
    for step in range(1, 100):
        viewer.beat(FILM, HOUR + step * 300_001, MAX_DELTA_MS)
    return [Sent(post([viewer], viewer.pulses), EVENING)]


def nothing_but_starts() -> Sequence[Sent]:
    viewer = Viewer(1, DAY)
    for minute in range(0, 600, 6):
        viewer.beat(FILM, HOUR + minute * MINUTE, 2_000, state=START)
    return [Sent(post([viewer], viewer.pulses), EVENING)]


def three_devices_of_one_account() -> Sequence[Sent]:
    sent: list[Sent] = []
    for device, hour in enumerate((0, 8, 16)):
        viewer = Viewer(1, DAY, device=device)
        for half in range(2):  # a break after four hours, so that no session is capped
            viewer.watch(FILM, 234, from_ms=(hour + 4 * half) * HOUR)
        sent.append(Sent(post([viewer], viewer.pulses), EVENING))
    return sent


ATTACKS: list[tuple[str, Attack, int]] = [
    ("replay", replayed, TEN_MINUTES),
    ("replay under another ticket", replayed_under_another_ticket, TEN_MINUTES),
    ("a double report", two_relays_report, TEN_MINUTES),
    ("a sum that outruns the wall", a_sum_that_outruns_the_wall, TEN_MINUTES + 2_000),
    ("a clock wound back and forth", a_clock_wound_back_and_forth, TEN_MINUTES + 2_000),
    ("back-dating before the ticket", before_its_ticket, 0),
    ("future-dating after the ticket", after_its_ticket, 0),
    ("back-dating before its beacon", before_the_beacon_it_names, 0),
    ("a beacon of the future", a_beacon_that_does_not_exist_yet, 0),
    ("after the late window", after_the_late_window, 0),
    ("future-dating", from_the_future, 0),
    ("future-dating with a relay", from_the_future_by_a_relay_that_lies, 0),
    ("back-dating with a relay", backdated_by_a_relay_that_lies, 0),
    ("a forged relay: its own signature", signed_by_the_relay, 0),
    ("a forged relay: in its name", a_batch_in_the_relays_name, 0),
    ("a forged relay: beside its batch", other_pulses_in_a_relays_batch, 0),
    ("a forged ticket", a_ticket_of_the_relays_making, 0),
    ("a ticket moved to another day", a_ticket_moved_to_another_day, 0),
    ("a box of another key", a_box_of_another_key, 0),
    ("a title nobody published", a_title_nobody_published, 0),
    ("equivocation", two_chains_under_one_ticket, 0),
    *(
        (f"cross-protocol: {kind}", another_kind(kind), 0)
        for kind in ("ticket", "batch", "receipt", "request", "ack")
    ),
    ("cross-protocol: no domain", a_signature_without_its_domain, 0),
    ("cross-protocol: the ticket", a_ticket_signed_for_another_kind, 0),
    ("non-canonical: integers", longer_integers, 0),
    ("non-canonical: envelopes", longer_envelopes, 0),
    ("non-canonical: a field more", one_field_more, 0),
    ("a small-order key", a_session_key_of_small_order, 0),
    ("a malleable signature", a_signature_with_s_over_the_order, 0),
    ("the seam at 6 h: on and on", eight_hours_without_a_break, 6 * HOUR),
    ("the seam at 6 h: across it", a_pulse_across_the_six_hours, 6 * HOUR),
    ("the seam at 5 min", only_seams_of_five_minutes, 0),
    ("nothing but starts", nothing_but_starts, 2_000),
    ("cap splitting over devices", three_devices_of_one_account, 16 * HOUR),
]


@pytest.mark.parametrize(
    ("attack", "honest_ms"), [pytest.param(act, ms, id=name) for name, act, ms in ATTACKS]
)
def test_an_attack_is_credited_nothing(tmp_path: Path, attack: Attack, honest_ms: int) -> None:
    assert settled_ms(tmp_path, attack()) == honest_ms


# --- honest viewers


def flaky(seed: int, *, off_ms: int = 0, minutes: int = 180) -> tuple[Sequence[Sent], int]:
    """Three hours over links that fail for minutes, two relays and a neighbour, in any order and again."""
    random = Random(seed)
    viewer = Viewer(seed, DAY)
    viewer.watch(FILM, minutes, from_ms=HOUR + off_ms)
    sent: list[Sent] = []
    for index, pulse in enumerate(viewer.pulses):
        made_ms = DAY * DAY_MS + HOUR + index * MINUTE
        for way in random.choices((RELAY, CARRIER, None), k=random.choice((1, 1, 2, 3))):
            late_ms = random.choice((300, 5_000, 90_000, 119_000, 121_000, 900_000, 7_200_000))
            now_ms = made_ms + late_ms + random.choice((0, 0, 40_000, 3_600_000))
            if way is None:
                sent.append(Sent(post([viewer], [pulse]), now_ms))
            else:
                sent.append(Sent(batch(way, [viewer], [pulse], [made_ms + late_ms], index + 1), now_ms))
    return sorted(sent, key=lambda one: (one.now_ms, one.data)), minutes * MINUTE


def a_week_late() -> tuple[Sequence[Sent], int]:
    viewer = Viewer(1, DAY)
    viewer.watch(FILM, 300, from_ms=HOUR)
    data = batch(CARRIER, [viewer], viewer.pulses, [NOON + 7 * DAY_MS] * 301)
    return [Sent(data, NOON + 7 * DAY_MS)], 300 * MINUTE


def over_midnight(off_ms: int) -> tuple[Sequence[Sent], int]:
    """Two hours before and after midnight by the viewer's clock, under two tickets, live."""
    before, after = Viewer(1, DAY), Viewer(1, DAY + 1)
    sent: list[Sent] = []
    for minute in range(-120, 121):
        viewer = before if minute < 0 else after
        at_ms = minute * MINUTE + (DAY_MS if minute < 0 else 0)
        pulse = viewer.beat(FILM, at_ms, MINUTE if minute > -120 else 0, state=START if minute == -120 else 2)
        now_ms = (DAY + 1) * DAY_MS + minute * MINUTE - off_ms + 500
        sent.append(Sent(batch(RELAY, [viewer], [pulse], [now_ms], minute + 121), now_ms))
    return sent, 240 * MINUTE


@pytest.mark.parametrize(
    "viewing",
    [
        *(pytest.param(flaky(seed), id=f"flaky links {seed}") for seed in range(1, 4)),
        pytest.param(flaky(9, off_ms=55_000), id="flaky links, a clock 55 s fast"),
        pytest.param(flaky(9, off_ms=-55_000), id="flaky links, a clock 55 s slow"),
        pytest.param(a_week_late(), id="a week behind a one-way satellite"),
        pytest.param(over_midnight(0), id="over midnight"),
        pytest.param(over_midnight(55_000), id="over midnight, a clock 55 s fast"),
        pytest.param(over_midnight(-55_000), id="over midnight, a clock 55 s slow"),
    ],
)
def test_an_honest_viewer_loses_at_most_a_thousandth(
    tmp_path: Path, viewing: tuple[Sequence[Sent], int]
) -> None:
    sent, watched_ms = viewing
    found = settled_ms(tmp_path, sent)
    assert watched_ms * 999 // 1_000 <= found <= watched_ms
