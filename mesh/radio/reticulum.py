"""Reticulum as a radio: datagrams go to its process and come from it, and nothing of it is in this one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import RemoteError
from .child import Child
from .pipe import VERSION, Letter, Message, read

MODULE = "farcast.mesh.radio.process"
REASONS = (
    "missing",
    "config",
    "ended",
    "killed",
    "crash",
    "closed",
    "silent",
    "flood",
    "bad_message",
    "version",
)
WHY_CHARS = 200


class Reticulum:
    """Carries datagrams of the origin ``net``; ``hear`` is given those of others.

    ``python`` has the package ``rns`` (empty: this one), ``config`` is the folder of Reticulum's own
    configuration (empty: its usual one).
    """

    def __init__(
        self,
        net: bytes,
        python: str,
        config: str,
        hear: Callable[[bytes], object],
        registry: CollectorRegistry,
    ) -> None:
        words = [net.hex(), *([config] if config else [])]
        self._hear = hear
        self.child = Child(
            "radio",
            python,
            MODULE,
            words,
            self._take,
            self._ended,
            impossible=frozenset({"missing", "config"}),
        )
        self.up = False
        """Whether it runs and has taken its interfaces."""
        self.why = ""
        """Why it ended the last time, in words."""
        self._ends = Counter(
            "farcast_mesh_radio_ends", "Ends of the radio process, by reason.", ["reason"], registry=registry
        )
        for reason in REASONS:
            self._ends.labels(reason)
        self._said = Counter(
            "farcast_mesh_radio_said_bytes", "Bytes of datagrams given to the radio.", registry=registry
        )
        Gauge("farcast_mesh_radio_up", "1 while the radio process runs.", registry=registry).set_function(
            lambda: float(self.up)
        )

    def tell(self, datagram: bytes) -> bool:
        """Put a datagram on the air; False where the process does not run."""
        taken = self.up and self.child.say(Message(Letter.TELL, datagram).packed())
        if taken:
            self._said.inc(len(datagram))
        return taken

    async def run(self) -> None:
        """Keep the process running until cancelled."""
        try:
            await self.child.run()
        finally:
            self.up = False

    def _take(self, data: bytes) -> str:
        message = read(data)
        if message.letter is Letter.HEARD:
            self._hear(message.word)
        elif message.letter is Letter.DOWN:
            reason, _, why = message.word.decode(errors="replace").partition(" ")
            self.why = why[:WHY_CHARS]
            return reason if reason in REASONS else "ended"
        elif message.letter is Letter.UP:
            self.up = message.word == VERSION
            return "" if self.up else "version"
        elif message.letter is Letter.TELL:
            raise RemoteError("the radio process told the box what to say", reason="bad_message")
        return ""

    def _ended(self, reason: str) -> None:
        self.up = False
        if reason == "missing":
            self.why = (
                "the package rns is not installed where [reticulum] python says; `pip install rns` there"
            )
        self._ends.labels(reason).inc()
