"""However much there is to say, a box speaks for its share of the air, and what is new comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.mesh.radio.bulletin import FRAME_BYTES, ITEMS_LIMIT, NEVER_S, Bulletin, Item

HEAD, ONE, TWO = b"h" * 118, b"1" * 140, b"2" * 140


@given(
    sizes=st.lists(st.integers(1, 383), min_size=1, max_size=12),
    again_s=st.sampled_from([1.0, 60.0, NEVER_S]),
    share=st.sampled_from([0.01, 0.1, 1.0]),
    steps=st.lists(st.floats(0.01, 200.0), min_size=1, max_size=60),
)
def test_a_box_speaks_for_its_share_of_the_air(
    sizes: list[int], again_s: float, share: float, steps: list[float]
) -> None:
    bulletin, now, air_s, last_s = Bulletin(1_000, share), 0.0, 0.0, 0.0
    bulletin.offer([Item(bytes([place]) * size, again_s) for place, size in enumerate(sizes)])
    for step_s in steps:
        now += step_s
        while (said := bulletin.take(now)) is not None:
            last_s = (len(said) + FRAME_BYTES) * 8 / 1_000
            air_s += last_s
    assert air_s - last_s <= now * share + 1e-6


def test_what_was_never_said_comes_first_and_the_rest_in_turn() -> None:
    bulletin, now, said = Bulletin(1_000, 0.01), 0.0, list[bytes]()
    bulletin.offer([Item(HEAD, 600.0), Item(ONE, 1_800.0)])
    for _ in range(6):
        if (datagram := bulletin.take(now)) is not None:
            said.append(datagram)
        if len(said) == 2:
            bulletin.offer([Item(HEAD, 600.0), Item(ONE, 1_800.0), Item(TWO, NEVER_S)])
        now = max(bulletin.wake_at, now)
    assert said == [HEAD, ONE, TWO, HEAD, HEAD, HEAD]
    assert now < 600 * 5


def test_what_is_said_once_is_enough_wakes_nobody_again() -> None:
    bulletin = Bulletin(1_000, 1.0)
    assert bulletin.wake_at == NEVER_S
    bulletin.offer([Item(bytes([place]), NEVER_S) for place in range(ITEMS_LIMIT + 5)])
    now, said = 0.0, 0
    while bulletin.wake_at < NEVER_S:
        now = max(now, bulletin.wake_at)
        said += bulletin.take(now) is not None
    assert said == ITEMS_LIMIT
