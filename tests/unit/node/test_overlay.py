"""An address of Yggdrasil is known as such, makes nobody a neighbour, and is dialled from within alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import ifaddr
import pytest

from farcast.node.doctor.machine import check_overlay
from farcast.node.doctor.patient import Patient
from farcast.node.home import Role
from farcast.node.http.address import HostPort
from farcast.node.http.names import Names
from farcast.node.links import Links
from farcast.node.overlay import Overlay, is_overlay
from farcast.node.settings import Settings
from farcast.protocol.errors import UnreachableError

OWN, OTHER = "203:f00::1", "301:ba5e::2"


def give(monkeypatch: pytest.MonkeyPatch, *hosts: tuple[str, int]) -> None:
    """Let this machine have these IPv6 addresses."""
    ips = [SimpleNamespace(ip=(host, 0, 0), network_prefix=bits, is_IPv6=True) for host, bits in hosts]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [SimpleNamespace(name="tun0", index=9, ips=ips)])


def test_only_what_lies_in_its_range_is_of_the_overlay() -> None:
    assert [is_overlay(host) for host in (OWN, OTHER, "3ff:ffff::", "200::")] == [True] * 4
    assert not any(map(is_overlay, ("400::1", "1ff::", "fe80::1%eth0", "2001:db8::1", "2.0.0.1", "a.b")))


def test_an_interface_of_half_the_world_makes_nobody_a_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, (OWN, 7), ("fd00:1::1", 64))
    links = Links()
    assert links.on_link("fd00:1::2")
    assert not links.on_link(OTHER)
    assert Overlay().addresses == [OWN]


async def test_it_is_dialled_from_within_and_never_left_to_a_router(monkeypatch: pytest.MonkeyPatch) -> None:
    for allow_private in (False, True):
        give(monkeypatch, ("fd00:1::1", 64))
        with pytest.raises(UnreachableError, match="never dialled from here") as caught:
            await Names(str, allow_private=allow_private).allowed(HostPort(OTHER, 7_433))
        assert caught.value.reason == "private_address"
        give(monkeypatch, (OWN, 7))
        [(_, where)] = await Names(str, allow_private=allow_private).allowed(HostPort(OTHER, 7_433))
        assert where[0] == OTHER


@pytest.mark.parametrize(
    ("role", "listens", "overlay", "state"),
    [
        ("relay", "0.0.0.0", "true", "warning"),  # noqa: S104 - compared, not bound
        ("relay", "0.0.0.0", "false", "ok"),  # noqa: S104 - compared, not bound
        ("relay", "::", "true", "ok"),
        ("node", "0.0.0.0", "true", "ok"),  # noqa: S104 - compared, not bound
    ],
)
def test_the_doctor_finds_a_relay_that_does_not_listen_where_it_could_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, role: Role, listens: str, overlay: str, state: str
) -> None:
    give(monkeypatch, (OWN, 7))
    settings = Settings.load(None, {"FARCAST_LISTEN_HOST": listens, "FARCAST_NETWORK_OVERLAY": overlay})
    found = check_overlay(Patient(tmp_path, role, settings, None, None, None, [], "", 0, 0))
    assert found.state.label == state
    assert OWN in found.sentence
