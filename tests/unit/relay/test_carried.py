from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.relay.carried import Budgets, Carried, Share

ANN, BEN, CID = "12D3KooWann", "12D3KooWben", "12D3KooWcid"


def test_an_empty_list_carries_everybody_without_bounds() -> None:
    carried = Carried([])
    assert carried.carries(ANN)
    assert carried.budget(ANN) is None
    assert not carried.bounded


def test_a_list_carries_whom_it_names_each_within_a_budget() -> None:
    carried = Carried([f"{ANN} = 5 GB", BEN])
    assert (carried.carries(ANN), carried.carries(BEN), carried.carries(CID)) == (True, True, False)
    assert (carried.budget(ANN), carried.budget(BEN)) == (5 * 10**9, None)
    assert carried.bounded


def test_a_star_stands_for_each_of_the_others() -> None:
    carried = Carried([f"{ANN}=1GB", "* = 10 MB"])
    assert carried.carries(CID)
    assert (carried.budget(ANN), carried.budget(CID)) == (10**9, 10**7)


def test_the_longest_unused_titles_of_whoever_is_over_leave_first() -> None:
    budgets = Budgets(Carried([f"{ANN} = 100", "*"]))
    budgets.measured({"a": Share(ANN, 60), "b": Share(ANN, 60), "c": Share(ANN, 30), "d": Share(BEN, 900)})
    budgets.used("a", ANN)
    budgets.used("c", ANN)
    assert budgets.over() == ["b"]
    budgets.dropped("b", 60)
    assert (budgets.over(), budgets.held_bytes(ANN)) == ([], 90)
    budgets.used("e", ANN, 50)
    assert budgets.over() == ["a"]


def test_whoever_is_not_carried_any_more_leaves_wholly() -> None:
    budgets = Budgets(Carried([]))
    budgets.measured({"a": Share(ANN, 60), "d": Share(BEN, 9)})
    assert budgets.over() == []
    budgets.carried = Carried([BEN])
    assert budgets.over() == ["a"]


@given(
    shares=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.builds(Share, st.sampled_from([ANN, BEN, CID]), st.integers(0, 1_000)),
        max_size=20,
    ),
    budget=st.integers(0, 3_000),
    uses=st.lists(st.sampled_from("abcdef"), max_size=20),
)
def test_after_letting_go_everybody_is_within_his_budget_and_nobody_lost_more_than_he_had_to(
    shares: dict[str, Share], budget: int, uses: list[str]
) -> None:
    budgets = Budgets(Carried([f"{ANN} = {budget}", BEN]))
    budgets.measured(shares)
    for title in uses:
        if title in shares:
            budgets.used(title, shares[title].publisher)
    gone = budgets.over()
    for title in gone:
        budgets.dropped(title, shares[title].size_bytes)
    assert budgets.held_bytes(ANN) <= budget
    assert budgets.held_bytes(CID) == 0
    assert budgets.held_bytes(BEN) == sum(share.size_bytes for share in shares.values() if share[0] == BEN)
    mine = [title for title in gone if shares[title].publisher == ANN]
    if mine:
        assert budgets.held_bytes(ANN) + shares[mine[-1]].size_bytes > budget
