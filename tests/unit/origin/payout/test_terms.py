from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.payout.terms import POINTS, Terms, parse_region, standing, tax_points, withheld
from farcast.protocol.errors import UsageError

ADA = Terms("ada", "Ada", "sepa", "US-CA", "DE89370400440532013000")
RATES = {"DE": 1_500, "US": 3_000, "US-CA": 700, "*": 2_500}


@given(st.integers(1, 2**53), st.integers(0, POINTS - 1))
def test_gross_is_net_and_tax_and_the_odd_cent_is_the_payees(gross_cents: int, points: int) -> None:
    net_cents, tax_cents = withheld(gross_cents, points)
    assert net_cents + tax_cents == gross_cents
    assert net_cents >= 1
    exact = Fraction(gross_cents * points, POINTS)
    assert 0 <= exact - tax_cents < 1


def test_the_nearest_rate_counts() -> None:
    assert tax_points(ADA, RATES) == 700
    assert tax_points(ADA._replace(region="US-NY"), RATES) == 3_000
    assert tax_points(ADA._replace(region="FR"), RATES) == 2_500
    assert tax_points(ADA._replace(region=""), RATES) == 2_500
    assert tax_points(ADA._replace(region="FR"), {"DE": 1}) == 0
    assert tax_points(ADA._replace(points=0), RATES) == 0


@pytest.mark.parametrize(
    ("owed_cents", "terms", "fault", "why"),
    [
        (4_999, ADA, "", "below 5000 cents"),
        (9_000, None, "", "nobody knows ada"),
        (9_000, ADA._replace(method=""), "", "no method"),
        (9_000, ADA, "no IBAN", "no IBAN"),
        (9_000, ADA._replace(blocked="a court says so"), "", "blocked: a court says so"),
    ],
)
def test_what_is_not_due_says_why(owed_cents: int, terms: Terms | None, fault: str, why: str) -> None:
    found = standing("ada", owed_cents, 5_000, terms, fault)
    assert found.due == "accrued"
    assert why in found.why


def test_from_the_least_sum_on_it_is_due() -> None:
    assert standing("ada", 5_000, 5_000, ADA, "") == ("ada", 5_000, "eligible", "")
    assert standing("ada", 0, 0, ADA, "").due == "accrued"


def test_lists_show_no_whole_account() -> None:
    shown = str(ADA._replace(bic="DEUTDEFF", account="acct_0123456789").facts())
    for secret in (ADA.iban, "DEUTDEFF", "acct_0123456789"):
        assert secret not in shown


def test_a_region_is_a_code() -> None:
    assert parse_region(" us-ca ") == "US-CA"
    assert parse_region("") == ""
    for text in ("Germany", "D", "DE-", "*"):
        with pytest.raises(UsageError, match="ISO 3166"):
            parse_region(text)
