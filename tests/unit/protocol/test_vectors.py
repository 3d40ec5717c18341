"""The package reads and writes every golden message, refuses every wrong one, and no bytes surprise it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from farcast.protocol.errors import RemoteError

VECTORS = Path(__file__).parents[2] / "vectors"
MESSAGES: dict[str, Any] = json.loads((VECTORS / "messages.json").read_text())
VALID: list[dict[str, Any]] = MESSAGES["valid"]
INVALID: list[dict[str, Any]] = MESSAGES["invalid"]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vector_{name}", VECTORS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mutations: Any = _load("mutations")
readers: Any = _load("readers")
ONE_OF_EACH = {vector["kind"]: vector for vector in VALID}


def refused_or_read(kind: str, data: bytes, beside: dict[str, Any]) -> bool:
    """Say whether the package reads ``data``; fails on any error but ``RemoteError``."""
    try:
        readers.read(kind, data, beside)
    except RemoteError as error:
        return not (error.reason and str(error))  # a refusal without a word of why is none
    return True


def test_the_script_writes_exactly_the_file() -> None:
    assert _load("make_messages").build() == (VECTORS / "messages.json").read_text()


def test_every_kind_has_a_vector_and_names_are_told_apart() -> None:
    assert set(ONE_OF_EACH) == set(readers.READERS)
    assert {vector["kind"] for vector in INVALID} | {"tickets"} <= set(readers.READERS)
    names = [vector["name"] for vector in VALID + INVALID]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector["name"])
def test_a_vector_reads_as_its_fields_and_is_written_as_its_bytes(vector: dict[str, Any]) -> None:
    data, beside = readers.content(vector)
    fields, again = readers.read(vector["kind"], data, beside)
    assert fields == vector["fields"]
    assert again == data


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["name"])
def test_a_wrong_vector_is_refused_for_its_reason(vector: dict[str, Any]) -> None:
    data, beside = readers.content(vector)
    with pytest.raises(RemoteError) as refused:
        readers.read(vector["kind"], data, beside)
    assert refused.value.reason == vector["reason"]


@pytest.mark.parametrize("kind", sorted(readers.READERS))
@settings(deadline=None)
@drawn(data=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(kind: str, data: bytes) -> None:
    _, beside = readers.content(ONE_OF_EACH[kind])
    refused_or_read(kind, data, beside)


@pytest.mark.parametrize("kind", sorted(readers.READERS))
@settings(deadline=None)
@drawn(draw=st.data())
def test_bytes_near_a_vector_are_read_or_refused(kind: str, draw: st.DataObject) -> None:
    data, beside = readers.content(ONE_OF_EACH[kind])
    refused_or_read(kind, draw.draw(mutations.near(data)), beside)


@pytest.mark.parametrize("kind", sorted(mutations.SIGNERS))
@settings(deadline=None)
@drawn(draw=st.data())
def test_a_signed_body_of_any_shape_is_refused_or_read_and_written_again(
    kind: str, draw: st.DataObject
) -> None:
    data, beside = readers.content(ONE_OF_EACH[kind])
    envelope = draw.draw(mutations.resigned(kind, data, MESSAGES["seeds"]))
    if refused_or_read(kind, envelope, beside):
        assert readers.read(kind, envelope, beside)[1] == envelope
