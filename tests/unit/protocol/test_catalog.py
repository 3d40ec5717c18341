"""The catalog: an append-only log that a follower rebuilds, and what it refuses."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.catalog import ENTRIES_PER_PAGE, Catalog, Entry, Page, open_entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode, encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.merkle import leaf_hash
from farcast.protocol.note import Checkpoint

Action = Literal["publish", "supersede", "retire", "deny"]
ACTIONS: list[Action] = ["publish", "supersede", "retire", "deny"]


def an_entry(title: str, action: Action = "publish", version: int = 1) -> Entry:
    return Entry(1, action, title, Cid.of(RAW, f"{title} {version}".encode()).encode(), 1_000)


def head(catalog: Catalog) -> Checkpoint:
    return Checkpoint("log", catalog.size, catalog.root, 1_000)


def a_catalog(titles: str = "abc") -> Catalog:
    catalog = Catalog()
    for title in titles:
        catalog.append(an_entry(title))
    return catalog


def refused(catalog: Catalog, checkpoint: Checkpoint, start: int, entries: list[bytes]) -> str:
    """Return the reason of a refusal that changed nothing."""
    before = (catalog.size, catalog.root, catalog.titles(), catalog.denied())
    with pytest.raises(RemoteError) as caught:
        catalog.extend(checkpoint, start, entries)
    assert (catalog.size, catalog.root, catalog.titles(), catalog.denied()) == before
    return caught.value.reason


entries_of_some_titles = st.lists(
    st.builds(an_entry, st.sampled_from("abcd"), st.sampled_from(ACTIONS), st.integers(1, 3)), max_size=20
)


@given(entries_of_some_titles, st.integers(0, 20))
def test_a_follower_in_two_steps_knows_what_the_origin_knows(entries: list[Entry], cut: int) -> None:
    origin, follower = Catalog(), Catalog()
    for entry in entries[:cut]:
        origin.append(entry)
    follower.extend(head(origin), 0, origin.entries)
    for entry in entries[cut:]:
        origin.append(entry)
    fresh = follower.extend(head(origin), 0, origin.entries)
    assert fresh == len(entries[cut:])
    assert follower.root == origin.root
    assert follower.titles() == origin.titles()
    assert follower.denied() == origin.denied()


def test_a_title_is_listed_under_its_newest_manifest_until_retired_or_denied() -> None:
    catalog = Catalog()
    catalog.append(an_entry("a"))
    catalog.append(an_entry("b"))
    catalog.append(an_entry("a", "supersede", 2))
    assert catalog.titles() == {"a": an_entry("a", "supersede", 2), "b": an_entry("b")}
    catalog.append(an_entry("a", "retire", 2))
    catalog.append(an_entry("b", "deny"))
    assert catalog.titles() == {}
    assert catalog.denied() == {an_entry("b").cid}


def test_a_retired_title_can_be_published_again() -> None:
    catalog = Catalog()
    for entry in (an_entry("a"), an_entry("a", "retire"), an_entry("a", "publish", 2)):
        catalog.append(entry)
    assert catalog.titles() == {"a": an_entry("a", "publish", 2)}


def test_a_smaller_checkpoint_is_a_rollback() -> None:
    assert refused(a_catalog("abc"), head(a_catalog("ab")), 0, a_catalog("ab").entries) == "rollback"


def test_another_root_for_the_same_entries_is_equivocation() -> None:
    catalog, other = a_catalog("abc"), a_catalog("abd")
    assert refused(catalog, head(other), 0, other.entries) == "equivocation"
    other.append(an_entry("e"))
    assert refused(catalog, head(other), 3, other.entries[3:]) == "equivocation"
    assert refused(catalog, head(other), 0, other.entries) == "equivocation"


@pytest.mark.parametrize(("start", "count"), [(4, 1), (3, 1), (0, 4), (3, 0)])
def test_entries_that_do_not_reach_the_checkpoint_are_a_gap(start: int, count: int) -> None:
    origin = a_catalog("abcde")
    entries = origin.entries[start : start + count]
    assert refused(a_catalog("abc"), head(origin), start, entries) == "gap"


def test_entries_beyond_the_checkpoint_are_left_for_the_next() -> None:
    origin, follower = a_catalog("abc"), Catalog()
    signed = head(origin)
    origin.append(an_entry("d"))
    assert follower.extend(signed, 0, origin.entries) == 3
    assert set(follower.titles()) == set("abc")


def test_the_same_checkpoint_again_brings_nothing() -> None:
    catalog = a_catalog("abc")
    assert catalog.extend(head(catalog), 3, []) == 0
    assert catalog.extend(head(catalog), 0, list(catalog.entries)) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"no entry", "malformed"),
        (encode([1, "deny", "a", b"\x01\x55\x12\x20", 1]), "malformed"),
        (encode([1, "publish", "a\n", an_entry("a").manifest, 1]), "malformed"),
        (bytes(513), "too_large"),
    ],
)
def test_one_wrong_entry_under_a_good_root_changes_nothing(data: bytes, reason: str) -> None:
    follower, origin = Catalog(), a_catalog("a")
    origin.entries.append(data)
    tree = origin.tree.copy()
    tree.append(leaf_hash(data))
    assert refused(follower, Checkpoint("log", 2, tree.root(), 1), 0, origin.entries) == reason
    with pytest.raises(RemoteError) as caught:
        open_entry(data)
    assert caught.value.reason == reason


def test_a_page_holds_what_was_asked_for_and_never_too_much() -> None:
    catalog = a_catalog("abcde")
    assert catalog.page(1, 3) == Page(1, 1, catalog.entries[1:3])
    assert catalog.page(3, 99) == Page(1, 3, catalog.entries[3:])
    assert catalog.page(-5, 1) == Page(1, 0, catalog.entries[:1])
    assert catalog.page(9, 12) == Page(1, 9, [])
    catalog.entries += [b""] * ENTRIES_PER_PAGE
    page = catalog.page(0, catalog.size)
    assert len(page.entries) == ENTRIES_PER_PAGE
    assert decode(Page, encode(page)) == page
