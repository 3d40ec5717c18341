"""PCP messages (RFC 6887): the MAP request and its answer."""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from ...protocol.errors import RefusedError, RemoteError
from .lease import Wish

PORT = 5_351
VERSION = 2
NONCE_BYTES = 12
_MAP = 1
_ANSWER = 0x80
_REQUEST = struct.Struct("!BBHI16s")
_REPLY = struct.Struct("!BBBBII12s")
_BODY = struct.Struct("!12sB3sHH16s")
_LONGEST_BYTES = 1_100
UNSUPPORTED_VERSION = 1
_RESULTS = {
    UNSUPPORTED_VERSION: "it does not speak this version",
    2: "its owner has switched port mapping off",
    3: "it could not read the request",
    4: "it does not know the request",
    7: "it has no public outside address itself (carrier-grade NAT, or another router before it)",
    8: "it is out of room for mappings",
    9: "it does not map this protocol",
    10: "this box has all the mappings it may have",
    11: "the outside port is taken",
    12: "the request reached it from behind another router",
}


class Mapped(NamedTuple):
    """A mapping as the router granted it; ``nonce`` tells whose request it answers."""

    nonce: bytes
    carrier: int
    internal_port: int
    external_port: int
    external_host: str
    ttl_s: int


def ask_mapping(wish: Wish, client: str, nonce: bytes, ttl_s: int) -> bytes:
    """Return the MAP request of the box at address ``client`` (sections 7.1, 11.1); ``ttl_s`` 0 deletes.

    ``nonce`` is 12 random bytes, the same for every renewal of one mapping.
    """
    head = _REQUEST.pack(VERSION, _MAP, 0, ttl_s, _wide(client))
    any_address = _wide("0.0.0.0" if ":" not in client else "::")  # noqa: S104 - "any" on the wire
    external = wish.external_port if ttl_s else 0
    return head + _BODY.pack(nonce, wish.carrier, bytes(3), wish.internal_port, external, any_address)


def read_mapping(data: bytes) -> Mapped:
    """Read the answer to ``ask_mapping`` (sections 7.2, 11.1); the caller compares nonce and ports.

    Raises:
        RefusedError: ``router_refused``, or ``unsupported_version`` from a router that speaks NAT-PMP
            alone (it answers with its own version, section 9).
        RemoteError: ``malformed``.

    """
    if len(data) < 4 or len(data) > _LONGEST_BYTES or not data[1] & _ANSWER:  # noqa: PLR2004 - the common head
        raise RemoteError("bytes that are no PCP answer", reason="malformed")
    if data[0] != VERSION or data[3] == UNSUPPORTED_VERSION:
        raise RefusedError("the router does not speak PCP version 2", reason="unsupported_version")
    if data[1] != _ANSWER | _MAP:
        raise RemoteError("a PCP answer to something else", reason="malformed")
    if data[3]:
        why = _RESULTS.get(data[3], f"result code {data[3]}")
        raise RefusedError(f"the router refuses by PCP: {why}", reason="router_refused")
    if len(data) < _REPLY.size + _BODY.size or len(data) % 4:
        raise RemoteError("a PCP answer that is cut short", reason="malformed")
    ttl_s = _REPLY.unpack_from(data)[4]
    nonce, carrier, _, internal, external, host = _BODY.unpack_from(data, _REPLY.size)
    address = ipaddress.IPv6Address(host)
    return Mapped(nonce, carrier, internal, external, str(address.ipv4_mapped or address), ttl_s)


def _wide(address: str) -> bytes:
    """Return an address as 16 bytes, IPv4 in its mapped form (section 5)."""
    found = ipaddress.ip_address(address)
    return found.packed if found.version == 6 else bytes(10) + b"\xff\xff" + found.packed  # noqa: PLR2004
