from __future__ import annotations

import pytest

from farcast.node.http.address import authority, is_public, parse_address, plain
from farcast.protocol.errors import RemoteError


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - the address as data
        "224.0.0.1",
        "239.255.74.34",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:db8::1",
        "relay.example",
        "",
    ],
)
def test_what_is_not_public_unicast_is_not_dialled(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public_addresses_are(host: str) -> None:
    assert is_public(host)


def test_addresses_are_host_and_port() -> None:
    assert parse_address("relay.example:7433") == ("relay.example", 7433)
    assert parse_address("[2001:db8::1]:1") == ("2001:db8::1", 1)


@pytest.mark.parametrize(
    "text", ["", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "::1:80", "[::1]", "a:\u0661"]
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_address(text)
    assert caught.value.reason == "malformed"


def test_a_zone_is_not_part_of_the_host_and_a_mapped_address_is_shown_plain() -> None:
    assert authority("[fe80::1%eth0]:7433") == "[fe80::1]:7433"
    assert authority("relay.example:1") == "relay.example:1"
    assert (plain("::ffff:192.0.2.1"), plain("2001:db8::1")) == ("192.0.2.1", "2001:db8::1")
