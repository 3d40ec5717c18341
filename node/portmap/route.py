"""The default gateway, as the kernel's routing table has it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from .router import Place

_TABLE = Path("/proc/net/route")
_UP_GATEWAY = 0x3


def default_gateway(table: str) -> str | None:
    """Return the IPv4 gateway of the default route with the least metric in a ``/proc/net/route`` text."""
    found: list[tuple[int, str]] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        try:
            destination, gateway, flags, metric, mask = fields[1], fields[2], fields[3], fields[6], fields[7]
            if int(destination, 16) or int(mask, 16) or int(flags, 16) & _UP_GATEWAY != _UP_GATEWAY:
                continue
            # the kernel prints the address as a number in its own byte order
            address = socket.inet_ntoa(int(gateway, 16).to_bytes(4, sys.byteorder))
            found.append((int(metric), address))
        except (IndexError, ValueError, OverflowError):
            continue
    return min(found)[1] if found else None


def find_router() -> Place | None:
    """Return where the default router is, and this box's address towards it; sends nothing."""
    try:
        gateway = default_gateway(_TABLE.read_text())
    except OSError:
        return None
    if gateway is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((gateway, 9))  # connecting a datagram socket only asks the routing table
            return Place(gateway, str(probe.getsockname()[0]))
        except OSError:
            return None
