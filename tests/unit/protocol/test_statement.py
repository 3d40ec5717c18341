from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from farcast.protocol.codec import encode
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.merkle import root_of
from farcast.protocol.rules import Rules, relay_cents, reserve_cents, rules_hash
from farcast.protocol.statement import (
    Head,
    Line,
    Statement,
    digest,
    lines_root,
    open_head,
    pack_lines,
    pack_tickets,
    seal_head,
    ticket_name,
    unpack_lines,
    unpack_tickets,
)

SETTLEMENT = Identity(b"\x21" * 32)
_CENTS = st.integers(0, 2**53 - 1)
_LINES = st.lists(
    st.builds(
        Line,
        st.binary(min_size=32, max_size=32),
        st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True),
        st.sampled_from(["2026-10", "2026-11"]),
        st.integers(0, 2**63 - 1),
        *[_CENTS] * 5,
    ),
    max_size=8,
)
EMPTY = Statement(
    1, "2026-11", 0, bytes(32), Rules(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, False, 0, 0, 0,
    [], [], [], [], 0, root_of([]), 0, bytes(32), bytes(32),
)  # fmt: skip


def opened(data: bytes) -> Head:
    return open_head(data, [SETTLEMENT.key])


@given(_LINES)
def test_lines_come_back_as_packed_and_hash_as_leaves(lines: list[Line]) -> None:
    assert unpack_lines(pack_lines(lines)) == lines
    assert lines_root(lines) == root_of(encode(line) for line in lines)


@given(st.binary(max_size=400))
@pytest.mark.parametrize("read", [unpack_lines, unpack_tickets, opened])
def test_any_bytes_read_or_raise_a_remote_error(read: Callable[[bytes], object], data: bytes) -> None:
    try:
        read(data)
    except RemoteError:
        return
    assert read is not unpack_lines or pack_lines(unpack_lines(data)) == data


@given(st.dictionaries(st.binary(min_size=16, max_size=16), st.integers(0, 2_000), max_size=20))
def test_tickets_are_listed_under_names_that_hide_them(stored: dict[bytes, int]) -> None:
    data = pack_tickets(stored)
    assert unpack_tickets(data) == {ticket_name(tid): count for tid, count in stored.items()}
    assert not any(tid in data for tid in stored)


def test_tickets_out_of_order_or_twice_are_refused() -> None:
    one, two = sorted([b"\1" * 16, b"\2" * 16])
    for data in (two + b"\0\1" + one + b"\0\1", one + b"\0\1" + one + b"\0\1", one):
        with pytest.raises(RemoteError):
            unpack_tickets(data)


def test_a_head_opens_with_the_key_that_signed_it_alone() -> None:
    data = seal_head(Head(1, EMPTY, []), SETTLEMENT)
    other = Identity(b"\x22" * 32)
    assert open_head(data, [other.key, SETTLEMENT.key]).statement == EMPTY
    with pytest.raises(RemoteError):
        open_head(data, [other.key])
    with pytest.raises(RemoteError, match="no settlement key"):
        open_head(data, [])


def test_a_statements_name_covers_every_field() -> None:
    names = {digest(EMPTY)}
    for field in EMPTY.__struct_fields__[1:]:
        value: object = getattr(EMPTY, field)
        if isinstance(value, int):
            names.add(digest(replace(EMPTY, **{field: not value if value is False else value + 1})))
    assert len(names) == 19


def test_another_rule_is_another_hash() -> None:
    assert rules_hash(Rules()) == rules_hash(Rules())
    assert rules_hash(Rules(gap_ms=299_999)) != rules_hash(Rules())


@pytest.mark.parametrize(
    ("kbytes", "cents"), [(499_999, 0), (500_000, 1), (1_000_000, 2), (123_456_789, 246)]
)
def test_relay_pay_is_whole_cents_by_the_gigabyte(kbytes: int, cents: int) -> None:
    assert relay_cents(Rules(relay_cents_per_gb=2), kbytes) == cents


def test_the_reserve_is_never_negative() -> None:
    assert reserve_cents(Rules(reserve_base="surplus"), 100, 900) == 0
    assert reserve_cents(Rules(), 999, 900) == 49
