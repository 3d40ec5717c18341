"""The valley: a LAN of boxes, a gateway to the origin that comes and goes, and a sky that loses packets.

The first hosts of the switch are the boxes. Then comes the origin, whose port on the bridge is a
transmitter: nothing leaves it but the carousel, and nothing enters. The last is the gateway, with a wire
of its own to the origin. Each box draws its own losses (nftables, unseeded).
"""

from __future__ import annotations

import json
import subprocess
from types import TracebackType
from typing import NamedTuple, Self

from farcast.tests.lab.bridge import NETWORK, Switch

ORIGIN = "203.0.113.5"
"""An address of no LAN here (RFC 5737)."""
PORT, CAROUSEL_PORT = 7433, 7435
LOSS_PERCENT = 20
_WIRE = "10.98.7"

_DISH = f"""table ip sky {{
  counter heard {{ }}
  counter lost {{ }}
  chain dish {{
    type filter hook prerouting priority -300; policy accept;
    udp dport {CAROUSEL_PORT} numgen random mod 100 < {LOSS_PERCENT} counter name lost drop
    udp dport {CAROUSEL_PORT} counter name heard
  }}
}}
"""
_TRANSMITTER = f"""table inet sky {{
  chain inwards {{
    type filter hook prerouting priority -300; policy accept;
    iifname eth0 drop
  }}
  chain outwards {{
    type filter hook output priority 0; policy accept;
    oifname eth0 udp dport {CAROUSEL_PORT} accept
    oifname eth0 drop
  }}
}}
"""
_GATE = """table ip gate {
  chain forward {
    type filter hook forward priority 0; policy accept;
  }
}
"""
_FLUSH, _DROP = "flush chain ip gate forward\n", "add rule ip gate forward drop\n"


class Air(NamedTuple):
    """Carousel packets that came to one box's dish, and those of them that were dropped there."""

    heard: int
    lost: int


class Valley:
    """Use as ``with Valley(12) as valley``; every box has a way to the origin until ``seclude``."""

    def __init__(self, boxes: int) -> None:
        self.boxes = range(boxes)
        self.origin, self.gateway = boxes, boxes + 1
        self.switch = Switch(boxes + 2)
        self._connected = set[int]()

    def __enter__(self) -> Self:
        """Lay it; raises ``RuntimeError`` where this machine does not let us."""
        self.switch.__enter__()
        try:
            self._lay()
        except subprocess.CalledProcessError as error:
            self.switch.close()
            raise RuntimeError(f"no valley here: {str(error.stderr).strip()[:200]}") from error
        except BaseException:
            self.switch.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        self.switch.close()

    def seclude(self) -> None:
        """Let no box reach the origin: none has a way out of the LAN."""
        for box in list(self._connected):
            self._disconnect(box)

    def connect(self, door: int) -> None:
        """Let one box, and no other, reach the origin."""
        self.seclude()
        self._connect(door)
        self.switch.filter(self.gateway, _FLUSH)

    def fall_silent(self) -> None:
        """Let the uplink end as radio does: who has a way keeps it, and nothing comes back."""
        self.switch.filter(self.gateway, _FLUSH + _DROP)

    def air(self, box: int) -> Air:
        """Return what came to a box's dish so far."""
        words = self.switch.words(box, "nft", "--json", "list", "counters", "table", "ip", "sky")
        found = json.loads(subprocess.run(words, check=True, capture_output=True, timeout=20).stdout)
        rows = [item["counter"] for item in found["nftables"] if "counter" in item]
        return Air(**{row["name"]: int(row["packets"]) for row in rows})

    def _lay(self) -> None:
        switch, origin, gateway = self.switch, self.origin, self.gateway
        switch.join(origin, gateway, _WIRE)
        self._ip(origin, "address", "flush", "dev", "eth0")
        self._ip(origin, "address", "add", f"{switch.addresses[origin]}/32", "dev", "eth0")
        self._ip(origin, "address", "add", f"{ORIGIN}/32", "dev", "lo")
        self._ip(origin, "route", "add", f"{NETWORK}.0/24", "via", f"{_WIRE}.{gateway + 1}")
        self._ip(gateway, "route", "add", f"{ORIGIN}/32", "via", f"{_WIRE}.{origin + 1}")
        words = switch.words(gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=20)
        switch.filter(gateway, _GATE)
        switch.filter(origin, _TRANSMITTER)
        for box in self.boxes:
            switch.filter(box, _DISH)
            self._connect(box)

    def _connect(self, box: int) -> None:
        self._ip(box, "route", "add", "default", "via", self.switch.addresses[self.gateway])
        self._connected.add(box)

    def _disconnect(self, box: int) -> None:
        self._ip(box, "route", "del", "default")
        self._connected.discard(box)

    def _ip(self, host: int, *words: str) -> None:
        command = ["ip", "-n", self.switch.spaces[host], *words]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
