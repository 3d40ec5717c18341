"""A payment provider that misbehaves on order: a process of its own, written with the standard library alone.

``python paybank.py`` prints its port. It books a payment once for each key, as long as it remembers
the key: 24 h of its own clock, which ``POST /_clock`` moves. ``POST /_fates`` says what happens to the next
requests, ``GET /_books`` what it has paid, ``POST /_reset`` begins anew.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY_LIFE_MS = 24 * 3_600_000
CLOSED = "closed"
"""The account of a recipient nobody can pay."""

Record = dict[str, Any]


class Books:
    """What the bank knows."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now_ms = 0
        self.late_s = 0.3
        self.fates: deque[str] = deque()
        self.paid: list[tuple[str, int, str]] = []
        self.seen: dict[str, tuple[int, Record]] = {}
        self.requests = 0

    def known(self, key: str) -> Record | None:
        """Return the record of a key that is remembered."""
        found = self.seen.get(key)
        return found[1] if found and self.now_ms - found[0] < KEY_LIFE_MS else None

    def take(self, key: str, body: Record, state: str) -> Record:
        """Book a payment, unless its key is remembered."""
        with self.lock:
            known = self.known(key)
            if known is not None:
                return known
            record = {**{name: body[name] for name in ("key", "amount_cents", "currency")}, "reason": ""}
            if body["recipient"]["account"] == CLOSED:
                record |= {"state": "failed", "reason": "account closed", "id": ""}
            else:
                self.paid.append((key, body["amount_cents"], body["recipient"]["account"]))
                record |= {"state": state, "id": f"bank-{len(self.paid)}"}
            self.seen[key] = (self.now_ms, record)
            return record

    def look(self, key: str) -> Record | None:
        """Return the record of a key; what is pending is paid by the time somebody asks."""
        with self.lock:
            record = self.known(key)
            if record is not None and record["state"] == "pending":
                record["state"] = "paid"
            return record


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    books: Books

    def do_GET(self) -> None:
        """Answer a look-up."""
        if self.path == "/_books":
            books = self.books
            self._answer(200, {"paid": books.paid, "requests": books.requests, "waiting": len(books.fates)})
            return
        fate = self._fate("look_")
        if fate == "look_500":
            self._answer(500, {"error": "down"})
        elif fate == "look_drop":
            self._drop()
        elif fate == "look_html":
            self._answer(404, "<html>no such page</html>")
        else:
            key = self.path.rpartition("/")[2]
            record = self.books.look(key)
            self._answer(200, record) if record else self._answer(404, {"key": key, "state": "absent"})

    def do_POST(self) -> None:
        """Take a payment, or an order to misbehave."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/_clock":
            self.books.now_ms += body["ms"]
            self._answer(200, {})
        elif self.path == "/_reset":  # who is late keeps the old books
            Handler.books = Books()
            self._answer(200, {})
        elif self.path == "/_fates":
            self.books.fates.extend(body["fates"])
            self.books.late_s = body.get("late_s", self.books.late_s)
            self._answer(200, {})
        else:
            self._pay(body)

    def _pay(self, body: Record) -> None:
        books, key, fate = self.books, self.headers["idempotency-key"], self._fate("")
        books.requests += 1
        if fate == "busy":
            self._answer(429, {"error": "busy"})
        elif fate == "500_before":
            self._answer(500, {"error": "down"})
        elif fate == "drop_before":
            self._drop()
        elif fate == "late_booking":  # it answers nobody, and books when nobody waits any more
            time.sleep(books.late_s)
            books.take(key, body, "paid")
            self._drop()
        else:
            record = books.take(key, body, "pending" if fate == "pending" else "paid")
            if fate == "late":
                time.sleep(books.late_s)
            if fate == "500_after":
                self._answer(500, {"error": "down"})
            elif fate == "drop_after":
                self._drop()
            elif fate == "nonsense":
                self._answer(200, {**record, "amount_cents": record["amount_cents"] + 1})
            else:
                self._answer(
                    402 if record["state"] == "failed" else 201, record, times=2 if fate == "twice" else 1
                )

    def _fate(self, prefix: str) -> str:
        """Take the next fate that is for this kind of request."""
        with self.books.lock:
            fates = self.books.fates
            if fates and fates[0].startswith("look_") is bool(prefix):
                return fates.popleft()
            return ""

    def _answer(self, status: int, body: object, times: int = 1) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} So\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        try:
            self.wfile.write((head.encode() + data) * times)
        except OSError:
            self.close_connection = True

    def _drop(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def main() -> None:
    """Serve until killed."""
    Handler.books = Books()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
