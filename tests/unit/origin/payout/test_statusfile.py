from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.payout.statusfile import Word, read_status
from farcast.protocol.errors import UsageError

REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt>
<GrpHdr><MsgId>b1</MsgId><CreDtTm>2026-12-07T09:00:00</CreDtTm></GrpHdr>
<OrgnlGrpInfAndSts><OrgnlMsgId>FC1</OrgnlMsgId>{group}</OrgnlGrpInfAndSts>
<OrgnlPmtInfAndSts><OrgnlPmtInfId>FC1</OrgnlPmtInfId>
<TxInfAndSts><OrgnlEndToEndId>k1</OrgnlEndToEndId><TxSts>ACSC</TxSts></TxInfAndSts>
<TxInfAndSts><OrgnlEndToEndId>k2</OrgnlEndToEndId><TxSts>RJCT</TxSts>
<StsRsnInf><Rsn><Cd>AC04</Cd></Rsn><AddtlInf>closed account</AddtlInf></StsRsnInf></TxInfAndSts>
<TxInfAndSts><OrgnlEndToEndId>k3</OrgnlEndToEndId><TxSts>ACSP</TxSts></TxInfAndSts>
</OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"""
ENTRY = """<Ntry><Amt Ccy="EUR">85.00</Amt><CdtDbtInd>{side}</CdtDbtInd><Sts>{state}</Sts><NtryDtls><TxDtls>
<Refs><EndToEndId>{key}</EndToEndId></Refs><Amt Ccy="EUR">{amount}</Amt>{more}</TxDtls></NtryDtls></Ntry>"""


def notification(*entries: str, version: str = "08") -> bytes:
    name = f"urn:iso:std:iso:20022:tech:xsd:camt.054.001.{version}"
    inside = "".join(entries)
    return (
        f'<Document xmlns="{name}"><BkToCstmrDbtCdtNtfctn><Ntfctn>{inside}</Ntfctn>'
        "</BkToCstmrDbtCdtNtfctn></Document>"
    ).encode()


def entry(
    key: str, *, side: str = "DBIT", state: str = "<Cd>BOOK</Cd>", amount: str = "85", more: str = ""
) -> str:
    return ENTRY.format(key=key, side=side, state=state, amount=amount, more=more)


def test_a_report_ends_what_is_settled_or_rejected_and_nothing_else() -> None:
    assert read_status(REPORT.format(group="").encode()) == [
        Word("k1", "FC1", paid=True, reason="the bank says ACSC"),
        Word("k2", "FC1", paid=False, reason="rejected by the bank: AC04 closed account"),
    ]


def test_a_rejected_file_is_one_word_for_all_of_it() -> None:
    group = "<GrpSts>RJCT</GrpSts><StsRsnInf><Rsn><Cd>DU01</Cd></Rsn></StsRsnInf>"
    first = read_status(REPORT.format(group=group).encode())[0]
    assert first == Word("", "FC1", paid=False, reason="rejected by the bank: DU01")


@pytest.mark.parametrize("version", ["02", "04", "08", "10"])
def test_a_notification_says_what_was_booked(version: str) -> None:
    data = notification(
        entry("k1", amount="85.00"), entry("k2", state="BOOK", amount="0.5"),
        entry("k3", state="<Cd>PDNG</Cd>"), entry("k4", side="CRDT"), version=version,
    )  # fmt: skip
    assert [(word.key, word.paid, word.cents) for word in read_status(data)] == [
        ("k1", True, 8_500),
        ("k2", True, 50),
    ]


def test_a_returned_transfer_did_not_arrive() -> None:
    data = notification(entry("k1", side="CRDT", more="<RtrInf><Rsn><Cd>AC04</Cd></Rsn></RtrInf>"))
    assert read_status(data) == [Word("k1", "", paid=False, reason="returned: AC04")]


@given(st.integers(0, 10**11))
def test_amounts_are_read_to_the_cent(cents: int) -> None:
    data = notification(entry("k", amount=f"{cents // 100}.{cents % 100:02}"))
    assert read_status(data)[0].cents == cents


@pytest.mark.parametrize("amount", ["1.005", "-5", "1,00", "", "٣"])
def test_an_amount_that_is_none_is_not_guessed(amount: str) -> None:
    assert read_status(notification(entry("k", amount=amount)))[0].cents is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no XML"),
        (b"<Document>", "no XML"),
        (b"\xff\xfe<\x00", "no XML"),
        (b"<Document><CstmrCdtTrfInitn/></Document>", "neither"),
        (b'<!DOCTYPE d [<!ENTITY a "b">]><Document>&a;</Document>', "entities"),
    ],
)
def test_what_is_no_word_of_a_bank_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_status(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_words_or_one_sentence(data: bytes) -> None:
    with pytest.raises(UsageError) as caught:  # 200 bytes are too few for a word
        read_status(data)
    assert "\n" not in str(caught.value)
