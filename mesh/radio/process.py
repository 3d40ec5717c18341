"""The radio process: Reticulum, and nothing else of a box, behind a pipe.

``python -m farcast.mesh.radio.process FD NET [CONFIG]``: datagrams of the origin NET (in hex) go out as
plain broadcast packets and come in as such, by the interfaces of the Reticulum configuration in the folder
CONFIG. No module of Farcast imports Reticulum but this one, by name and in a process of its own: its licence
is not one of ours (docs/adr/0043), and what comes over the air can end it without anybody's harm.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from contextlib import suppress
from importlib import import_module
from typing import Any

from ...protocol.errors import RemoteError
from .pipe import MESSAGE_LIMIT_BYTES, VERSION, WORD_LIMIT_BYTES, Letter, Message, read

ALIVE_S = 2.0
WAITING = 8
"""Datagrams kept while no interface is up; the oldest gives way."""
WHY_CHARS = 200


def run(link: socket.socket, net: str, config: str) -> str:
    """Carry datagrams until the box closes the pipe; returns why it ended."""
    try:
        library: Any = import_module("RNS")
    except ImportError as error:
        return f"missing {error}"
    try:
        library.Reticulum(config or None, loglevel=library.LOG_CRITICAL)
        kind = library.Destination
        place = kind(None, kind.IN, kind.PLAIN, "farcast", "news", net)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever is wrong with its configuration
        return f"config {error}"

    def heard(data: bytes, _packet: object) -> None:
        if len(data) <= WORD_LIMIT_BYTES:
            _say(link, Letter.HEARD, data)

    place.set_packet_callback(heard)
    _say(link, Letter.UP, VERSION)
    link.settimeout(ALIVE_S)
    waiting = deque[bytes](maxlen=WAITING)
    while True:
        while waiting and library.Packet(place, waiting[0]).send() is not False:
            waiting.popleft()  # False: no interface is up at this moment
        try:
            data = link.recv(MESSAGE_LIMIT_BYTES + 1)
        except TimeoutError:
            _say(link, Letter.ALIVE)
            continue
        if not data:
            return "ended the box closed the pipe"
        with suppress(RemoteError):
            message = read(data)
            if message.letter is Letter.TELL:
                waiting.append(message.word)


def _say(link: socket.socket, letter: Letter, word: bytes = b"") -> None:
    """Say something to the box; where it is behind, what is in the air is lost as air is."""
    with suppress(OSError):
        link.send(Message(letter, word).packed(), socket.MSG_DONTWAIT)


def main() -> None:
    """Run, say why it ended, and end whatever threads there are."""
    link = socket.socket(fileno=int(sys.argv[1]))
    try:
        why = run(link, sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")  # noqa: PLR2004
    except OSError as error:
        why = f"ended {error}"
    _say(link, Letter.DOWN, why[:WHY_CHARS].encode(errors="replace"))
    os._exit(0)


if __name__ == "__main__":
    main()
