"""Digests: what a box carries, told by number before any pulse is sent, and what the other one lacks.

Two boxes compare before they exchange: a ticket's sequence numbers as spans cost a few bytes, a pulse
some 330. The answer also brings the origin's acks, which is what lets the asker delete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, filterfalse
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from .codec import Message, decode
from .errors import RemoteError
from .ticket import MAX_SEQ, Tid

DIGEST_LIMIT_BYTES = 64 << 10
ANSWER_LIMIT_BYTES = 512 << 10
MAX_TIDS = 256
MAX_ACKS = 64

Number = Annotated[int, Meta(ge=1, le=MAX_SEQ)]


class Span(Message, frozen=True):
    """All sequence numbers from ``first`` to ``last``, both included."""

    first: Number
    last: Number


class Held(Message, frozen=True):
    """One ticket's pulses by number; under each of ``twins`` there is more than one body.

    Spans ascend and never touch, twins ascend, so that a set of numbers has one form.
    """

    tid: Tid
    spans: Annotated[list[Span], Meta(max_length=MAX_SEQ // 2)]
    twins: Annotated[list[Number], Meta(max_length=MAX_SEQ)]

    def numbers(self) -> Iterator[int]:
        """Iterate over every number, ascending."""
        return chain.from_iterable([range(span.first, span.last + 1) for span in self.spans])


class Digest(Message, frozen=True):
    """What waits at the asker; unsigned, because it only saves bytes."""

    v: Literal[1]
    held: Annotated[list[Held], Meta(max_length=MAX_TIDS)]


class Lacking(Message, frozen=True):
    """Which of a digest's pulses the asked box wants, and signed acks that speak of its tickets."""

    v: Literal[1]
    held: Annotated[list[Held], Meta(max_length=MAX_TIDS)]
    acks: Annotated[list[bytes], Meta(max_length=MAX_ACKS)]


class Numbers(NamedTuple):
    """A ticket's numbers as a spool knows them: all that are held, and those held with two bodies."""

    all: list[int]
    twins: list[int]


def held(tid: bytes, numbers: Iterable[int], twins: Iterable[int] = ()) -> Held:
    """Return the one form of a set of numbers."""
    return Held(tid, _spans(list(numbers)), sorted(set(twins)))


def missing(offered: Held, here: Mapping[int, int], room: int) -> Held | None:
    """Return what of ``offered`` to ask for; None for nothing.

    ``here`` is how many bodies are held by number (an ack counts for all there can be); ``room`` how
    many more pulses of the ticket may come, the lowest numbers first.
    """
    twins = set(offered.twins)
    if twins:
        lacking = [number for number in offered.numbers() if here.get(number, 0) < 1 + (number in twins)]
    else:
        lacking = list(filterfalse(here.get, offered.numbers()))
    wanted = lacking[:room]
    if not wanted:
        return None
    return held(offered.tid, wanted, twins.intersection(wanted))


def _spans(numbers: list[int]) -> list[Span]:
    """Return numbers as spans; ascending ones without a hole, the usual case, are seen at once."""
    if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return [Span(numbers[0], numbers[-1])]
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return [Span(*span) for span in spans]


def open_digest(data: bytes) -> Digest:
    """Decode a digest; raises ``RemoteError``."""
    digest = decode(Digest, data, limit_bytes=DIGEST_LIMIT_BYTES)
    _check(digest.held)
    return digest


def open_lacking(data: bytes) -> Lacking:
    """Decode the answer to a digest; raises ``RemoteError``."""
    lacking = decode(Lacking, data, limit_bytes=ANSWER_LIMIT_BYTES)
    _check(lacking.held)
    return lacking


def _check(items: list[Held]) -> None:
    """Raise ``RemoteError`` ``bad_digest`` for numbers in another than their one form, or a ticket twice."""
    if len({item.tid for item in items}) != len(items):
        raise RemoteError("a digest that names a ticket twice", reason="bad_digest")
    for item in items:
        end = -1
        for span in item.spans:
            if span.first <= end + 1 or span.last < span.first:
                raise RemoteError("a digest whose spans do not ascend", reason="bad_digest")
            end = span.last
        numbers = set(item.numbers()) if item.twins else set[int]()
        if item.twins != sorted(set(item.twins)) or not numbers.issuperset(item.twins):
            raise RemoteError("a digest whose twins are none of its numbers", reason="bad_digest")
