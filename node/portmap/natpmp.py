"""NAT-PMP messages (RFC 6886): the outside address, and one port mapped."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from ...protocol.errors import RefusedError, RemoteError
from .lease import Carrier, Wish

PORT = 5_351
VERSION = 0
_OPCODES = {Carrier.UDP: 1, Carrier.TCP: 2}
_ANSWER = 128
_ADDRESS = struct.Struct("!BBHI4s")
_MAPPING = struct.Struct("!BBHIHHI")
_RESULTS = {
    1: "it does not speak this version",
    2: "its owner has switched port mapping off",
    3: "it has no public outside address itself (carrier-grade NAT, or another router before it)",
    4: "it is out of room for mappings",
    5: "it does not map this protocol",
}


class Mapped(NamedTuple):
    """A mapping as the router granted it."""

    internal_port: int
    external_port: int
    ttl_s: int


def ask_address() -> bytes:
    """Return the request for the outside address (section 3.2)."""
    return bytes((VERSION, 0))


def ask_mapping(wish: Wish, ttl_s: int) -> bytes:
    """Return the request for one mapping (section 3.3); ``ttl_s`` 0 deletes it."""
    external = wish.external_port if ttl_s else 0
    return struct.pack("!BBHHHI", VERSION, _OPCODES[wish.carrier], 0, wish.internal_port, external, ttl_s)


def read_address(data: bytes) -> str:
    """Read the answer to ``ask_address``.

    Raises:
        RefusedError: ``router_refused``, with what the router gave as its reason.
        RemoteError: ``malformed``.

    """
    _check(data, 0, _ADDRESS.size)
    return str(ipaddress.IPv4Address(_ADDRESS.unpack_from(data)[4]))


def read_mapping(data: bytes, carrier: Carrier) -> Mapped:
    """Read the answer to ``ask_mapping``; raises as ``read_address``."""
    _check(data, _OPCODES[carrier], _MAPPING.size)
    _, _, _, _, internal, external, ttl_s = _MAPPING.unpack_from(data)
    return Mapped(internal, external, ttl_s)


def _check(data: bytes, opcode: int, size_bytes: int) -> None:
    if len(data) < 4 or data[0] != VERSION or data[1] != _ANSWER + opcode:  # noqa: PLR2004 - the common head
        raise RemoteError("bytes that are no NAT-PMP answer to what was asked", reason="malformed")
    result = int.from_bytes(data[2:4], "big")
    if result:
        why = _RESULTS.get(result, f"result code {result}")
        raise RefusedError(f"the router refuses by NAT-PMP: {why}", reason="router_refused")
    if len(data) < size_bytes:
        raise RemoteError("a NAT-PMP answer that is cut short", reason="malformed")
