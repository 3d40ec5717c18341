"""What connected before is tried first, name by name and network by network."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.node.http.dualstack import NAMES, DualStack

V4, V6 = 2, 10
FOUND = [(V6, "2001:db8::1", 0), (V6, "2001:db8::2", 1), (V4, "192.0.2.1", 2), (V4, "192.0.2.2", 3)]


def order(stack: DualStack, network: str = "home", name: str = "cdn.example") -> list[str]:
    return [address for _, address, _ in stack.order(network, name, FOUND)]


def test_families_alternate_and_begin_as_they_were_found() -> None:
    assert order(DualStack()) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    assert DualStack().order("home", "nowhere", []) == []


def test_a_dead_family_costs_one_wait_for_a_network_and_not_one_for_each_name() -> None:
    stack = DualStack()
    stack.connected("home", "cdn.example", V4, "192.0.2.2", raced=True)
    assert order(stack)[0] == "192.0.2.2"
    assert order(stack, name="relay.example")[0] == "192.0.2.1", "its family won here"
    assert order(stack, network="hotel")[0] == "2001:db8::1", "elsewhere nothing is known"


def test_a_name_with_one_family_says_nothing_of_the_other() -> None:
    stack = DualStack()
    stack.connected("home", "old.example", V4, "192.0.2.9", raced=False)
    assert order(stack)[0] == "2001:db8::1"


def test_what_is_remembered_is_bounded() -> None:
    stack = DualStack()
    stack.connected("home", "cdn.example", V4, "192.0.2.2", raced=False)
    for number in range(NAMES):
        stack.connected("home", f"n{number}.example", V4, "192.0.2.2", raced=False)
    assert order(stack)[0] == "2001:db8::1"


@given(
    st.lists(st.tuples(st.sampled_from([V4, V6]), st.text(max_size=3)), max_size=8, unique=True),
    st.lists(st.tuples(st.sampled_from([V4, V6]), st.text(max_size=3), st.booleans()), max_size=8),
)
def test_every_address_stays_and_the_last_that_answered_is_first(
    found: list[tuple[int, str]], history: list[tuple[int, str, bool]]
) -> None:
    stack = DualStack()
    for family, address, raced in history:
        stack.connected("home", "name", family, address, raced=raced)
    listed = [(family, address, None) for family, address in found]
    ordered = stack.order("home", "name", listed)
    assert sorted(ordered, key=str) == sorted(listed, key=str)
    if history and any(address == history[-1][1] for _, address in found):
        assert ordered[0][1] == history[-1][1]
