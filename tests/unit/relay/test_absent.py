"""What is remembered as absent: bounded, for a while, and never longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cid import RAW, Cid
from farcast.relay.absent import Absent


def cid(number: int) -> Cid:
    return Cid.of(RAW, bytes([number]))


def test_it_is_remembered_until_its_time_is_over() -> None:
    made = Absent(ttl_s=30.0)
    made.note(cid(1), 100.0)
    assert made.holds(cid(1), 129.9)
    assert not made.holds(cid(2), 100.0)
    assert not made.holds(cid(1), 130.0)
    assert not len(made)


def test_a_grown_catalog_forgets_all() -> None:
    made = Absent()
    made.note(cid(1), 0.0)
    made.clear()
    assert not made.holds(cid(1), 0.0)


@given(st.lists(st.tuples(st.integers(0, 12), st.floats(0, 50)), max_size=80))
def test_it_agrees_with_a_plain_list_and_is_never_larger_than_its_limit(
    notes: list[tuple[int, float]],
) -> None:
    made, now, last = Absent(ttl_s=20.0, limit=5), 0.0, dict[int, float]()
    for number, step in notes:
        now += step
        made.note(cid(number), now)
        last.pop(number, None)
        last[number] = now
        assert len(made) <= 5
        kept = [one for one in list(last)[-5:] if now < last[one] + 20.0]
        assert [one for one in last if made.holds(cid(one), now)] == kept
        last = {one: last[one] for one in last if one in kept}
