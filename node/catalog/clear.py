"""The ways to ask a box for what is signed anyway: over plain TCP first, a sixth of what a handshake costs.

Checkpoints, entries, directory and beacons are public and verified by whoever takes them, so a channel
adds nothing but bytes, and an idle box sends little else. Where plain TCP does not come through, or
somebody on the way spoils it, the box's own channel is asked.
"""

from __future__ import annotations

from ...protocol.ports import Source

SHUT_S = 3_600.0
"""How long a box is asked over its channel alone once plain TCP was of no use there."""
REMEMBERED = 1_024


class ClearFirst:
    """Remembers where plain TCP is of no use; time in seconds of any one clock."""

    def __init__(self) -> None:
        self._shut: dict[str, float] = {}

    def ways(self, source: Source, now: float) -> list[Source]:
        """Return ``source`` as it may be asked, the cheapest way first."""
        if not source.key or self._shut.get(source.address, now) > now:
            return [source]
        return [source._replace(address=f"http://{source.address}", key=b""), source]

    def spoiled(self, source: Source, now: float) -> None:
        """Leave plain TCP to ``source`` alone for a while."""
        if len(self._shut) >= REMEMBERED:
            self._shut.clear()
        self._shut[source.address] = now + SHUT_S
