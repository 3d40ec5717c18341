"""The public port on both IP versions, and where there is only one."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from farcast.node.http.binding import bind_pair
from farcast.node.settings import Settings

SETTING = "[listen] port"


def reached(address: str, port: int) -> bool:
    """Whether somebody listens at an address of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        return sock.connect_ex((address, port)) == 0


@pytest.mark.parametrize("host", ["", Settings.load(None, {}).listen.host])
def test_a_box_listens_on_both_ip_versions_unless_told_otherwise(host: str) -> None:
    tcp, udp = bind_pair(host, 0, SETTING)
    with closing(tcp), closing(udp):
        port = tcp.getsockname()[1]
        assert reached("127.0.0.1", port)
        assert reached("::1", port)
        assert udp.getsockname()[1] == port


def test_ipv4_alone_is_ipv4_alone() -> None:
    tcp, udp = bind_pair("0.0.0.0", 0, SETTING)  # noqa: S104 - for a moment
    with closing(tcp), closing(udp):
        assert reached("127.0.0.1", tcp.getsockname()[1])
        assert not reached("::1", tcp.getsockname()[1])


@pytest.mark.parametrize("host", ["", "::"])
def test_a_machine_without_ipv6_listens_on_what_it_has(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    tcp, udp = bind_pair(host, 0, SETTING)
    with closing(tcp), closing(udp):
        assert (tcp.family, udp.family) == (socket.AF_INET, socket.AF_INET)
        assert reached("127.0.0.1", tcp.getsockname()[1])
