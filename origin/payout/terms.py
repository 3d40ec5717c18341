"""How a payee is paid, and whether anything is due: method, region, tax, least sum (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from ...protocol.errors import UsageError
from .iban import masked

POINTS = 10_000
ELSEWHERE = "*"
"""In ``[money.withholding]``: every region that is not named, and a payee without one."""
REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)

Due = Literal["accrued", "eligible"]


class Terms(NamedTuple):
    """One payee's terms; ``iban``, ``bic`` and ``account`` are private.

    ``region`` is an ISO 3166 code; ``points`` are basis points withheld whatever the region says, None
    where it says; ``blocked`` is why nothing is paid, empty where it is.
    """

    payee: str
    name: str
    method: str
    region: str = ""
    iban: str = ""
    bic: str = ""
    account: str = ""
    points: int | None = None
    blocked: str = ""

    def facts(self) -> dict[str, object]:
        """Return what lists may show."""
        return {
            "id": self.payee,
            "name": self.name,
            "method": self.method,
            "region": self.region,
            "iban": masked(self.iban),
            "account": masked(self.account),
            "withholding_basis_points": self.points,
            "blocked": self.blocked,
        }


class Standing(NamedTuple):
    """What is owed to a payee: ``eligible`` for the next run, or ``accrued`` with a reason."""

    payee: str
    owed_cents: int
    due: Due
    why: str


def parse_region(text: str) -> str:
    """Return a region's code; raises ``UsageError``."""
    region = text.strip().upper()
    if region and not REGION.fullmatch(region):
        raise UsageError(f"{text!r} is no region; name an ISO 3166 code such as DE or US-CA")
    return region


def tax_points(terms: Terms, rates: Mapping[str, int]) -> int:
    """Return the basis points withheld from a payee: their own, their region's, the country's or ``*``'s."""
    if terms.points is not None:
        return terms.points
    for region in (terms.region, terms.region.partition("-")[0]):
        if region and region in rates:
            return rates[region]
    return rates.get(ELSEWHERE, 0)


def withheld(gross_cents: int, points: int) -> tuple[int, int]:
    """Split a gross sum into net and tax; the tax is rounded down, so the odd part of a cent is the payee's.

    Below ``POINTS`` at least one cent of a positive sum is net.
    """
    tax_cents = gross_cents * points // POINTS
    return gross_cents - tax_cents, tax_cents


def standing(payee: str, owed_cents: int, least_cents: int, terms: Terms | None, fault: str) -> Standing:
    """Say whether a payee is paid by the next run; ``fault`` is what their method lacks, empty if nothing."""
    if terms is None:
        why = f"nobody knows {payee}: farcast origin payee add {payee} --method ..."
    elif terms.blocked:
        why = f"blocked: {terms.blocked}"
    elif owed_cents < least_cents:
        why = f"below {least_cents} cents"
    elif not terms.method:
        why = f"no method: farcast origin payee set {payee} --method ..."
    else:
        why = fault
    eligible = not why and owed_cents > 0
    return Standing(payee, owed_cents, "eligible" if eligible else "accrued", why)
