"""The finder: full-text search over the titles of a catalog, best first, in memory (SQLite FTS5)."""

from __future__ import annotations

import re
import sqlite3
import threading

from ...protocol.cid import RAW, Cid
from ...protocol.errors import FarcastError
from .library import Library

QUERY_LIMIT_CHARS = 200
WORDS_LIMIT = 12
_UNREAD = Cid.of(RAW, b"")
"""Stands for the manifest of a title known by its id alone."""
_WORD = re.compile(r"\w+")
_TABLE = """
CREATE VIRTUAL TABLE film USING fts5(
    title, name, description, tokenize = "unicode61 remove_diacritics 2", prefix = "1 2 3"
)
"""
_FIND = "SELECT title FROM film WHERE film MATCH ? ORDER BY bm25(film, 4.0, 8.0, 1.0), title LIMIT ?"


class Finder:
    """Answers which titles a query means; every method blocks and is thread-safe.

    What is indexed follows the library by difference: a title is read again only once the catalog
    lists another manifest for it, or its manifest has come.
    """

    def __init__(self, library: Library) -> None:
        """Search ``library``; nothing is read before the first query."""
        self._library = library
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute(_TABLE)
        self._rows: dict[str, tuple[int, Cid]] = {}

    def close(self) -> None:
        """Let go of the memory."""
        with self._lock:
            self._db.close()

    def find(self, query: str, limit: int = 100) -> list[str]:
        """Return the ids of the titles that have every word of ``query``, or begin of one, best first."""
        words = _WORD.findall(query[:QUERY_LIMIT_CHARS])[:WORDS_LIMIT]
        if not words:
            return self._library.titles()[:limit]
        match = " ".join(f'"{word}"*' for word in words)
        with self._lock:
            self._follow()
            return [title for (title,) in self._db.execute(_FIND, (match, limit))]

    def _follow(self) -> None:
        listed = self._library.manifests()
        self._db.execute("BEGIN")  # one index segment for all that is new, not one each
        try:
            for title in self._rows.keys() - listed.keys():
                self._remove(title)
            for title, cid in listed.items():
                if self._rows.get(title, (0, _UNREAD))[1] != cid:
                    self._read(title, cid)
        finally:
            self._db.execute("COMMIT")

    def _read(self, title: str, cid: Cid) -> None:
        try:
            manifest = self._library.manifest(title)
            row = (title, manifest.name, manifest.description)
        except FarcastError:
            if title in self._rows:
                return  # what is indexed is as much as is known
            cid, row = _UNREAD, (title, title, "")
        self._remove(title)
        cursor = self._db.execute("INSERT INTO film VALUES (?, ?, ?)", row)
        self._rows[title] = (cursor.lastrowid or 0, cid)

    def _remove(self, title: str) -> None:
        number, _ = self._rows.pop(title, (0, _UNREAD))
        if number:
            self._db.execute("DELETE FROM film WHERE rowid = ?", (number,))
