"""The way to a tier: its port, and what it can do beyond that, found once by looking at it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ...protocol.ports import Cost, Source, Tier


class Way(NamedTuple):
    """How a fetcher asks one tier.

    A tier's ``fetch`` may take two more keywords, found by its signature: ``title`` (str, a hint
    for relays) and ``arrived`` (a callable to be told the bytes so far). A tier that tells of its
    bytes is hedged by time to first byte, others by twice the time a block usually takes. A tier may
    also have a ``reserve`` (a callable) and a key of its ``own``, as in ``Listing``, and be a ``radio``.
    """

    tier: Tier
    fetch: Callable[..., Awaitable[bytes]]
    hinted: bool
    watched: bool
    reserve: Callable[[], Sequence[Source]]
    own: bytes

    @property
    def cost(self) -> Cost:
        """What its bytes cost now."""
        if getattr(self.tier, "radio", False):
            return Cost.RADIO
        return Cost.METERED if self.tier.metered else Cost.FREE

    @classmethod
    def of(cls, tier: Tier) -> Way:
        """Look at a tier."""
        names = inspect.signature(tier.fetch).parameters
        reserve: Callable[[], Sequence[Source]] = getattr(tier, "reserve", tuple)
        own: bytes = getattr(tier, "own", b"")
        return cls(tier, tier.fetch, "title" in names, "arrived" in names, reserve, own)
