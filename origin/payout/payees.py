"""The payees' terms in ``accounts.db``: how each is paid and where, which only this file knows."""

from __future__ import annotations

from typing import Any

import msgspec

from ...protocol.errors import UsageError
from ..accounts import Accounts, Payee
from .iban import parse_bic, parse_iban
from .terms import POINTS, Terms, parse_region

TEXT_CHARS = 200


class Wishes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody wants changed of a payee's terms; None leaves a thing as it is, empty removes it.

    ``points`` below zero gives the rate back to the region.
    """

    name: str | None = None
    method: str | None = None
    region: str | None = None
    iban: str | None = None
    bic: str | None = None
    account: str | None = None
    points: int | None = None
    blocked: str | None = None


class Payees:
    """Everybody who is paid; ``methods`` are the names a payee's method may have. Every method blocks."""

    def __init__(self, accounts: Accounts, methods: frozenset[str]) -> None:
        self._accounts = accounts
        self._methods = methods

    def put(self, payee: str, wishes: Wishes, now_ms: int, *, new: bool) -> Terms:
        """Add a payee or change what ``wishes`` names; returns the terms that hold now.

        Raises:
            UsageError: for what cannot be, or a payee to change whom nobody knows.

        """
        fields = self._read(wishes)
        before = self.all().get(payee)
        if before is None and not new:
            message = f"there is no payee {payee!r}; `farcast origin payee add {payee}` adds one"
            raise UsageError(message, reason="unknown_payee")
        base = before or Terms(payee, payee, "")
        if "name" in fields:
            fields["name"] = fields["name"] or payee
        terms = base._replace(**fields)
        self._accounts.add_payee(Payee(payee, terms.name, terms.method), now_ms)
        with self._accounts.writing() as conn:
            conn.execute(
                """INSERT INTO payee_terms (payee, region, iban, bic, account, points, blocked)
                   VALUES (?, ?, ?, ?, ?, ?, ?)
                   ON CONFLICT (payee) DO UPDATE SET region = excluded.region, iban = excluded.iban,
                     bic = excluded.bic, account = excluded.account, points = excluded.points,
                     blocked = excluded.blocked""",
                (payee, *terms[3:]),
            )
        return terms

    def all(self) -> dict[str, Terms]:
        """Return everybody's terms, by id."""
        query = """SELECT id, name, method, coalesce(region, ''), coalesce(iban, ''), coalesce(bic, ''),
                     coalesce(account, ''), points, coalesce(blocked, '')
                   FROM payee LEFT JOIN payee_terms ON payee = id ORDER BY id"""
        with self._accounts.reading() as conn:
            return {row[0]: Terms(*row) for row in conn.execute(query)}

    def _read(self, wishes: Wishes) -> dict[str, Any]:
        """Return what is to change, checked."""
        fields = {name: value for name, value in msgspec.structs.asdict(wishes).items() if value is not None}
        for name, value in fields.items():
            if isinstance(value, str) and (len(value) > TEXT_CHARS or not value.isprintable()):
                raise UsageError(f"--{name} is one line of at most {TEXT_CHARS} characters")
        method = fields.get("method", "")
        if method and method not in self._methods:
            known = ", ".join(sorted(self._methods))
            raise UsageError(f"no method {method!r} is known; a payee is paid by one of {known}")
        if fields.get("iban"):
            fields["iban"] = parse_iban(fields["iban"])
        if fields.get("bic"):
            fields["bic"] = parse_bic(fields["bic"])
        if "region" in fields:
            fields["region"] = parse_region(fields["region"])
        if "points" in fields:
            points = fields["points"]
            if points >= POINTS:
                raise UsageError(
                    f"--withholding is from 0 to {POINTS - 1} basis points, or -1 for the region's"
                )
            fields["points"] = points if points >= 0 else None
        return fields
