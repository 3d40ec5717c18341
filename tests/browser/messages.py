"""HTTP/1.1 on the wire, cut into heads and pieces of bodies, for those who stand in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

HEAD_LIMIT_BYTES = 64 << 10
UNTIL_CLOSE = 1 << 62
_BODILESS = frozenset({"204", "304"})


class Head(NamedTuple):
    """A start line and its fields, names in lower case."""

    line: str
    fields: dict[str, str]

    @property
    def words(self) -> list[str]:
        """The three parts of the start line."""
        return self.line.split(" ", 2)


class Piece(NamedTuple):
    """Bytes as they came: a whole head, or what lies ``at`` in a body of ``length`` bytes."""

    data: bytes
    head: Head | None
    at: int
    length: int

    @property
    def is_last(self) -> bool:
        """Whether its message ends here."""
        return self.length == 0 if self.head else self.at + len(self.data) == self.length


class Messages:
    """One direction of a connection; ``bodiless`` says of a head that no body follows it."""

    def __init__(self, bodiless: Callable[[Head], bool] = lambda _: False) -> None:
        self._bodiless = bodiless
        self._head = bytearray()
        self._at = self._length = 0

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take what came; raises ``ValueError`` where it is no HTTP/1.1."""
        while data:
            if self._at < self._length:
                part, data = data[: self._length - self._at], data[self._length - self._at :]
                piece = Piece(part, None, self._at, self._length)
                self._at += len(part)
                yield piece
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > HEAD_LIMIT_BYTES:
                    raise ValueError("a head without end")
                return
            raw, data = bytes(self._head[: end + 4]), bytes(self._head[end + 4 :])
            self._head.clear()
            head = _read(raw)
            self._at, self._length = 0, 0 if self._bodiless(head) else _length(head)
            yield Piece(raw, head, 0, self._length)


def _read(raw: bytes) -> Head:
    line, *rows = raw[:-4].decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): text.strip() for name, _, text in (row.partition(":") for row in rows)}
    head = Head(line, fields)
    if len(head.words) < 2 or "HTTP/1." not in line:
        raise ValueError(f"no start line of HTTP/1.1: {line[:80]!r}")
    return head


def _length(head: Head) -> int:
    """Return how long the body is (RFC 9112 section 6.3); a chunked one goes on until the connection ends."""
    declared = head.fields.get("content-length")
    if declared is not None:
        return int(declared)
    is_answer = head.line.startswith("HTTP/")
    if is_answer:
        status = head.words[1]
        return 0 if status in _BODILESS or status.startswith("1") else UNTIL_CLOSE
    return UNTIL_CLOSE if "transfer-encoding" in head.fields else 0
