"""Apportionment: whole cents by weight, exact to the last one (largest remainder, Hamilton's method)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", str, bytes)

_BUCKET_BITS = 8
_FEW = 1_024
"""Below so many remainders sorting them is quicker than counting them first."""


def apportion(total: int, weights: Mapping[K, int]) -> dict[K, int]:
    """Split ``total`` cents by ``weights``: floors first, then one cent each by largest remainder.

    Ties go to the smaller key, so the order of ``weights`` never matters. The parts sum to
    ``total`` unless all weights are zero, when everybody gets nothing. Weights and total are
    non-negative; products may pass 2^63, which Python's integers take exactly.
    """
    keys = sorted(weights)
    parts = dict(zip(keys, portions(total, [weights[key] for key in keys]), strict=True))
    return {key: parts[key] for key in weights}


def portions(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` as ``apportion`` does, by place: ties go to the earlier one."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    wholes = [total * weight for weight in weights]
    parts = [each // whole for each in wholes]
    left = total - sum(parts)
    if left:
        rests = [each - part * whole for each, part in zip(wholes, parts, strict=True)]
        for place in _largest(rests, left, whole.bit_length()):
            parts[place] += 1
    return parts


def _largest(remainders: list[int], count: int, bits: int) -> list[int]:
    """Return the places of the ``count`` largest remainders, all below 2^``bits``.

    Of a million only those are sorted that share their top bits with the last one chosen.
    """
    if len(remainders) < _FEW:
        return sorted(range(len(remainders)), key=remainders.__getitem__, reverse=True)[:count]
    shift = max(0, bits - _BUCKET_BITS)
    buckets = [rest >> shift for rest in remainders]
    sizes = Counter(buckets)
    edge, above = max(sizes), 0
    while above + sizes[edge] < count:
        above += sizes[edge]
        edge -= 1
    chosen = [place for place, bucket in enumerate(buckets) if bucket > edge]
    border = [place for place, bucket in enumerate(buckets) if bucket == edge]
    border.sort(key=remainders.__getitem__, reverse=True)  # stable, so ties stay in order
    return chosen + border[: count - above]
