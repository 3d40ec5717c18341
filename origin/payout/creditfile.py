"""A SEPA credit transfer file: ISO 20022 pain.001.001.09 as the EPC's guidelines narrow it (pure).

One payment block, euro, charges shared; every end-to-end identification is a payout's key, the message
identification follows from the keys, so that a bank sees a file that comes twice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple
from xml.sax.saxutils import escape

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
NAME_CHARS = 70
REMITTANCE_CHARS = 140
MAX_CENTS = 99_999_999_999
"""999,999,999.99 euro, the most that one SEPA credit transfer carries."""
MAX_TRANSFERS = 10_000

_PLAIN = re.compile(r"[^A-Za-z0-9/\-?:().,'+ ]", re.ASCII)
"""What is outside the EPC's character set (EPC217-08)."""
_LETTERS = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "Æ": "AE", "æ": "ae", "Œ": "OE", "œ": "oe", "Ø": "O", "ø": "o", "Đ": "D",
        "đ": "d", "Ð": "D", "ð": "d", "Þ": "Th", "þ": "th", "Ł": "L", "ł": "l", "\u0131": "i", "&": "+",
        "_": "-", "@": "(at)", "\u2013": "-", "\u2014": "-", "\u2019": "'", "\u2018": "'", "`": "'",
    }
)  # fmt: skip
"""Letters that no accent can be taken from, and signs with a neighbour in the set."""


class Debtor(NamedTuple):
    """Whose account pays; ``bic`` may be empty."""

    name: str
    iban: str
    bic: str


class Transfer(NamedTuple):
    """One transfer: ``key`` is its end-to-end identification."""

    key: str
    name: str
    iban: str
    bic: str
    cents: int
    remittance: str


def message_id(keys: Sequence[str]) -> str:
    """Return the message identification of a file with these ``keys``: 34 characters, at most 35 may be."""
    return "FC" + sha256("\n".join(sorted(keys)).encode()).hexdigest()[:32]


def credit_file(debtor: Debtor, transfers: Sequence[Transfer], now_ms: int) -> bytes:
    """Return the file that asks a bank for ``transfers`` today (UTC).

    Raises:
        ValueError: none or too many transfers, a sum no transfer carries, or a key twice.

    """
    keys = [transfer.key for transfer in transfers]
    if not 0 < len(transfers) <= MAX_TRANSFERS or len(set(keys)) < len(keys):
        raise ValueError(len(transfers))
    if not all(0 < transfer.cents <= MAX_CENTS for transfer in transfers):
        raise ValueError(MAX_CENTS)
    now = datetime.fromtimestamp(now_ms // 1_000, UTC)
    name = message_id(keys)
    count, total = str(len(transfers)), amount(sum(transfer.cents for transfer in transfers))
    head = _tag(
        "GrpHdr",
        _text("MsgId", name),
        _text("CreDtTm", f"{now:%Y-%m-%dT%H:%M:%SZ}"),
        _text("NbOfTxs", count),
        _text("CtrlSum", total),
        _tag("InitgPty", _text("Nm", plain(debtor.name, NAME_CHARS))),
    )
    block = _tag(
        "PmtInf",
        _text("PmtInfId", name),
        _text("PmtMtd", "TRF"),
        _text("NbOfTxs", count),
        _text("CtrlSum", total),
        _tag("PmtTpInf", _tag("SvcLvl", _text("Cd", "SEPA"))),
        _tag("ReqdExctnDt", _text("Dt", f"{now:%Y-%m-%d}")),
        _tag("Dbtr", _text("Nm", plain(debtor.name, NAME_CHARS))),
        _tag("DbtrAcct", _tag("Id", _text("IBAN", debtor.iban))),
        _tag("DbtrAgt", _agent(debtor.bic) or _tag("FinInstnId", _tag("Othr", _text("Id", "NOTPROVIDED")))),
        _text("ChrgBr", "SLEV"),
        *map(_transfer, transfers),
    )
    body = _tag("CstmrCdtTrfInitn", head, block)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}">{body}</Document>\n'.encode()
    )


def plain(text: str, limit_chars: int) -> str:
    """Return ``text`` in the EPC's character set: accents go, what has no neighbour there becomes a dot.

    It neither begins nor ends with a slash nor has two in a row (EPC217-08), and is never empty.
    """
    folded = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    found = re.sub("//+", "/", _PLAIN.sub(".", bare))
    found = " ".join(found.split())[:limit_chars].strip(" /")
    return found or "."


def amount(cents: int) -> str:
    """Return cents as euro with two decimals, by integers alone."""
    return f"{cents // 100}.{cents % 100:02}"


def _transfer(transfer: Transfer) -> str:
    agent = _agent(transfer.bic)
    return _tag(
        "CdtTrfTxInf",
        _tag("PmtId", _text("EndToEndId", transfer.key)),
        _tag("Amt", f'<InstdAmt Ccy="EUR">{amount(transfer.cents)}</InstdAmt>'),
        *([_tag("CdtrAgt", agent)] if agent else []),
        _tag("Cdtr", _text("Nm", plain(transfer.name, NAME_CHARS))),
        _tag("CdtrAcct", _tag("Id", _text("IBAN", transfer.iban))),
        _tag("RmtInf", _text("Ustrd", plain(transfer.remittance, REMITTANCE_CHARS))),
    )


def _agent(bic: str) -> str:
    return _tag("FinInstnId", _text("BICFI", bic)) if bic else ""


def _tag(name: str, *parts: str) -> str:
    return f"<{name}>{''.join(parts)}</{name}>"


def _text(name: str, text: str) -> str:
    return _tag(name, escape(text))
