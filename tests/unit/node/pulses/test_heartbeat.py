"""Pulses: durable before anything moves on, one body a number, whatever moment the box dies at."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.pulses.heartbeat import Evidence, Heartbeat
from farcast.node.pulses.spool import DiskSpool
from farcast.node.pulses.wallet import Wallet
from farcast.protocol.beacon import Beacon
from farcast.protocol.codec import decode
from farcast.protocol.contentkey import Lease
from farcast.protocol.errors import RemoteError, StoreFullError
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import (
    ACTIVE,
    START,
    Served,
    Viewing,
    check_pulse,
    open_viewing,
    pulse_hash,
    ticket_hash,
    witness,
)  # fmt: skip
from farcast.protocol.ticket import DAY_MS, Holder, TicketGrant, TicketOffice, open_ticket
from farcast.protocol.viewing import PulseDue

TODAY = 20_700
NOON_MS = TODAY * DAY_MS + DAY_MS // 2
TICKETS = Identity(b"\x05" * 32)
OFFICE = TicketOffice(TICKETS, b"secret" * 6)
DIGEST = sha256(b"manifest").digest()
BEACON = Beacon(1, 7, b"\x09" * 32, NOON_MS)
VIEWING = Viewing(ACTIVE, DIGEST, 0, 0, [], bytes(16))
SERVED = [Served(2, b"\x02" * 16, 150)]


class Rig:
    """A heartbeat over a real wallet and spool, with a clock the test sets."""

    def __init__(self, home: Path, days_ahead: int = 14) -> None:
        self.registry = CollectorRegistry()
        self.spool = DiskSpool(home / "spool.db", self.registry)
        self.wallet = Wallet(home / "wallet.db", days_ahead=days_ahead)
        self.now_ms = NOON_MS
        self.asked: list[list[int]] = []
        self.heartbeat = Heartbeat(
            self.spool, self.wallet, self.registry, digest=lambda _: DIGEST, served=lambda _: SERVED,
            beacon=lambda: BEACON, clock_ms=lambda: self.now_ms,
        )  # fmt: skip

    async def issue(self, wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        """Answer as the origin does."""
        self.asked.append([day for day, _ in wanted])
        return [grant(day, session) for day, session in wanted]

    async def renew(self) -> int:
        """Ask for tickets if it is time."""
        return await self.heartbeat.renew(self.issue, [TICKETS.key])

    async def beat(self, delta_ms: int = 0, state: int = ACTIVE, step_ms: int = 60_000) -> bool:
        """Let time pass and make one pulse."""
        self.now_ms += step_ms
        due = PulseDue(state, "film", delta_ms, 12_000, 0.0)
        return await self.heartbeat.beat(due, Evidence(1, b"block"))

    def close(self) -> None:
        """Let go of the files."""
        self.wallet.close()
        self.spool.close()


def grant(day: int, session: bytes) -> TicketGrant:
    tid = sha256(b"%d" % day + session).digest()[:16]
    return OFFICE.issue(tid, day, session, Holder(b"\x01" * 16, 0))


def check_chain(pulses: list[SpooledPulse]) -> list[int]:
    """Check signatures, dense numbers and links; returns the deltas."""
    deltas: list[int] = []
    cum: dict[bytes, tuple[int, int, bytes]] = {}
    for item in sorted(pulses, key=lambda one: (one.seen_ms // DAY_MS, one.seq)):
        ticket, signed = open_ticket(item.ticket, [TICKETS.key])
        pulse = check_pulse(item.pulse, ticket)
        seq, total, prev = cum.get(item.tid, (0, 0, ticket_hash(signed)))
        assert (pulse.seq, pulse.prev) == (seq + 1, prev)
        assert pulse.cum_ms == total + pulse.delta_ms
        deltas.append(pulse.delta_ms)
        cum[item.tid] = (pulse.seq, pulse.cum_ms, pulse_hash(decode(Signed, item.pulse).body))
    return deltas


async def test_pulses_are_chained_signed_and_say_what_was_watched_and_who_served(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert await rig.renew() == 15
    assert await rig.beat(0, START)
    assert await rig.beat(59_000)
    assert await rig.beat(60_000)
    pulses = rig.spool.pending(10)
    assert check_chain(pulses) == [0, 59_000, 60_000]
    ticket, _ = open_ticket(pulses[1].ticket, [TICKETS.key])
    pulse = check_pulse(pulses[1].pulse, ticket)
    viewing = open_viewing(pulse, OFFICE.key(ticket.tid))
    assert (viewing.manifest, viewing.position_ms, viewing.rendition) == (DIGEST, 12_000, 1)
    assert viewing.served == SERVED
    assert viewing.witness == witness(BEACON.value, ticket.tid, 2, b"block")
    assert pulse.beacon == BEACON.number
    assert rig.registry.get_sample_value("farcast_node_viewed_seconds_total") == 119
    rig.close()


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    pulses: list[SpooledPulse] = []
    for _ in range(3):
        rig = Rig(tmp_path)
        rig.now_ms += rig.spool.pending(99)[-1].seen_ms - NOON_MS if rig.spool.pending(99) else 0
        await rig.renew()
        await rig.beat(0)
        await rig.beat(60_000)
        pulses = rig.spool.pending(99)
        rig.close()
    assert check_chain(pulses) == [0, 60_000] * 3


async def test_a_crash_between_wallet_and_spool_loses_nothing_and_signs_nothing_twice(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    await rig.beat(0, START)
    signer = rig.wallet.signer(rig.now_ms)
    assert signer is not None
    pulse = signer.sign(rig.now_ms + 1, 1_000, 0, VIEWING)
    rig.wallet.record(signer, pulse)  # and here the power goes
    rig.close()
    again = Rig(tmp_path)
    assert await again.heartbeat.recover() == 1
    assert await again.heartbeat.recover() == 0
    again.now_ms += 60_000
    assert await again.beat(0)
    pulses = sorted(again.spool.pending(10), key=lambda item: item.seq)
    assert [item.seq for item in pulses] == [1, 2, 3]
    assert pulses[1].pulse == pulse
    assert check_chain(pulses) == [0, 1_000, 0]
    again.close()


async def test_a_pulse_signed_but_not_recorded_never_existed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    await rig.beat(0, START)
    signer = rig.wallet.signer(rig.now_ms)
    assert signer is not None
    signer.sign(rig.now_ms, 1, 0, VIEWING)
    rig.close()
    again = Rig(tmp_path)
    again.now_ms += 120_000
    await again.beat(0)
    assert [item.seq for item in again.spool.pending(10)] == [1, 2]
    again.close()


async def test_nothing_new_is_signed_until_the_spool_has_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    await rig.beat(0, START)
    real = rig.spool.add

    def full(_: Iterable[SpooledPulse]) -> int:
        raise StoreFullError("the disk is full")

    monkeypatch.setattr(rig.spool, "add", full)
    assert not await rig.beat(60_000)
    assert not await rig.beat(60_000)
    assert rig.heartbeat.counts["failed"] == 2
    monkeypatch.setattr(rig.spool, "add", real)
    assert await rig.beat(60_000)
    pulses = rig.spool.pending(10)
    assert [item.seq for item in pulses] == [1, 2, 3]
    assert check_chain(pulses) == [0, 60_000, 60_000]
    rig.close()


async def test_a_cancelled_caller_leaves_no_hole_in_the_chain(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    for _ in range(5):
        task = asyncio.ensure_future(rig.beat(0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await rig.heartbeat.close()
    assert await rig.beat(0)
    pulses = rig.spool.pending(10)
    assert len(pulses) >= 2
    check_chain(pulses)
    rig.close()


async def test_a_new_day_takes_the_next_days_ticket(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.now_ms = (TODAY + 1) * DAY_MS - 90_000
    await rig.renew()
    await rig.beat(0, START)
    await rig.beat(60_000)
    await rig.beat(60_000)
    pulses = rig.spool.pending(10)
    assert [item.seq for item in pulses] == [1, 1, 2]
    assert pulses[0].tid != pulses[1].tid
    assert check_chain(pulses) == [0, 60_000, 60_000]
    rig.close()


async def test_without_a_ticket_pulses_are_counted_and_playback_is_not_disturbed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert not await rig.beat(0, START)
    assert rig.heartbeat.counts["no_ticket"] == 1
    await rig.renew()
    rig.now_ms += 30 * DAY_MS
    assert not await rig.beat(0, START)
    rig.close()


async def test_switched_off_nothing_is_signed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    rig.heartbeat.enabled = False
    assert not await rig.beat(0, START)
    assert rig.spool.pending(10) == []
    assert rig.heartbeat.status() == {
        "enabled": False,
        "pulses": {"signed": 0, "off": 1, "no_ticket": 0, "failed": 0},
    }
    rig.close()


async def test_two_players_of_one_box_claim_no_more_than_the_wall(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    await rig.beat(0, START)
    for _ in range(20):
        await rig.beat(60_000, step_ms=30_000)
    assert sum(check_chain(rig.spool.pending(99))) <= 20 * 30_000
    rig.close()


async def test_tickets_are_renewed_at_a_jittered_time_and_never_around_midnight(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.now_ms = TODAY * DAY_MS + 7 * 3_600_000
    await rig.renew()
    asked_at: list[int] = []
    for _ in range(14 * 24 * 4):
        rig.now_ms += 15 * 60_000
        if await rig.renew():
            asked_at.append(rig.now_ms)
    assert 10 <= len(asked_at) <= 15
    assert all(30 * 60_000 <= at % DAY_MS <= DAY_MS - 30 * 60_000 for at in asked_at)
    assert len({at % DAY_MS for at in asked_at}) > 3
    assert rig.wallet.holding(rig.now_ms // DAY_MS).days
    rig.close()


async def test_a_missing_ticket_is_asked_for_at_once_but_not_without_pause(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    async def deaf(wanted: list[tuple[int, bytes]]) -> list[TicketGrant]:
        rig.asked.append([day for day, _ in wanted])
        raise RemoteError("no answer", reason="unreachable")

    for _ in range(60):
        rig.now_ms += 1_000
        try:
            await rig.heartbeat.renew(deaf, [TICKETS.key])
        except RemoteError:
            continue
    assert len(rig.asked) == 2
    rig.now_ms += 30_000
    assert await rig.renew() == 15
    rig.close()


async def test_a_revoked_box_signs_no_more_knows_so_after_a_restart_and_may_be_let_in_again(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    await rig.renew()
    assert await rig.beat(0, START)
    (item,) = rig.spool.pending(9)
    assert not rig.wallet.end_from(b"\0" * 16), "another's ticket is none of ours"
    assert not rig.wallet.ended
    assert rig.wallet.end_from(item.tid)
    assert not rig.wallet.end_from(item.tid), "once is enough"
    assert not await rig.beat(60_000)
    assert rig.heartbeat.counts["no_ticket"] == 1
    assert rig.wallet.credential(rig.now_ms) is None
    assert item.tid in rig.wallet.ticket_keys(), "what was sent stays readable"
    rig.close()
    again = Rig(tmp_path)
    assert again.wallet.ended
    assert again.wallet.holding(TODAY).days == ()
    assert [one.seq for one in again.spool.pending(9)] == [1], "what was watched before goes its way"
    assert await again.renew() == 14, "a fresh enrolment brings tickets again, from tomorrow on"
    assert not again.wallet.ended
    again.now_ms += DAY_MS
    assert await again.beat(0, START)
    assert await again.renew() == 1
    again.close()


async def test_a_box_whose_every_day_is_used_up_asks_for_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, days_ahead=0)
    await rig.renew()
    assert await rig.beat(0, START)
    rig.wallet.end(TODAY)
    rig.now_ms += 60_000
    assert await rig.renew() == 0
    assert rig.asked == [[TODAY]]
    rig.close()


def test_the_wallet_is_private_and_keeps_a_session_key_for_each_day(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "wallet.db")
    assert stat.S_IMODE((tmp_path / "wallet.db").stat().st_mode) == 0o600
    wanted = wallet.wanted(TODAY)
    assert [day for day, _ in wanted] == list(range(TODAY, TODAY + 15))
    assert len({key for _, key in wanted}) == 15
    assert wallet.wanted(TODAY) == wanted
    assert wallet.accept([grant(*wanted[0])], [TICKETS.key]) == 1
    assert wallet.accept([grant(*wanted[0])], [TICKETS.key]) == 0
    assert wallet.holding(TODAY).days == (TODAY,)
    assert list(wallet.ticket_keys().values()) == [grant(*wanted[0]).key]
    wallet.prune(TODAY + 2)
    assert wallet.signer(TODAY * DAY_MS) is None, "the session key is gone with its day"
    assert wallet.ticket_keys(), "what was sent can still be read"
    wallet.prune(TODAY + 16)
    assert not wallet.ticket_keys()
    wallet.close()


def test_the_wallet_shows_a_ticket_that_holds_with_the_session_it_names(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "wallet.db")
    wanted = wallet.wanted(TODAY)
    assert wallet.credential(TODAY * DAY_MS) is None
    wallet.accept([grant(*wish) for wish in wanted[:2]], [TICKETS.key])
    for day, session in wanted[:2]:
        found = wallet.credential(day * DAY_MS + DAY_MS // 2)
        assert found is not None
        assert (found.session.key, found.ticket) == (session, grant(day, session).ticket)
    assert wallet.credential((TODAY + 2) * DAY_MS + DAY_MS // 2) is None
    wallet.close()


def test_content_keys_rest_in_the_wallet_until_they_are_over_or_taken_back(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "wallet.db")
    first, second = (
        Lease(name * 16, b"k" * 16, number, 1_000 + number) for number, name in enumerate((b"a", b"b"))
    )
    wallet.keep_key(first)
    wallet.keep_key(second)
    newer = first._replace(granted_ms=500, until_ms=2_000)
    wallet.keep_key(newer)
    wallet.close()
    again = Wallet(tmp_path / "wallet.db")
    assert again.content_keys(1_000) == [newer, second]
    assert again.content_keys(1_001) == [newer]
    again.drop_key(newer.key_id)
    assert again.content_keys(0) == []
    again.close()


def test_a_ticket_for_anothers_key_or_by_anothers_hand_is_refused(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path / "wallet.db")
    day, session = wallet.wanted(TODAY)[0]
    with pytest.raises(RemoteError) as caught:
        wallet.accept([grant(day, Identity(b"\x0c" * 32).key)], [TICKETS.key])
    assert caught.value.reason == "not_ours"
    with pytest.raises(RemoteError) as caught:
        wallet.accept([grant(day, session)], [Identity(b"\x0d" * 32).key])
    assert caught.value.reason == "bad_signature"
    assert wallet.holding(TODAY).days == ()
    wallet.close()
