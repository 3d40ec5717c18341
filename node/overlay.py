"""The overlay: this box's Yggdrasil addresses, by which it is reached wherever both ends run Yggdrasil.

Yggdrasil is a program beside this one: it makes an interface with an address of 200::/7, which is derived
from a key of its own. Such an address proves nothing to us; it is dialled like any other, and the box at
its end shows its key.
"""

from __future__ import annotations

import time
from ipaddress import IPv6Address, IPv6Network, ip_address

import ifaddr

NETWORK = IPv6Network("200::/7")
REFRESH_S = 10.0


def is_overlay(host: str) -> bool:
    """Say whether ``host`` is a literal address of the overlay."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address in NETWORK


class Overlay:
    """Knows this box's own addresses there; looks again every ten seconds."""

    def __init__(self) -> None:
        self._addresses: list[str] = []
        self._read_at = float("-inf")

    @property
    def addresses(self) -> list[str]:
        """This box's addresses, none where Yggdrasil does not run or makes no interface."""
        now = time.monotonic()
        if now - self._read_at >= REFRESH_S:
            self._read_at = now
            found = [ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv6]
            self._addresses = [host for host in found if is_overlay(host)]
        return list(self._addresses)

    def served(self, listens: str) -> list[str]:
        """Return those at which a listener answers whose host is ``listens``."""
        return [host for host in self.addresses if listens in ("", "::", host)]

    @property
    def here(self) -> bool:
        """Whether addresses of the overlay can be dialled from here."""
        return bool(self.addresses)
