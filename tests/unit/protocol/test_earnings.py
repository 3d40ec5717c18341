from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import encode
from farcast.protocol.earnings import (
    EARNINGS_LIMIT_BYTES,
    MAX_TITLES,
    EarningsAnswer,
    EarningsRequest,
    MonthEarnings,
    PayeeEarning,
    RelayEarning,
    TitleViewed,
    earnings_json,
    open_earnings_answer,
    open_earnings_request,
)
from farcast.protocol.errors import RemoteError
from farcast.protocol.statement import CodeLine

COUNT = st.integers(0, 2**53 - 1)
RELAYS = st.builds(RelayEarning, st.binary(min_size=32, max_size=32), COUNT, COUNT, COUNT, COUNT)
TITLES = st.builds(TitleViewed, st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True), COUNT, COUNT)
CODES = st.builds(CodeLine, st.sampled_from(["gap", "session_cap", "late"]), COUNT, COUNT)
PAYEES = st.builds(
    PayeeEarning, st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True), st.lists(TITLES, max_size=3),
    COUNT, COUNT, COUNT, COUNT, st.lists(CODES, max_size=3),
)  # fmt: skip
MONTHS = st.builds(
    MonthEarnings, st.sampled_from(["2026-11", "2027-01"]), st.booleans(), COUNT, st.booleans(),
    st.lists(RELAYS, max_size=2), st.lists(PAYEES, max_size=2),
)  # fmt: skip
FULL = PayeeEarning(
    "p" * 63,
    [TitleViewed(f"{number:063}", 2**53 - 1, 10_000) for number in range(MAX_TITLES)],
    2**53 - 1, 2**53 - 1, 2**53 - 1, 2**53 - 1, [],
)  # fmt: skip


@given(st.lists(MONTHS, max_size=2))
def test_an_answer_says_the_same_when_it_is_read(months: list[MonthEarnings]) -> None:
    answer = EarningsAnswer(1, "EUR", months)
    assert open_earnings_answer(encode(answer)) == answer
    told = cast("list[object]", earnings_json(answer)["months"])
    assert len(told) == len(months)


def test_the_fullest_answer_of_one_asker_stays_within_the_limit() -> None:
    relay = RelayEarning(bytes(32), 2**53 - 1, 2**53 - 1, 2**53 - 1, 2**53 - 1)
    month = MonthEarnings("2026-11", True, 2**53 - 1, True, [relay], [FULL])
    data = encode(EarningsAnswer(1, "EUR", [month, month]))
    assert EARNINGS_LIMIT_BYTES // 2 < len(data) <= EARNINGS_LIMIT_BYTES
    assert len(open_earnings_answer(data).months[0].payees[0].titles) == MAX_TITLES


@pytest.mark.parametrize(
    "months",
    [
        [MonthEarnings("2026-11", True, 0, True, [], [])] * 3,
        [MonthEarnings("2026-11", True, 0, True, [RelayEarning(bytes(32), 0, 0, 0, 0)] * 17, [])],
        [MonthEarnings("2026-11", True, 0, True, [], [PayeeEarning("ann", [], 0, 0, 0, 0, [])] * 17)],
        [MonthEarnings("2026-11", True, -1, True, [], [])],
        [MonthEarnings("2026-13", True, 0, True, [], [])],
    ],
    ids=["months", "relays", "payees", "negative", "month"],
)
def test_more_than_may_be_is_refused(months: list[MonthEarnings]) -> None:
    with pytest.raises(RemoteError) as refused:
        open_earnings_answer(encode(EarningsAnswer(1, "EUR", months)))
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "now", "2026-11 "])
def test_a_request_names_a_month_or_none(month: str) -> None:
    assert open_earnings_request(encode(EarningsRequest(1, ""))).month == ""
    with pytest.raises(RemoteError):
        open_earnings_request(encode(EarningsRequest(1, month)))
