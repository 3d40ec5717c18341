"""What a router is asked for and what it grants, the same for every protocol."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

LEASE_S = 7_200
"""Asked of every router; renewed at half of what it grants (RFC 6886 section 3.3)."""
LEAST_S = 120
LOOK_S = 600.0
PORTS = 65_535


class Carrier(IntEnum):
    """A transport protocol; the number is IANA's."""

    TCP = 6
    UDP = 17


class Wish(NamedTuple):
    """``internal_port`` of this box should be reached on ``external_port``, if the router can."""

    carrier: Carrier
    internal_port: int
    external_port: int


class Lease(NamedTuple):
    """A granted mapping; ``host`` is the router's outside address, empty where it does not say."""

    host: str
    external_port: int
    ttl_s: int

    @property
    def renew_s(self) -> float:
        """Seconds after which to ask again: half the lease, and soon enough to notice another address."""
        return min(max(self.ttl_s, LEAST_S) / 2, LOOK_S)
