"""Account numbers of banks: IBAN (ISO 13616) and BIC (ISO 9362), checked and masked."""

from __future__ import annotations

import re

from ...protocol.errors import UsageError

_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", re.ASCII)
_BIC = re.compile(r"[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?", re.ASCII)
_LENGTHS = {
    "AD": 24, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GI": 23, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IS": 26,
    "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28,
    "PT": 25, "RO": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "VA": 22,
}  # fmt: skip
"""The lengths of the registry for countries that SEPA reaches; others are checked by their digits alone."""
_SHOWN_CHARS = 4


def parse_iban(text: str) -> str:
    """Return an IBAN without blanks, its check digits verified (ISO 13616: mod 97 leaves 1).

    Raises:
        UsageError: saying what is wrong, never repeating the number.

    """
    iban = "".join(text.split()).upper()
    if not _IBAN.fullmatch(iban):
        raise UsageError("an IBAN is two letters, two digits and 11 to 30 letters or digits")
    expected = _LENGTHS.get(iban[:2], len(iban))
    if len(iban) != expected:
        raise UsageError(f"an IBAN of {iban[:2]} has {expected} characters, this one has {len(iban)}")
    digits = "".join(str(int(char, 36)) for char in iban[4:] + iban[:4])
    if int(digits) % 97 != 1 or not "02" <= iban[2:4] <= "98":
        raise UsageError("the check digits of this IBAN do not fit; look for a slip in it")
    return iban


def parse_bic(text: str) -> str:
    """Return a BIC in capitals; raises ``UsageError`` where it cannot be one."""
    bic = text.strip().upper()
    if not _BIC.fullmatch(bic):
        raise UsageError("a BIC is 8 or 11 letters and digits, like DEUTDEFF")
    return bic


def masked(number: str) -> str:
    """Return an account number as lists show it: how it begins and ends."""
    if len(number) <= 2 * _SHOWN_CHARS:
        return "..." if number else ""
    return f"{number[:_SHOWN_CHARS]}...{number[-_SHOWN_CHARS:]}"
