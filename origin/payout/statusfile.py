"""What a bank says of a credit transfer file: a pain.002 status report or a camt.054 notification (pure).

Versions differ in their namespace alone where this looks, so elements go by their local names.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree as ET

from ...protocol.errors import UsageError

SIZE_LIMIT_BYTES = 16 << 20
_DONE = frozenset({"ACSC", "ACCC"})
"""Settled: on the debtor's account, or on the creditor's (ISO 20022 external payment status codes)."""
_REJECTED = "RJCT"


class Word(NamedTuple):
    """What the bank says of one transfer, or of every one of a file where ``key`` is empty.

    ``message`` is the file's message identification where it is named, ``cents`` the amount where it is.
    """

    key: str
    message: str
    paid: bool
    reason: str
    cents: int | None = None


def read_status(data: bytes) -> list[Word]:
    """Return what a bank's file says for certain; what is still under way there is left out.

    Raises:
        UsageError: where it is neither a status report nor a notification.

    """
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:  # ISO 20022 has none, and entities can be bombs
            raise UsageError("a bank's file declares no entities; this one does")
        root = ET.fromstring(text)  # noqa: S314 - no entities
    except (UnicodeDecodeError, ET.ParseError, ValueError) as error:
        raise UsageError(
            f"this is no XML in UTF-8 ({error}); give the bank's camt.054 or pain.002"
        ) from error
    for name, read in (("CstmrPmtStsRpt", _report), ("BkToCstmrDbtCdtNtfctn", _notification)):
        if (found := _child(root, name)) is not None:
            return read(found)
    raise UsageError("this is neither a pain.002 status report nor a camt.054 notification")


def _report(report: ET.Element) -> list[Word]:
    words: list[Word] = []
    group = _child(report, "OrgnlGrpInfAndSts")
    message = _text(group, "OrgnlMsgId")
    if _text(group, "GrpSts") == _REJECTED:
        words.append(Word("", message, paid=False, reason=_why(group)))
    for block in _all(report, "OrgnlPmtInfAndSts"):
        for item in _all(block, "TxInfAndSts"):
            key, status = _text(item, "OrgnlEndToEndId"), _text(item, "TxSts")
            if status in _DONE:
                words.append(Word(key, message, paid=True, reason=f"the bank says {status}"))
            elif status == _REJECTED:
                words.append(Word(key, message, paid=False, reason=_why(item)))
    return words


def _notification(notification: ET.Element) -> list[Word]:
    words: list[Word] = []
    for entry in (entry for part in _all(notification, "Ntfctn") for entry in _all(part, "Ntry")):
        state = _child(entry, "Sts")
        booked = "BOOK" in (_text(entry, "Sts"), _text(state, "Cd"))
        debit = _text(entry, "CdtDbtInd") == "DBIT"
        for item in (item for part in _all(entry, "NtryDtls") for item in _all(part, "TxDtls")):
            key = _text(_child(item, "Refs"), "EndToEndId")
            returned = _child(item, "RtrInf")
            if booked and returned is not None:
                words.append(Word(key, "", paid=False, reason=f"returned: {_code(returned) or 'no reason'}"))
            elif booked and debit:
                words.append(Word(key, "", paid=True, reason="booked by the bank", cents=_cents(item)))
    return words


def _why(item: ET.Element | None) -> str:
    """Return the reason of a rejection, as its code and the bank's words."""
    info = _child(item, "StsRsnInf")
    said = " ".join(part for part in (_code(info), _text(info, "AddtlInf")) if part)
    return f"rejected by the bank: {said or 'no reason'}"


def _code(info: ET.Element | None) -> str:
    reason = _child(info, "Rsn")
    return _text(reason, "Cd") or _text(reason, "Prtry")


def _cents(item: ET.Element) -> int | None:
    """Return a transfer's amount; None where it is not given in whole cents."""
    whole, _, part = _text(item, "Amt").partition(".")
    if not (whole + part).isdecimal() or not (whole + part).isascii() or part[2:].strip("0"):
        return None
    return int(whole or "0") * 100 + int(part[:2].ljust(2, "0"))


def _child(element: ET.Element | None, name: str) -> ET.Element | None:
    return next(iter(_all(element, name)), None)


def _all(element: ET.Element | None, name: str) -> list[ET.Element]:
    if element is None:
        return []
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _text(element: ET.Element | None, name: str) -> str:
    child = _child(element, name)
    return (child.text or "").strip() if child is not None else ""
