"""One figure of ``build/bench.json``, from the rounds of ours and of the peer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple


class Peer(NamedTuple):
    """Whom a figure is measured against."""

    name: str
    version: str = ""


def compared(
    name: str,
    unit: str,
    ours: Sequence[float],
    peers: Sequence[float],
    peer: Peer,
    *,
    greater_is_better: bool,
    digits: int = 1,
    extra: Mapping[str, object],
) -> dict[str, object]:
    """Return the figure of interleaved rounds: medians, and the median of the rounds' own ratios.

    ``ours`` and ``peers`` are the same rounds in the same order; the ratio is oriented so that
    greater is better.
    """
    pairs = list(zip(ours, peers, strict=True))
    ratios = [mine / its if greater_is_better else its / mine for mine, its in pairs]
    return {
        "name": name,
        "unit": unit,
        "ours": round(median(ours), digits),
        "peer": round(median(peers), digits),
        "peer_name": peer.name,
        "peer_version": peer.version,
        "ratio": round(median(ratios), 3),
        "rounds": len(pairs),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "extra": dict(extra),
    }
