"""Which networks a box is on, and which of them it trusts."""

from __future__ import annotations

from typing import NamedTuple

import ifaddr
import pytest

from farcast.node.links import Links


class _Ip(NamedTuple):
    ip: str | tuple[str, int, int]
    network_prefix: int
    is_IPv6: bool  # noqa: N815 - the name is ifaddr's


class _Adapter(NamedTuple):
    ips: list[_Ip]


HOME = _Adapter([_Ip("192.168.1.5", 24, is_IPv6=False), _Ip(("fe80::1", 0, 2), 64, is_IPv6=True)])
CAFE = _Adapter([_Ip("10.8.0.7", 16, is_IPv6=False), _Ip(("fd00::7", 0, 3), 64, is_IPv6=True)])


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
