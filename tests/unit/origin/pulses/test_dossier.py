"""What a ticket's dossier makes of many pulses at once is what it makes of them one by one."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.pulses.dossier import Dossier
from farcast.origin.pulses.opened import Columns, Opened, Stretch, stretch
from farcast.protocol.pulse import BOX_PLAIN_BYTES, Pulse
from farcast.protocol.ticket import Ticket

TID = bytes(16)
LAST = 12


def name_of(seq: int) -> bytes:
    return seq.to_bytes(32, "big")


def opened(seq: int, linked: bool) -> Opened:  # noqa: FBT001 - as drawn
    prev = name_of(seq - 1) if linked else b"\xff" * 32
    pulse = Pulse(1, TID, seq, seq, seq, 0, 0, prev, bytes(BOX_PLAIN_BYTES + 16))
    return Opened(pulse, name_of(seq), bytes(64), 100 + seq, b"")


def dossier() -> Dossier:
    return Dossier(Ticket(1, TID, 20_700, bytes(32), b""))


def brought(items: list[Opened]) -> Stretch:
    pulses = [item.pulse for item in items]
    columns = Columns(
        [pulse.seq for pulse in pulses], [item.name for item in items], [pulse.prev for pulse in pulses],
        [item.stamp_ms for item in items], [pulse.at_ms for pulse in pulses],
        [pulse.beacon for pulse in pulses],
    )  # fmt: skip
    return stretch(columns, range(len(items)), items)


numbers = st.one_of(
    st.permutations(range(1, LAST + 1)),
    st.just(list(range(1, LAST + 1))),
    st.lists(st.integers(1, LAST), max_size=LAST),
)


@given(numbers, st.sets(st.integers(1, LAST)), st.lists(st.integers(0, LAST), max_size=4))
def test_a_stretch_is_kept_as_its_pulses_would_be(seqs: list[int], odd: set[int], cuts: list[int]) -> None:
    together, alone = dossier(), dossier()
    edges = sorted({0, len(seqs), *(cut for cut in cuts if cut < len(seqs))})
    for start, end in pairwise(edges):
        items = [opened(seq, seq not in odd) for seq in seqs[start:end]]
        if len(items) == 1:
            if items[0].pulse.seq in together.names:
                continue
            together.put(items[0])
            together.wait(items[0].pulse)
            alone.put(items[0])
            alone.wait(items[0].pulse)
            continue
        found = brought(items)
        numbers = found.seqs
        here = set(together.names)
        free = here.isdisjoint(numbers) and len({*numbers}) == len(items)
        assert together.is_free(found) is free
        known = here | {*numbers}
        goes_on = all(seq == 1 or (seq not in odd and seq - 1 in known) for seq in numbers)
        assert together.goes_on(found) is goes_on or not free
        if not free:
            continue
        together.put_all(found)
        together.wait_all(found)
        for item in items:
            alone.put(item)
        for item in items:
            alone.wait(item.pulse)
        assert (together.names, together.stamps, together.open) == (alone.names, alone.stamps, alone.open)
        assert (together.upto, together.waiting) == (alone.upto, alone.waiting)
        assert together.ack([]) == alone.ack([])
        check_runs(together)
    while together.waiting:
        for one in (together, alone):
            one.proven(max(one.waiting))
        assert together.waiting == alone.waiting


def check_runs(found: Dossier) -> None:
    """Each number of a run waits and names the one before."""
    for last, first in found.runs.items():
        assert found.waiting.issuperset(range(first, last + 1))
        for seq in range(first + 1, last + 1):
            assert found.open[name_of(seq)].pulse.prev == name_of(seq - 1)


def test_a_dense_stretch_is_seen_as_one() -> None:
    items = [opened(seq, linked=True) for seq in range(3, 9)]
    assert brought(items).dense
    assert not brought([*items[1:], items[0]]).dense
    assert not brought([*items, opened(10, linked=True)]).dense
    assert not brought([*items, opened(9, linked=False)]).dense
    assert brought(items[:2]).dense
