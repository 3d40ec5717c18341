"""Apportionment: whole cents by weight, exact to the last one (largest remainder, Hamilton's method)."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nsmallest
from typing import TypeVar

K = TypeVar("K", str, bytes)


def apportion(total: int, weights: Mapping[K, int]) -> dict[K, int]:
    """Split ``total`` cents by ``weights``: floors first, then one cent each by largest remainder.

    Ties go to the smaller key, so the order of ``weights`` never matters. The parts sum to
    ``total`` unless all weights are zero, when everybody gets nothing. Weights and total are
    non-negative; products may pass 2^63, which Python's integers take exactly.
    """
    whole = sum(weights.values())
    if whole == 0:
        return dict.fromkeys(weights, 0)
    parts: dict[K, int] = {}
    remainders: list[tuple[int, K]] = []
    left = total
    for key, weight in weights.items():
        cents, remainder = divmod(total * weight, whole)
        parts[key] = cents
        left -= cents
        if remainder:
            remainders.append((-remainder, key))
    for _, key in nsmallest(left, remainders):
        parts[key] += 1
    return parts
