"""The links this box is on: which addresses are neighbours, and which interfaces carry multicast."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence

import ifaddr

from .overlay import is_overlay

REFRESH_S = 10.0


class Links:
    """Knows the box's own networks; looks again every ten seconds, because laptops move."""

    def __init__(self, only: Sequence[str] = (), trusted: Sequence[str] = ()) -> None:
        """``only`` limits the box to these interface addresses, ``trusted`` to these networks; empty: all.

        What is IPv6 and on an interface that has such an address belongs to it.
        """
        self._only = frozenset(only)
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._addresses: list[str] = []
        self._read_at = float("-inf")

    def on_link(self, host: str) -> bool:
        """Say whether ``host`` is this box or on a network it is directly attached to."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        self._refresh()
        return address.is_loopback or any(address in network for network in self._networks)

    def addresses(self) -> list[str]:
        """Return the IPv4 addresses multicast goes out on; loopback only when nothing else is up or named."""
        self._refresh()
        return list(self._addresses)

    def name(self) -> str:
        """Name the network this box is on: where its addresses change, it is another one."""
        self._refresh()
        return " ".join(sorted(self._addresses))

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < REFRESH_S:
            return
        self._read_at = now
        networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        addresses: list[str] = []
        for adapter in ifaddr.get_adapters():
            used = any(isinstance(found.ip, str) and self._uses(found.ip) for found in adapter.ips)
            for found in adapter.ips:
                text = found.ip if isinstance(found.ip, str) else found.ip[0]
                if is_overlay(text):
                    continue  # an overlay's interface has a /7: half the world is no neighbour
                if not self._uses(text) and not (used and found.is_IPv6):
                    continue
                networks.append(ipaddress.ip_network(f"{text}/{found.network_prefix}", strict=False))
                if isinstance(found.ip, str):
                    addresses.append(text)
        self._networks = networks
        self._addresses = [text for text in addresses if not text.startswith("127.")] or addresses

    def _uses(self, text: str) -> bool:
        """Whether the box may speak by one of its own addresses."""
        if self._only and text not in self._only:
            return False
        address = ipaddress.ip_address(text.partition("%")[0])
        return not self._trusted or any(address in network for network in self._trusted)
