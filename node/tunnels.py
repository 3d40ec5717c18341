"""Which interfaces are tunnels: what comes through one is not on a wire or in the air of this place.

The kernel is asked by ioctl, which speaks of the network namespace that the process is in; /sys may
show another one.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array

_NAME_BYTES = 16
_GET_FLAGS, _GET_DRIVER = 0x8913, 0x8946
"""Linux, ``netdevice(7)``: SIOCGIFFLAGS and SIOCETHTOOL."""
_DRIVER_INFO, _DRIVER_INFO_BYTES = 3, 196
"""``struct ethtool_drvinfo`` of linux/ethtool.h: the command, then 32 bytes of the driver's name."""
_POINT_TO_POINT = 0x10
_MADE_UP = b"tun"
"""The driver of tun and tap: a program is at the other end, such as a VPN's."""


def is_tunnel(name: str) -> bool:
    """Say whether the interface ``name`` is a tunnel; one that nothing can be said of is none.

    Point-to-point interfaces are (WireGuard, tun, PPP), and tap ones, which look like Ethernet.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            request = struct.pack(f"{_NAME_BYTES}sH22x", name.encode(), 0)
            flags = struct.unpack_from("H", fcntl.ioctl(sock, _GET_FLAGS, request), _NAME_BYTES)[0]
        except (OSError, struct.error):
            return False
        return bool(flags & _POINT_TO_POINT) or _driver(sock, name) == _MADE_UP


def _driver(sock: socket.socket, name: str) -> bytes:
    """Return the name of an interface's driver, which the kernel writes where the request points to."""
    answer = array("B", struct.pack("I", _DRIVER_INFO).ljust(_DRIVER_INFO_BYTES, b"\0"))
    address, _ = answer.buffer_info()
    try:
        fcntl.ioctl(sock, _GET_DRIVER, struct.pack(f"{_NAME_BYTES}sP16x", name.encode(), address))
    except OSError:
        return b""
    return answer.tobytes()[4:36].partition(b"\0")[0]
