"""The title desk: films become titles in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ...node.report import Report
from ...protocol.cid import Cid
from ...protocol.errors import UsageError
from ...protocol.manifest import Manifest
from ..accounts import Accounts
from ..action import Actions, Result, date
from ..forecast import forecast
from ..keys import Keys
from ..mirror import Mirror
from ..publish import manifest_label, pin_label, publish
from ..studio.contentkeys import ContentKeys
from ..studio.drafts import follow_up
from ..studio.film import load_film
from ..studio.ingest import Ingest
from .shelf import Shelf


class TitleDesk:
    """Publishes onto the ``shelf`` under ``keys``, paying ``accounts``' payees; a ``mirror`` is told."""

    def __init__(
        self,
        shelf: Shelf,
        keys: Keys,
        accounts: Accounts,
        mirror: Mirror | None,
        clock_ms: Callable[[], int],
    ) -> None:
        self.shelf = shelf
        self.log = shelf.log
        self.keys = keys
        self.accounts = accounts
        self._mirror = mirror
        self._clock_ms = clock_ms

    @property
    def actions(self) -> Actions:
        """What the office does by these names."""
        return {"publish": self.publish, "release": self.release, "list": self.list_titles}

    def publish(
        self,
        media: str,
        title: str | None = None,
        payee: str | None = None,
        preset: str = "",
        loop_to_s: float = 0,
        access: Literal["", "open", "ticket"] = "",
        *,
        dry_run: bool = False,
        draft: bool = False,
        progress: Report,
    ) -> Result:
        """Encode, package, sign and list a film; again, only what changed.

        Where no payee is named anywhere and just one is known, that one gets everything; ``access``
        comes before what film.toml says. A ``draft`` is not listed before ``release``.
        """
        path = Path(media)
        known = [payee.id for payee in self.accounts.payees()]
        film = load_film(path, title=title, payee=payee or (known[0] if len(known) == 1 else None))
        if access:
            film = replace(film, access=access)
        for share in film.payees:
            if share.payee not in known:
                message = f"{film.title} pays {share.payee!r}, whom this origin does not know; "
                raise UsageError(message + f"add them with `farcast origin payee add {share.payee}`")
        shares = [{"payee": share.payee, "basis_points": share.points} for share in film.payees]
        entry = self.log.catalog.titles().get(film.title)
        encodes = self.shelf.home / "encodes"
        asked = Ingest(path, encodes, preset=preset, loop_to_s=loop_to_s, sounds=film.sounds)
        if dry_run:
            return {
                **forecast(film, asked, progress),
                "access": film.access,
                "payees": shares,
                "listed": entry is not None,
            }
        now_ms = self._clock_ms()
        previous = self.shelf.manifest(entry) if entry else None
        done = publish(
            path,
            film,
            encodes,
            self.shelf.store,
            self.keys.publisher,
            previous,
            now_ms,
            preset,
            progress,
            loop_to_s=loop_to_s,
            keys=ContentKeys(self.keys.content_secret),
            drafts=self.shelf.drafts if draft else None,
        )
        kubo = None
        if not draft:
            kubo = self._list(film.title, done.cid, done.manifest, now_ms, progress)
            self.shelf.drafts.drop(film.title)
        return {
            "title": film.title,
            "name": film.name,
            "version": done.manifest.version,
            "changed": done.changed,
            "root_cid": str(done.manifest.root_cid),
            "manifest_cid": str(done.cid),
            "duration_s": done.manifest.duration_ms / 1_000,
            "bytes": done.manifest.size_bytes,
            "renditions": len(done.manifest.renditions),
            "playback_segments": _played_segments(done.manifest),
            "folder": str(done.folder),
            "blocks": done.blocks,
            "new_blocks": done.new_blocks,
            "new_bytes": done.new_bytes,
            "access": done.manifest.access,
            "payees": shares,
            "kubo": kubo,
            "warnings": list(done.warnings),
            "draft": draft,
            "dry_run": False,
        }

    def release(self, title: str, *, progress: Report) -> Result:
        """Put a draft into the catalog, on top of what is listed under its title by now."""
        cid = self.shelf.drafts.find(title)
        if cid is None:
            message = f"there is no draft of {title!r}; `farcast origin list` shows drafts"
            raise UsageError(message, reason="no_draft")
        drafted, blocks = self.shelf.drafts.manifest(title, cid), self.shelf.drafts.blocks(title, cid)
        entry = self.log.catalog.titles().get(title)
        previous = self.shelf.manifest(entry) if entry else None
        cid, data, manifest = follow_up(drafted, previous, self.keys.publisher)
        self.shelf.store.put(cid, data, hashed=True)
        self.shelf.store.sync()
        self.shelf.store.pin(pin_label(title, manifest.root_cid), [*blocks, cid])
        kubo = self._list(title, cid, manifest, self._clock_ms(), progress)
        self.shelf.drafts.drop(title)
        return {
            "title": title,
            "version": manifest.version,
            "root_cid": str(manifest.root_cid),
            "manifest_cid": str(cid),
            "kubo": kubo,
        }

    def _list(self, title: str, cid: Cid, manifest: Manifest, now_ms: int, progress: Report) -> Result | None:
        """Name a manifest in the catalog unless it is named there; returns what became of it in Kubo."""
        self.shelf.store.pin(manifest_label(cid), [cid])
        entry = self.log.catalog.titles().get(title)
        previous = self.shelf.manifest(entry) if entry else None
        if entry is None or entry.cid != cid:
            self.log.append("supersede" if entry else "publish", title, cid, now_ms)
            self.shelf.takedown.enforce()  # the film may need what went with another
        if previous is not None and entry is not None and previous.root != manifest.root:
            self.shelf.let_go(title, [previous.root_cid], [entry.cid])
        if self._mirror is None:
            return None
        gone = self.shelf.unlisted(previous.root_cid, entry.cid) if previous and entry else []
        roots = [manifest.root_cid, cid]
        return self._mirror.add(roots, gone, manifest.size_bytes, self.shelf.store, progress)

    def list_titles(self) -> Result:
        """List what the catalog offers."""
        titles: list[Result] = []
        for title, entry in sorted(self.log.catalog.titles().items()):
            manifest = self.shelf.manifest(entry)
            titles.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "version": manifest.version,
                    "duration_s": manifest.duration_ms / 1_000,
                    "bytes": manifest.size_bytes,
                    "published": date(entry.at_ms),
                    "payees": [share.payee for share in manifest.payees],
                    "access": manifest.access,
                    "draft": False,
                }
            )
        for title, cid in self.shelf.drafts.titles().items():
            manifest = self.shelf.drafts.manifest(title, cid)
            titles.append(
                {
                    "title": title,
                    "name": manifest.name,
                    "version": manifest.version,
                    "duration_s": manifest.duration_ms / 1_000,
                    "bytes": manifest.size_bytes,
                    "published": None,
                    "payees": [share.payee for share in manifest.payees],
                    "access": manifest.access,
                    "draft": True,
                }
            )
        return {"titles": titles, "entries": self.log.catalog.size}


def _played_segments(manifest: Manifest) -> int:
    """Count the segments one full playback fetches: the best picture's and one sound's."""
    best = {
        kind: max((r for r in manifest.renditions if r.kind == kind), key=lambda r: r.bandwidth, default=None)
        for kind in ("video", "audio")
    }
    return sum(rendition.segments for rendition in best.values() if rendition is not None)
