"""Yggdrasil beside this box, asked by its admin socket: which address it has, and whether it has peers.

One JSON line each way; the field names of 0.3, 0.4 and 0.5 are understood. What it says is a hint: an
address counts only where this machine can listen at it. Everything here blocks, ``DEADLINE_S`` at most.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

DEADLINE_S = 1.0
LIMIT_BYTES = 256 << 10
READ_BYTES = 16 << 10
USUAL = ("unix:///var/run/yggdrasil/yggdrasil.sock", "unix:///var/run/yggdrasil.sock")
USUAL_TCP = "tcp://localhost:9001"
"""Where 0.3 listened; asked only where an interface shows that Yggdrasil is here."""
RESULTS = ("ok", "absent", "permission", "timeout", "malformed", "oversized", "refused")


class Told(NamedTuple):
    """What it said: its address, and how many peers it has (None: it did not say).

    ``reason`` is one of ``RESULTS``, and ``trouble`` the sentence for it, empty where nothing is wrong.
    """

    address: str = ""
    peers: int | None = None
    reason: str = "absent"
    trouble: str = ""


class _Reply(msgspec.Struct):
    status: str = ""
    response: dict[str, msgspec.Raw] = {}


class _Peer(msgspec.Struct):
    up: bool = True


class _Failure(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def is_place(text: str) -> bool:
    """Say whether ``text`` names an admin socket: ``unix:///path`` or ``tcp://host:port``."""
    try:
        found = urlsplit(text)
        port = found.port or 0
    except ValueError:
        return False
    if found.scheme == "unix":
        return not found.netloc and len(found.path) > 1
    return found.scheme == "tcp" and bool(found.hostname) and port > 0 and not found.path


def ask(place: str, *, evident: bool = False) -> Told:
    """Ask the Yggdrasil at ``place``, by default at the usual ones; ``evident`` where it surely is here."""
    places = [place] if place else [*USUAL, *([USUAL_TCP] if evident else [])]
    end_s = time.monotonic() + DEADLINE_S
    for one in places:
        try:
            found = _decoded(_exchange(one, "getself", end_s), one)
            address = _address(found)
        except (FileNotFoundError, ConnectionRefusedError):
            continue
        except _Failure as failure:
            return Told(reason=failure.reason, trouble=str(failure))
        except OSError as error:
            return Told(reason="refused", trouble=f"Yggdrasil's admin socket {one} cannot be asked: {error}")
        peers: int | None = None
        with suppress(_Failure, OSError):
            peers = _peers(_decoded(_exchange(one, "getpeers", end_s), one))
        return Told(address, peers, "ok")
    return Told(trouble=f"nothing answers at {place}, where [network] yggdrasil says so" if place else "")


def bindable(host: str) -> bool:
    """Say whether this machine can listen at an IPv6 address."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _exchange(place: str, request: str, end_s: float) -> bytes:
    """Send one request and return all that is answered; raises ``_Failure`` or ``OSError``."""
    found = urlsplit(place)
    unix = found.scheme == "unix"
    where: Any = found.path if unix else (found.hostname, found.port)
    try:
        with socket.socket(socket.AF_UNIX) if unix else _tcp(where, _left_s(end_s)) as line:
            line.settimeout(_left_s(end_s))
            if unix:
                line.connect(where)
            line.sendall(msgspec.json.encode({"request": request}) + b"\n")
            answer = bytearray()
            while not answer.endswith(b"}\n"):
                line.settimeout(_left_s(end_s))
                more = line.recv(READ_BYTES)
                if not more:
                    break
                answer += more
                if len(answer) > LIMIT_BYTES:
                    raise _Failure("oversized", f"what answers at {place} has no end: is it Yggdrasil?")
            return bytes(answer)
    except TimeoutError:
        raise _Failure("timeout", f"Yggdrasil does not answer at {place} in {DEADLINE_S:.0f} s") from None
    except PermissionError:
        message = f"Yggdrasil runs here, but this user may not ask it at {Path(found.path)}"
        raise _Failure("permission", message) from None


def _tcp(where: tuple[str, int], timeout_s: float) -> socket.socket:
    return socket.create_connection(where, timeout_s)


def _left_s(end_s: float) -> float:
    left_s = end_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _decoded(answer: bytes, place: str) -> dict[str, msgspec.Raw]:
    """Return the body of an answer; raises ``_Failure``."""
    try:
        reply = msgspec.json.decode(answer, type=_Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _Failure("malformed", f"what answers at {place} is no Yggdrasil") from None
    if reply.status != "success":
        raise _Failure("refused", f"Yggdrasil refused to tell its address at {place}")
    return reply.response


def _address(response: dict[str, msgspec.Raw]) -> str:
    """Return the address of a ``getself``: by itself, or as 0.3 told it the name of what is told of it."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if "address" in response:
            return msgspec.json.decode(response["address"], type=str)[:64]
        if "self" in response:
            return next(iter(msgspec.json.decode(response["self"], type=dict[str, msgspec.Raw])), "")[:64]
    raise _Failure("malformed", "Yggdrasil tells no address")


def _peers(response: dict[str, msgspec.Raw]) -> int | None:
    """Return how many peers of a ``getpeers`` are up: a list, or in 0.3 a table that has this box itself."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raw = response.get("peers", msgspec.Raw(b"[]"))
        if bytes(raw).startswith(b"{"):
            return max(len(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])) - 1, 0)
        if bytes(raw) == b"null":
            return 0
        return sum(one.up for one in msgspec.json.decode(raw, type=list[_Peer]))
    return None
