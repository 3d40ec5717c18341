"""The troupe's ports: nobody else is given one between its choice and its use."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from farcast.node.demo import troupe
from farcast.node.demo.troupe import CLIENT_PORTS, free_port
from farcast.protocol.errors import LocalError

LOOPBACK = "127.0.0.1"


@pytest.mark.skipif(not CLIENT_PORTS.exists(), reason="the system does not say which ports clients are given")
def test_ports_differ_and_none_is_one_that_clients_are_given() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert max(ports) < int(CLIENT_PORTS.read_text().split()[0])


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_is_passed_over(kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_port(), free_port()
    monkeypatch.setattr(troupe, "_PORTS", itertools.cycle((first, second)))
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((LOOPBACK, first))
        assert free_port() == second
        monkeypatch.setattr(troupe, "_PORTS", itertools.cycle((first,)))
        with pytest.raises(LocalError, match="no port is free"):
            free_port()


def test_processes_begin_at_places_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = [next(troupe.unclaimed_ports()) for _ in range(20)]
    assert len(set(starts)) > 1
    monkeypatch.setattr(troupe, "CLIENT_PORTS", tmp_path / "none")
    assert max(itertools.islice(troupe.unclaimed_ports(), 30_000)) == troupe.CLIENT_PORTS_FROM - 1
