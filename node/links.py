"""The links this box is on: which addresses are neighbours, and which interfaces carry multicast."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from typing import NamedTuple

import ifaddr

from .overlay import is_overlay
from .tunnels import is_tunnel

REFRESH_S = 10.0

Terms = tuple[tuple[str, ...], tuple[str, ...]]
"""What makes a ``Links``: ``only`` and ``trusted``."""


class _Network(NamedTuple):
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    zones: tuple[str, str]
    """What its interface is called in addresses that hold on that link alone: name and number."""


class Links:
    """Knows the box's own networks; looks again every ten seconds, because laptops move.

    As a function it is ``on_link``: a predicate of peers' addresses that another process can be told of.
    """

    def __init__(
        self, only: Sequence[str] = (), trusted: Sequence[str] = (), *, tunnels: bool = True
    ) -> None:
        """``only`` limits the box to these interface addresses, ``trusted`` to these networks; empty: all.

        What is IPv6 and on an interface that has such an address belongs to it. Without ``tunnels`` those
        of VPNs are left out unless named: at their other end is whoever else uses them.
        """
        self.terms: Terms = (tuple(only), tuple(trusted))
        self._only = frozenset(only)
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in trusted]
        self._tunnels = tunnels or bool(only or trusted)
        self._networks: list[_Network] = []
        self._addresses: list[str] = []
        self._read_at = float("-inf")

    def __call__(self, host: str) -> bool:
        """As ``on_link``."""
        return self.on_link(host)

    def on_link(self, host: str) -> bool:
        """Say whether ``host`` is this box or on a network it is directly attached to.

        A link-local address with a zone must be of that interface (RFC 4007 section 6).
        """
        text, _, zone = host.partition("%")
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if address.is_loopback:
            return True
        self._refresh()
        return any(
            address in one.network and (not zone or not address.is_link_local or zone in one.zones)
            for one in self._networks
        )

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
        networks: list[_Network] = []
        addresses: list[str] = []
        for adapter in ifaddr.get_adapters():
            if not self._tunnels and is_tunnel(adapter.name):
                continue
            used = any(isinstance(found.ip, str) and self._uses(found.ip) for found in adapter.ips)
            for found in adapter.ips:
                text = found.ip if isinstance(found.ip, str) else found.ip[0]
                if is_overlay(text):
                    continue  # an overlay's interface has a /7: half the world is no neighbour
                if not self._uses(text) and not (used and found.is_IPv6):
                    continue
                network = ipaddress.ip_network(
                    f"{text.partition('%')[0]}/{found.network_prefix}", strict=False
                )
                networks.append(_Network(network, (adapter.name, str(adapter.index))))
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
