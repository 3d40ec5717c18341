"""Reticulum as a radio: datagrams go to its process and come from it, and nothing of it is in this one."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from ...protocol.errors import RemoteError
from ..child.child import REASONS, Child, Program
from ..child.restarts import Limits
from .pipe import MESSAGE_LIMIT_BYTES, VERSION, Letter, Message, read

MODULE = "farcast.mesh.radio.process"
SAID = ("missing", "config", "ended")
"""Why it says itself that it ends."""
LIMITS = Limits(impossible_s=3_600.0)
"""A radio may be plugged in, or Reticulum installed, while the box runs."""
PASSED = ("HOME", "XDG_CONFIG_HOME")
"""Where Reticulum's usual configuration is."""
MISSING = "the package rns is not installed where [reticulum] python says; `pip install rns` there"
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
        impossible = frozenset({"missing", "config"})
        program = Program("radio", python, MODULE, words, MESSAGE_LIMIT_BYTES, PASSED, impossible)
        self.child = Child(program, self._take, self._ended, limits=LIMITS)
        self.up = False
        """Whether it runs and has taken its interfaces."""
        self._ends = Counter(
            "farcast_mesh_radio_ends", "Ends of the radio process, by reason.", ["reason"], registry=registry
        )
        for reason in (*REASONS, "config", "version"):
            self._ends.labels(reason)
        self._said = Counter(
            "farcast_mesh_radio_said_bytes", "Bytes of datagrams given to the radio.", registry=registry
        )
        Gauge("farcast_mesh_radio_up", "1 while the radio process runs.", registry=registry).set_function(
            lambda: float(self.up)
        )

    @property
    def why(self) -> str:
        """Why it ended the last time, in words."""
        return self.child.why

    def tell(self, datagram: bytes) -> bool:
        """Put a datagram on the air; False where the process does not run."""
        taken = self.up and self.child.say(Message(Letter.TELL, datagram).packed())
        if taken:
            self._said.inc(len(datagram))
        return taken

    def again(self) -> None:
        """Start the process at once where it is off or waits: the operator says so."""
        self.child.again()

    async def run(self) -> None:
        """Keep the process running until cancelled."""
        try:
            await self.child.run()
        finally:
            self.up = False

    def _take(self, data: bytes) -> None:
        message = read(data)
        if message.letter is Letter.HEARD:
            self._hear(message.word)
        elif message.letter is Letter.DOWN:
            reason, _, why = message.word.decode(errors="replace").partition(" ")
            self.child.judge(reason if reason in SAID else "ended", why[:WHY_CHARS])
        elif message.letter is Letter.UP:
            self.up = message.word == VERSION
            if not self.up:
                self.child.judge("version", "its farcast is of another version than this box's")
        elif message.letter is Letter.TELL:
            raise RemoteError("the radio process told the box what to say", reason="bad_message")

    def _ended(self, reason: str) -> None:
        self.up = False
        if reason == "missing":
            self.child.why = MISSING
        self._ends.labels(reason).inc()
