"""The overlay: this box's Yggdrasil addresses, by which it is reached wherever both ends run Yggdrasil.

Yggdrasil is a program beside this one: it makes an interface with an address of 200::/7, which is derived
from a key of its own. Such an address proves nothing to us; it is dialled like any other, and the box at
its end shows its key.
"""

from __future__ import annotations

import threading
import time
from ipaddress import IPv6Address, IPv6Network, ip_address

import ifaddr
from prometheus_client import CollectorRegistry, Counter

from . import yggdrasil

NETWORK = IPv6Network("200::/7")
REFRESH_S = 10.0
ASK_S = 60.0
"""Between two questions to the admin socket."""


def is_overlay(host: str) -> bool:
    """Say whether ``host`` is a literal address of the overlay."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return isinstance(address, IPv6Address) and address in NETWORK


class Overlay:
    """Knows this box's own addresses there; looks again every ten seconds.

    They are those of its interfaces, and where ``ask_at`` says where Yggdrasil is asked, what that says of
    itself where this machine can listen there: some systems do not let a program list its interfaces.
    """

    def __init__(self) -> None:
        self._addresses: list[str] = []
        self._read_at = self._asked_at = float("-inf")
        self._place: str | None = None
        self._told = ""
        self._answers: Counter | None = None
        self._asking: threading.Thread | None = None

    def ask_at(self, place: str, registry: CollectorRegistry | None = None) -> None:
        """Ask the admin socket at ``place`` too, empty for the usual ones; in a thread, once a minute."""
        self._place = place
        if registry is not None:
            self._answers = Counter(
                "farcast_node_overlay_answers",
                "Questions to Yggdrasil's admin socket, by what came of them.",
                ["result"],
                registry=registry,
            )
            for result in yggdrasil.RESULTS:
                self._answers.labels(result)

    def settle(self) -> None:
        """Wait until the question under way is answered; blocks, a second at most."""
        _ = self.addresses
        if self._asking is not None:
            self._asking.join(2 * yggdrasil.DEADLINE_S)
            self._read_at = float("-inf")

    @property
    def addresses(self) -> list[str]:
        """This box's addresses, none where Yggdrasil does not run or makes no interface."""
        now = time.monotonic()
        if now - self._read_at >= REFRESH_S:
            self._read_at = now
            found = [ip.ip[0] for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv6]
            own = [host for host in found if is_overlay(host)]
            if self._place is not None and now - self._asked_at >= ASK_S:
                self._asked_at = now
                self._asking = threading.Thread(target=self._ask, args=(self._place, bool(own)), daemon=True)
                self._asking.start()
            told = [self._told] if self._told else []
            self._addresses = told + [host for host in own if host not in told]
        return list(self._addresses)

    def served(self, listens: str) -> list[str]:
        """Return those at which a listener answers whose host is ``listens``."""
        return self.serves(self.addresses, listens)

    @staticmethod
    def serves(addresses: list[str], listens: str) -> list[str]:
        """Return those of ``addresses`` at which a listener answers whose host is ``listens``."""
        return [host for host in addresses if listens in ("", "::", host)]

    def _ask(self, place: str, evident: bool) -> None:  # noqa: FBT001 - of a thread
        found = yggdrasil.ask(place, evident=evident)
        self._told = found.address if is_overlay(found.address) and yggdrasil.bindable(found.address) else ""
        if self._answers is not None:
            self._answers.labels(found.reason).inc()

    @property
    def here(self) -> bool:
        """Whether addresses of the overlay can be dialled from here."""
        return bool(self.addresses)
