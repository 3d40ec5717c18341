"""Replies: answers with their header bytes made once, remembered by the very bytes that asked.

A player sends the same head for the same segment, so the bytes of a head are the key: no parsing, no
look-up, no formatting for what was answered a moment ago. Only heads that are whole, carry no body
and were answered from ready blocks get in, and only as long as what they were made from holds.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence

from .exchange import Answer
from .files import Descriptor
from .problem import phrase
from .ranges import FilePart
from .tally import class_of

REPLIES_KEPT = 2_048
KEY_LIMIT_BYTES = 1_024
REPLY_S = 5.0
"""How long a reply is remembered at most; within it the store is not told of uses."""
BODILESS = (204, 304)
LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset: what was sent cannot pass for a complete answer."""
_END = b"\r\n\r\n"

Piece = tuple[Descriptor, int, int]
"""The file bytes come from, the offset, and how many."""


class Reply:
    """One answer ready to send: ``head(date)``, then ``parts``; ``body`` is part of the head.

    ``size`` is how many bytes of the connection's buffer asked for it, ``length`` the size of what
    the client gets as body.
    """

    __slots__ = (
        "_after",
        "_before",
        "bodiless",
        "date",
        "keep",
        "length",
        "made",
        "one",
        "parts",
        "pieces",
        "ready",
        "size",
        "status_class",
    )

    def __init__(self, answer: Answer, *, size: int, keep: bool, bodiless: bool) -> None:
        """Make the head of ``answer``; ``bodiless``: it is for HEAD. Its body must be bytes or parts."""
        body, length = answer.body, answer.length
        assert length is not None, "a look-up answers bytes or file parts"
        assert not isinstance(body, AsyncIterator), "likewise"
        self.status_class = class_of(answer.status)
        self.size = size
        self.keep = keep
        self.bodiless = bodiless
        self.parts: Sequence[FilePart] = ()
        self.pieces: Sequence[Piece] = ()
        """The parts as they were opened last, where that is remembered."""
        self.ready: Sequence[Piece] = ()
        """The same, where they are so few and small that they are sent at one stretch."""
        self.one: Piece | None = None
        """Of these the only one."""
        lines = [f"\r\n{name}: {value}" for name, value in answer.headers.items() if name != "content-length"]
        if answer.status not in BODILESS:
            lines.append(f"\r\ncontent-length: {length}")
        lines.append("\r\n\r\n" if keep else "\r\nconnection: close\r\n\r\n")
        content = b""
        if not bodiless:
            if isinstance(body, bytes):
                content = body
            else:
                self.parts = body
        self.length = length if self.parts else len(content)
        self._before = (
            f"HTTP/1.1 {answer.status} {phrase(answer.status)}\r\nserver: farcast\r\ndate: ".encode()
        )
        self._after = "".join(lines).encode() + content
        self.date = ""
        self.made = b""
        """The head as of ``date``."""

    def head(self, date: str) -> bytes:
        """Return the header bytes, and the body where it is in memory, as of ``date``."""
        if date is not self.date:
            self.made = b"%b%b%b" % (self._before, date.encode(), self._after)
            self.date = date
        return self.made


class Replies:
    """The replies given last, by the bytes of the heads that asked for them: ``kept``, to be read only."""

    __slots__ = ("_epoch", "_epoch_now", "_until", "kept")

    def __init__(self, epoch: Callable[[], object]) -> None:
        """Remember nothing yet; ``epoch`` differs once a reply may be untrue."""
        self.kept: dict[bytes, Reply] = {}
        self._epoch_now = epoch
        self._epoch: object = None
        self._until = 0.0

    def begin(self, now: float) -> object:
        """Forget what does not hold any more; once a turn is enough, for nothing else runs within one.

        Returns what the replies hold for.
        """
        try:
            epoch = self._epoch_now()
        except BaseException:
            self.kept.clear()
            raise
        if epoch != self._epoch or now >= self._until:
            self._epoch = epoch
            self._until = now + REPLY_S
            self.kept.clear()
        return epoch

    def find(self, buffer: bytes) -> Reply | None:
        """Return what answers the request at the start of ``buffer``."""
        reply = self.kept.get(buffer)
        if reply is not None:
            return reply
        end = buffer.find(_END, 0, KEY_LIMIT_BYTES)
        return None if end < 0 else self.kept.get(buffer[: end + len(_END)])

    def keep(self, key: bytes, reply: Reply) -> None:
        """Remember a reply to ``key``, the whole head; what is long or has a long body is not kept."""
        if len(key) > KEY_LIMIT_BYTES or (not reply.parts and reply.length):
            return
        if len(self.kept) >= REPLIES_KEPT:
            self.kept.clear()
        self.kept[key] = reply

    def clear(self) -> None:
        """Forget all."""
        self.kept.clear()
