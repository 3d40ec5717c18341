# pyright: reportPrivateUsage=false
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.pulses import carriage
from farcast.node.pulses import spool as module
from farcast.node.pulses.proofs import KEPT_MS
from farcast.node.pulses.sentbook import ACKED_KEPT_MS, JUDGED_KEPT_MS, WAITING_KEPT_MS
from farcast.node.pulses.spool import KEEP_MS, TID_PULSES, DiskSpool, Waiting
from farcast.protocol.batch import Ack, Batch, Reject, TidAck, batch_hash, pulses_root, seal_parcel
from farcast.protocol.digest import held
from farcast.protocol.errors import LocalError, RefusedError, RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import ACTIVE, PulseSigner, Viewing
from farcast.protocol.ticket import Holder, TicketOffice

ORIGIN = Identity(bytes(32))
OFFICE = TicketOffice(ORIGIN, b"secret")
DAY = 20_000
DAWN_MS = DAY * 86_400_000


class Viewer:
    """Makes one ticket's pulses, 60 s of viewing each."""

    def __init__(self, name: str) -> None:
        self.tid = name.encode().ljust(16, b"\0")
        session = Identity(name.encode().ljust(32, b"\1"))
        self.grant = OFFICE.issue(self.tid, DAY, session.key, Holder(bytes(16), 0))
        self.signer = PulseSigner(self.grant.ticket, self.grant.key, session)

    def pulses(self, count: int, *, own: bool = False, seen_ms: int = DAWN_MS) -> list[SpooledPulse]:
        """Sign the next ``count`` pulses, seen a millisecond apart."""
        made: list[SpooledPulse] = []
        for _ in range(count):
            at_ms = DAWN_MS + self.signer.seq * 60_000
            viewing = Viewing(ACTIVE, bytes(32), at_ms % 2**32, 0, [], bytes(16))
            pulse = self.signer.sign(at_ms, 60_000, 1, viewing)
            made.append(
                SpooledPulse(self.tid, self.signer.seq, pulse, self.grant.ticket, seen_ms + len(made), own)
            )
        return made


def ack(*items: TidAck, at_ms: int = DAWN_MS, batch: bytes = bytes(32)) -> bytes:
    return ORIGIN.seal("ack", Ack(1, batch, list(items), "segment", 0, 0, bytes(32), at_ms))


def open_spool(home: Path, quota_bytes: int = 1 << 20) -> tuple[DiskSpool, CollectorRegistry]:
    registry = CollectorRegistry()
    return DiskSpool(home / "spool.db", registry, foreign_quota_bytes=quota_bytes), registry


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[DiskSpool]:
    opened, _ = open_spool(tmp_path)
    yield opened
    opened.close()


def test_pulses_come_back_oldest_first_and_survive_a_restart(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    ann, bob = Viewer("ann").pulses(3, own=True, seen_ms=DAWN_MS + 5), Viewer("bob").pulses(2)
    assert spool.add([*ann, *bob]) == 5
    spool.close()
    spool, registry = open_spool(tmp_path)
    assert spool.pending(10) == [*bob, *ann]
    assert spool.pending(3) == [*bob, ann[0]]
    assert spool.pending(10, own=True) == ann
    assert spool.pending(10, own=False) == bob
    assert spool.numbers() == {ann[0].tid: ([1, 2, 3], []), bob[0].tid: ([1, 2], [])}
    assert spool.find([(bob[0].tid, 2), (bob[0].tid, 9)]) == [bob[1]]
    assert spool.waiting() == Waiting(5, DAWN_MS, 300_000)
    assert spool.waiting(own=True) == Waiting(3, DAWN_MS + 5, 180_000)
    assert registry.get_sample_value("farcast_node_spool_pulses", {"whose": "foreign"}) == 2
    spool.close()


def test_an_empty_spool_waits_for_nothing(spool: DiskSpool) -> None:
    assert spool.pending(10) == []
    assert spool.waiting() == Waiting(0, 0, 0)
    assert spool.numbers() == {}
    assert spool.acks([bytes(16)]) == []
    assert spool.next_batch() == (1, bytes(32))


def test_a_duplicate_is_no_news_and_may_turn_out_to_be_our_own(spool: DiskSpool) -> None:
    pulses = Viewer("ann").pulses(2)
    assert spool.add(pulses) == 2
    assert spool.add(pulses) == 0
    assert spool.add([pulse._replace(own=True, seen_ms=1) for pulse in pulses]) == 0
    assert spool.pending(10) == [pulse._replace(own=True) for pulse in pulses]
    assert (spool.counts()["own"], spool.counts()["foreign"]) == (2, 0)


def test_a_second_body_for_one_number_is_kept_as_evidence(spool: DiskSpool) -> None:
    [one] = Viewer("ann").pulses(1)
    other = Viewer("ann")
    other.signer.cum_ms = 1
    [two] = other.pulses(1)
    assert spool.add([one, two]) == 2
    assert {item.pulse for item in spool.find([(one.tid, 1)])} == {one.pulse, two.pulse}
    assert spool.numbers() == {one.tid: ([1], [1])}
    assert spool.settle(ack(TidAck(one.tid, 1, [], []))) == 2


def test_what_is_no_pulse_or_misfiled_is_refused_and_nothing_of_the_post_stays(spool: DiskSpool) -> None:
    good, other = Viewer("ann").pulses(2)
    bad = {
        "malformed": good._replace(pulse=b"\x92\x01\x02"),
        "wrong_key": good._replace(seq=7),
        "too_large": good._replace(ticket=bytes(2_000)),
    }
    for reason, item in bad.items():
        with pytest.raises(RemoteError) as caught:
            spool.add([other, item])
        assert caught.value.reason == reason
    assert spool.counts()["foreign"] == spool.counts()["tickets"] == 0


def test_only_what_an_ack_covers_goes(spool: DiskSpool) -> None:
    ann, bob = Viewer("ann").pulses(6), Viewer("bob").pulses(2, own=True)
    spool.add([*ann, *bob])
    item = TidAck(ann[0].tid, 2, [4], [Reject(6, "late")])
    assert spool.settle(ack(item)) == 4
    assert spool.numbers() == {ann[0].tid: ([3, 5], []), bob[0].tid: ([1, 2], [])}
    assert spool.add(ann) == 0  # the acked ones do not come back
    assert spool.settle(ack(TidAck(ann[0].tid, 6, [], []), TidAck(bob[0].tid, 2, [], []))) == 4
    assert spool.counts() == {
        "own": 0, "foreign": 0, "tickets": 0, "open_batches": 0, "acked_tids": 2, "receipts": 0, "proofs": 1,
        "carried": 0,
    }  # fmt: skip


def test_the_newest_ack_per_ticket_wins_in_any_order(spool: DiskSpool) -> None:
    tid, other = bytes(16), bytes(15) + b"\1"
    newer = ack(TidAck(tid, 5, [], []), TidAck(other, 1, [], []), at_ms=DAWN_MS + 2)
    older = ack(TidAck(tid, 3, [], []), at_ms=DAWN_MS + 1)
    same_time = ack(TidAck(tid, 6, [], []), at_ms=DAWN_MS + 2)
    spool.settle(older)
    assert spool.acks([tid]) == [older]
    spool.settle(newer)
    spool.settle(older)
    assert spool.acks([tid, other, bytes(14) + b"no"]) == [newer]
    spool.settle(same_time)
    spool.settle(newer)
    assert sorted(spool.acks([tid, other])) == sorted([newer, same_time])
    spool.settle(ack(TidAck(other, 2, [], []), at_ms=DAWN_MS + 3))
    assert spool._number("SELECT count(*) FROM envelope") == 2


def test_own_pulses_can_be_read_with_what_became_of_them_for_a_day(spool: DiskSpool) -> None:
    ann, bob = Viewer("ann"), Viewer("bob")
    pulses = ann.pulses(4, own=True)
    spool.add([*pulses, *bob.pulses(2)])
    spool.mark_left([(ann.tid, 1), (ann.tid, 2), (bob.tid, 1)], "relay", DAWN_MS + 7)
    spool.mark_left([(ann.tid, 2)], "origin", DAWN_MS + 9)
    spool.settle(ack(TidAck(ann.tid, 2, [], [Reject(3, "late")]), at_ms=DAWN_MS + 11))
    told = [(one.seq, one.way, one.left_ms, one.acked_ms, one.code) for one in spool.sent(0, 10)]
    assert told == [
        (4, "", 0, 0, ""),
        (3, "", 0, DAWN_MS + 11, "late"),
        (2, "relay", DAWN_MS + 7, DAWN_MS + 11, ""),
        (1, "relay", DAWN_MS + 7, DAWN_MS + 11, ""),
    ]
    assert [one.pulse for one in spool.sent(0, 2)] == [pulses[3].pulse, pulses[2].pulse]
    assert [one.seq for one in spool.sent(DAWN_MS + 170_000, 10)] == [4]
    spool.expire(DAWN_MS + ACKED_KEPT_MS + 170_000)
    assert [one.seq for one in spool.sent(0, 10)] == [4, 2, 1], "what waits stays, for an ack or a verdict"
    spool.expire(DAWN_MS + JUDGED_KEPT_MS + 170_000)
    assert [one.seq for one in spool.sent(0, 10)] == [4]
    spool.expire(DAWN_MS + WAITING_KEPT_MS + 200_000)
    assert spool.sent(0, 10) == []
    assert spool.waiting(own=True).count == 1, "the note goes, the pulse itself never"


def test_own_pulses_of_before_the_book_was_kept_are_in_it(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    spool.add([*Viewer("ann").pulses(2, own=True), *Viewer("bob").pulses(1)])
    spool.close()
    with closing(sqlite3.connect(tmp_path / "spool.db")) as conn:
        conn.executescript(
            "DROP TABLE sent; DROP TABLE promised; DROP TABLE proof; DROP TABLE proof_envelope;"
            "DROP TABLE carried; DROP TABLE seal;"
            "CREATE TABLE beacon (number INTEGER PRIMARY KEY, data BLOB) STRICT;"
            "DELETE FROM _sqlite_migrations WHERE name IN ('0003_sent', '0004_carried', '0005_seals')"
        )
    spool, _ = open_spool(tmp_path)
    assert [one.seq for one in spool.sent(0, 10)] == [2, 1]
    spool.close()


def test_bytes_that_are_no_ack_are_refused(spool: DiskSpool) -> None:
    with pytest.raises(RemoteError):
        spool.settle(b"no ack")


def test_foreign_pulses_over_the_quota_are_refused_whole_and_own_ones_never(tmp_path: Path) -> None:
    ann, bob, me = Viewer("ann").pulses(4), Viewer("bob").pulses(2), Viewer("me").pulses(20, own=True)
    spool, _ = open_spool(tmp_path, quota_bytes=sum(len(item.pulse) for item in ann))
    spool.add(ann)
    with pytest.raises(RefusedError) as caught:
        spool.add(bob)
    assert (caught.value.status, caught.value.reason) == (429, "spool_full")
    assert caught.value.retry_after_s
    assert spool.numbers() == {ann[0].tid: ([1, 2, 3, 4], [])}
    assert spool.add(me) == 20
    spool.settle(ack(TidAck(ann[0].tid, 2, [], [])))
    assert spool.add(bob) == 2
    spool.close()


def test_one_ticket_cannot_fill_the_spool(spool: DiskSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farcast.node.pulses.spool.TID_PULSES", 5)
    assert TID_PULSES > 2_000
    viewer = Viewer("ann")
    spool.add(viewer.pulses(5))
    with pytest.raises(RefusedError, match="ticket"):
        spool.add(viewer.pulses(1))
    assert spool.add(Viewer("bob").pulses(1)) == 1


def test_a_peer_that_promised_is_not_asked_again_until_later(spool: DiskSpool) -> None:
    pulses = Viewer("ann").pulses(3, own=True)
    spool.add(pulses)
    spool.mark_handed("relay", [(pulses[0].tid, 1), (pulses[0].tid, 2), (pulses[0].tid, 99)], DAWN_MS)
    assert spool.pending(10, not_handed_to="relay") == pulses[2:]
    assert spool.pending(10, not_handed_to="other") == pulses
    assert spool.pending(10, not_handed_to="relay", handed_before_ms=DAWN_MS + 1) == pulses
    spool.mark_handed("relay", [(pulses[0].tid, 1)], DAWN_MS + 5)
    assert spool.pending(10, not_handed_to="relay", handed_before_ms=DAWN_MS + 1) == pulses[1:]
    spool.mark_handed("other", [(pulses[0].tid, 2)], DAWN_MS + 2)
    assert spool.carriers() == {pulses[0].tid: ["relay", "other"]}  # the latest promise first
    spool.settle(ack(TidAck(pulses[0].tid, 3, [], [])))
    assert spool._number("SELECT count(*) FROM handed") == 0
    assert spool.carriers() == {}


def test_nine_days_end_the_wait_for_foreign_pulses_only(spool: DiskSpool) -> None:
    foreign, own = Viewer("ann").pulses(2), Viewer("me").pulses(2, own=True)
    spool.add([*foreign, *own])
    spool.settle(ack(TidAck(bytes(16), 1, [], [])))
    spool.add_receipt(b"receipt", [(own[0].tid, 1)], DAWN_MS)
    assert spool.expire(DAWN_MS + KEEP_MS) == 0
    assert spool.expire(DAWN_MS + KEEP_MS + 60_001) == 2
    assert spool.pending(10) == own
    assert spool.acks([bytes(16)]) == []
    assert spool.receipts() == [b"receipt"]
    assert spool.counts()["tickets"] == 1


def test_a_clock_that_was_wrong_at_arrival_loses_nothing(spool: DiskSpool) -> None:
    spool.add(Viewer("ann").pulses(2, seen_ms=0))
    assert spool.expire(DAWN_MS + 120_000) == 0


def test_batches_are_dense_linked_and_kept_until_their_ack(tmp_path: Path) -> None:
    spool, _ = open_spool(tmp_path)
    carrier = Identity(b"\7" * 32)

    def seal(limit: int) -> bytes:
        items = spool.unbatched(limit)
        number, prev = spool.next_batch()
        pulses = [item.pulse for item in items]
        batch = Batch(1, carrier.key, number, prev, 0, 0, pulses_root(pulses), [], [0 for _ in items])
        spool.add_batch(number, data := seal_parcel(batch, pulses, carrier), items)
        spool.add_batch(number, data, items)  # again after a crash: no news
        return data

    ann = Viewer("ann").pulses(5)
    spool.add([*ann, *Viewer("me").pulses(3, own=True)])
    one, two = seal(2), seal(2)
    assert spool.unbatched(10) == ann[4:]
    assert spool.open_batches() == [(1, one), (2, two)]
    assert spool.open_batches(1) == [(1, one)]
    with pytest.raises(LocalError) as caught:
        spool.add_batch(4, b"later", [])
    assert caught.value.reason == "batch_number"

    spool.settle(ack(TidAck(ann[0].tid, 1, [], []), batch=batch_hash(one)))
    spool.close_batch(batch_hash(one))
    spool.close()
    spool, _ = open_spool(tmp_path)
    assert spool.open_batches() == [(2, two)]
    assert spool.unbatched(10) == [ann[1], ann[4]]  # number 2 was in the acked batch, but not acked
    spool.settle(ack(TidAck(ann[0].tid, 5, [], []), batch=batch_hash(two)))
    assert spool.open_batches() == []
    assert spool.next_batch() == (3, batch_hash(two))
    spool.close()


def test_a_batch_without_an_origin_ends_with_its_pulses(spool: DiskSpool) -> None:
    spool.add(Viewer("ann").pulses(2))
    spool.add_batch(1, b"batch", spool.unbatched(10))
    assert spool.expire(DAWN_MS + KEEP_MS) == 0
    assert len(spool.open_batches()) == 1
    spool.expire(DAWN_MS + KEEP_MS + 60_001)
    assert spool.open_batches() == []
    assert spool.next_batch() == (2, batch_hash(b"batch"))


def test_a_receipt_stays_until_all_it_promised_has_come_home(spool: DiskSpool) -> None:
    pulses = Viewer("me").pulses(3, own=True)
    tid = pulses[0].tid
    spool.add(pulses)
    for data, seqs in ((b"b", [1, 2]), (b"a", [3]), (b"b", [1, 2])):
        spool.add_receipt(data, [(tid, seq) for seq in seqs], len(seqs))
    assert spool.receipts() == [b"a", b"b"]
    spool.settle(ack(TidAck(tid, 1, [3], [])))
    assert spool.receipts() == [b"b"]
    assert spool.expire(DAWN_MS + KEEP_MS * 2) == 0
    assert spool.receipts() == [b"b"]  # whoever promised it has not brought it
    spool.settle(ack(TidAck(tid, 2, [3], []), at_ms=DAWN_MS + 1))
    assert spool.receipts() == []


def test_acks_of_own_tickets_are_kept_for_thirteen_months_and_the_earliest_of_those_that_say_all(
    spool: DiskSpool,
) -> None:
    own, foreign = Viewer("me").pulses(3, own=True), Viewer("ann").pulses(1)
    spool.add([*own, *foreign])
    tid = own[0].tid
    part, whole, again = (
        ack(TidAck(tid, upto, [], []), TidAck(foreign[0].tid, 1, [], []), at_ms=DAWN_MS + at_ms)
        for upto, at_ms in ((2, 1), (3, 2), (3, 3))
    )
    strange = ack(TidAck(foreign[0].tid, 1, [], []))
    for data in (strange, part, whole, again, part):
        spool.settle(data)
    assert spool.proofs() == [whole]
    spool.expire(DAWN_MS + 2 + KEPT_MS)
    assert spool.acks([tid]) == []
    assert spool.proofs() == [whole]
    spool.expire(DAWN_MS + 3 + KEPT_MS)
    assert spool.proofs() == []


def test_a_relay_keeps_what_only_an_ack_may_take(spool: DiskSpool) -> None:
    pulses = Viewer("ann").pulses(2)
    spool.add(pulses)
    spool.foreign_expires = False
    assert spool.expire(DAWN_MS + 100 * KEEP_MS) == 0
    assert spool.pending(10) == pulses


def test_another_carriers_batch_waits_as_it_is_for_its_ack_or_nine_days(spool: DiskSpool) -> None:
    assert spool.carry(b"c" * 32, b"one", 1)
    assert not spool.carry(b"c" * 32, b"one", 2)
    assert spool.carry(b"d" * 32, b"two", 2)
    assert spool.carried(10) == [b"one", b"two"]
    spool.settle(ack(batch=batch_hash(b"one")))
    assert spool.carried(10) == [b"two"]
    spool.expire(2 + KEEP_MS)
    assert spool.carried(10) == [b"two"]
    spool.expire(3 + KEEP_MS)
    assert spool.carried(10) == []


def test_carried_batches_have_a_quota_for_each_carrier(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriage, "CARRIER_QUOTA_BYTES", 10)
    monkeypatch.setattr(carriage, "BATCHES_QUOTA_BYTES", 15)
    assert spool.carry(b"c" * 32, bytes(10), 0)
    for carrier in (b"c", b"d"):
        with pytest.raises(RefusedError) as caught:
            spool.carry(carrier * 32, bytes(6) + carrier, 0)
        assert (caught.value.status, caught.value.reason) == (429, "spool_full")
    assert spool.carried(10) == [bytes(10)]
    assert spool.carry(b"d" * 32, bytes(5), 0)


def test_what_is_missing_is_neither_held_nor_acked_and_within_the_quota(
    spool: DiskSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = Viewer("ann").pulses(6)
    tid = ann[0].tid
    other = Viewer("ann")
    other.signer.cum_ms = 1
    twin = other.pulses(1)[0]
    spool.add(ann[:3])
    assert spool.missing([held(tid, [1, 2, 3])]) == []
    assert spool.missing([held(tid, range(1, 7), [1])]) == [held(tid, [1, 4, 5, 6], [1])]
    spool.add([twin])
    assert spool.missing([held(tid, range(1, 7), [1])]) == [held(tid, [4, 5, 6])]
    spool.settle(ack(TidAck(tid, 2, [5], [Reject(6, "late")])))
    assert spool.missing([held(tid, range(1, 8), [1, 5])]) == [held(tid, [4, 7])]
    assert spool.missing([held(b"z" * 16, [9])]) == [held(b"z" * 16, [9])]
    monkeypatch.setattr(module, "TID_PULSES", 2)
    assert spool.missing([held(tid, range(1, 8))]) == [held(tid, [4])]  # number 3 is held


def test_what_was_promised_lately_is_not_told_to_others(spool: DiskSpool) -> None:
    pulses = Viewer("ann").pulses(3)
    spool.add(pulses)
    spool.mark_handed("relay", [(pulses[0].tid, 2)], DAWN_MS)
    assert spool.numbers(DAWN_MS) == {pulses[0].tid: ([1, 3], [])}
    assert spool.numbers(DAWN_MS + 1) == {pulses[0].tid: ([1, 2, 3], [])}


def test_every_commit_is_synchronous(spool: DiskSpool) -> None:
    assert spool._conn.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert spool._conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
