"""Errors: who broke the rule, why, and what the person reads."""

from __future__ import annotations

import inspect

import pytest

from farcast.protocol import errors
from farcast.protocol.errors import (
    FarcastError,
    LocalError,
    RefusedError,
    RemoteError,
    StoreFullError,
    UnreachableError,
    UsageError,
)


@pytest.mark.parametrize(
    ("kind", "parent", "reason"),
    [
        (UsageError, LocalError, "usage"),
        (StoreFullError, LocalError, "store_full"),
        (UnreachableError, RemoteError, "unreachable"),
        (RefusedError, RemoteError, "refused"),
        (LocalError, FarcastError, "error"),
        (RemoteError, FarcastError, "error"),
    ],
)
def test_every_error_carries_its_sentence_and_a_reason(
    kind: type[FarcastError], parent: type[FarcastError], reason: str
) -> None:
    assert issubclass(kind, parent)
    assert (str(kind("The sentence.")), kind("The sentence.").reason) == ("The sentence.", reason)
    assert kind("The sentence.", reason="other").reason == "other"


def test_a_refusal_says_which_answer_it_was_and_when_to_come_back() -> None:
    error = RefusedError("Too many requests.", status=429, retry_after_s=2.5)
    assert (error.status, error.retry_after_s) == (429, 2.5)
    assert RefusedError("No.").status == 400
    assert RefusedError("No.").retry_after_s is None


def test_the_tree_of_errors_is_two_levels_deep() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert len(kinds) >= 7
    assert all(kind.__mro__.index(FarcastError) <= 2 for kind in kinds)
