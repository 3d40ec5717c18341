"""Which networks a box is on, and which of them it trusts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import ifaddr
import pytest

from farcast.node import links as module
from farcast.node.links import Links


class _Ip(NamedTuple):
    ip: str | tuple[str, int, int]
    network_prefix: int
    is_IPv6: bool  # noqa: N815 - the name is ifaddr's


@dataclass(frozen=True)
class _Adapter:
    name: str
    index: int
    ips: list[_Ip]


HOME = _Adapter("eth0", 2, [_Ip("192.168.1.5", 24, is_IPv6=False), _Ip(("fe80::1", 0, 2), 64, is_IPv6=True)])
CAFE = _Adapter("wlan0", 3, [_Ip("10.8.0.7", 16, is_IPv6=False), _Ip(("fd00::7", 0, 3), 64, is_IPv6=True)])


@pytest.fixture(autouse=True)
def _adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [HOME, CAFE])


def test_all_networks_are_used_where_none_is_named() -> None:
    links = Links()
    assert links.addresses() == ["192.168.1.5", "10.8.0.7"]
    assert links.on_link("10.8.3.4")
    assert not links.on_link("10.9.0.1")


def test_only_trusted_networks_have_neighbours_their_ipv6_included() -> None:
    links = Links(trusted=["192.168.0.0/16"])
    assert links.addresses() == ["192.168.1.5"]
    assert links.on_link("192.168.1.77")
    assert links.on_link("fe80::9%eth0")
    assert not links.on_link("10.8.3.4")
    assert not links.on_link("fd00::9")


def test_a_named_interface_brings_its_ipv6_too() -> None:
    links = Links(["10.8.0.7"])
    assert links.addresses() == ["10.8.0.7"]
    assert links.on_link("fd00::9")
    assert not links.on_link("192.168.1.77")


def test_a_link_local_address_is_on_the_link_it_names() -> None:
    links = Links(trusted=["192.168.0.0/16"])
    assert links.on_link("fe80::9%eth0")
    assert links.on_link("fe80::9%2")
    assert not links.on_link("fe80::9%wlan0")
    assert not links.on_link("fe80::9%3")


@pytest.mark.parametrize(
    "peer", ["203.0.113.9", "2001:db8::9", "::ffff:203.0.113.9", "no address", "fe90::1"]
)
def test_nobody_else_is_on_link(peer: str) -> None:
    assert not Links()(peer)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1", "::ffff:192.168.1.9"])
def test_this_machine_is_always_on_link_however_it_is_written(peer: str) -> None:
    assert Links(trusted=["192.168.0.0/16"], tunnels=False)(peer)


def test_a_tunnel_is_no_link_of_neighbours_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_tunnel", "wlan0".__eq__)
    plain = Links(tunnels=False)
    assert plain.addresses() == ["192.168.1.5"]
    assert not plain("10.8.3.4")
    assert not plain("fd00::9")
    assert Links()("10.8.3.4")
    assert Links(trusted=["10.8.0.0/16"], tunnels=False)("10.8.3.4")
    assert Links(["10.8.0.7"], tunnels=False)("10.8.3.4")


def test_its_terms_make_another_that_says_the_same() -> None:
    links = Links(["10.8.0.7"], ["10.0.0.0/8"], tunnels=False)
    again = Links(*links.terms, tunnels=False)
    assert [again(host) for host in ("10.8.3.4", "192.168.1.77")] == [True, False]
