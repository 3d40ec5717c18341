"""Bringing an origin back from a backup: everything is read and checked before anything moves in."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from prometheus_client import CollectorRegistry

from ...node.blocks.store import DiskStore
from ...node.catalog.replica import catalog_name
from ...node.home import KEY_FILE, LOCK_FILE, Birthplace, check_unborn
from ...node.report import Report
from ...node.settings import Settings
from ...protocol.cid import RAW, Cid
from ...protocol.errors import FarcastError, LocalError, UsageError
from ...protocol.manifest import open_manifest
from ..keys import Keys
from ..log import CatalogLog
from ..money.ledger import Ledger
from ..publish import manifest_label, pin_label
from ..pulses.intake import SEGMENTS
from ..pulses.segments import read_segments
from ..sealedfile import SealedReader
from .backup import LEDGER, MANIFESTS, SUMMARY
from .bookscopy import copy_books

DRAFT = ".restore"
"""Where a restore unpacks; it is there only while one is at work, or after one that died."""
_MODE = 0o700
_COPY_BYTES = 1 << 20

Summary = dict[str, Any]


def restore(file: Path, home: Path, passphrase: str, report: Report, *, ledger: str = "") -> Summary:
    """Make ``home`` the origin that ``file`` is a backup of, or leave it as it was; returns its summary.

    The books go into the home, or into the empty PostgreSQL database that ``ledger`` names.

    Raises:
        UsageError: a home that is not empty, a wrong passphrase, a file that is no backup, or a
            database that holds other books.
        LocalError: ``damaged`` where file or contents are not as they were written.

    """
    try:
        source = file.open("rb")
    except OSError as error:
        raise UsageError(f"the backup {file} cannot be read: {error.strerror}") from error
    with source:
        sealed = SealedReader(source, file, passphrase)  # before anything is made
        with Birthplace(home) as place:
            check_unborn(home)
            shutil.rmtree(home / DRAFT, ignore_errors=True)
            _refuse_others(home)
            draft = home / DRAFT
            draft.mkdir(mode=_MODE)
            try:
                _unpack(sealed, file, draft, report)
                summary = _checked(draft, file)
                if ledger and (draft / LEDGER).exists():
                    copy_books(draft / LEDGER, ledger)  # repeated, it finds them there
                    (draft / LEDGER).unlink()
                    summary["ledger"] = "postgresql"
                elif summary["ledger"] == "postgresql" and (draft / LEDGER).exists():
                    summary["ledger"] = "sqlite"
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            os.sync()
            for path in sorted(draft.iterdir(), key=lambda path: path.name == KEY_FILE):
                path.rename(home / path.name)  # the key comes last: from then on the home is whole
            draft.rmdir()
            os.sync()
            place.lock.release()
    return summary


def _refuse_others(home: Path) -> None:
    other = next((path.name for path in home.iterdir() if path.name != LOCK_FILE), None)
    if other is not None:
        message = f"{home} is not empty, {other} is there; name an empty or new folder as --home"
        raise UsageError(message, reason="home_exists")


def _unpack(sealed: SealedReader, file: Path, draft: Path, report: Report) -> None:
    try:
        with tarfile.open(fileobj=cast("BinaryIO", sealed), mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isreg() or name.is_absolute() or ".." in name.parts:
                    raise LocalError(f"{file} holds {member.name!r}, which is no file", reason="damaged")
                path = draft.joinpath(*name.parts)
                path.parent.mkdir(mode=_MODE, parents=True, exist_ok=True)
                inside = archive.extractfile(member)
                assert inside is not None, "a regular file has bytes"
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, member.mode & 0o755)
                with os.fdopen(fd, "wb") as copy:
                    shutil.copyfileobj(inside, copy, _COPY_BYTES)
        sealed.drain()
        report("checking", 0.5)
    except (tarfile.TarError, FileExistsError) as error:
        raise LocalError(f"{file} is damaged: {error}", reason="damaged") from error


def _checked(draft: Path, file: Path) -> Summary:
    """Open everything as a running origin would, and compare it with what the backup says it holds."""
    try:
        summary: Summary = json.loads((draft / SUMMARY).read_bytes())
        (draft / SUMMARY).unlink()
        for path in draft.rglob("*.db"):
            _check_database(path)
        keys = Keys(draft)
        with closing(CatalogLog(draft / "catalog", keys.catalog, catalog_name(keys.keyring))) as log:
            size = int(summary["catalog"]["size"])
            grown = log.catalog.size >= size
            if not grown or log.catalog.tree.root(size).hex() != summary["catalog"]["root"]:
                raise LocalError("the catalog is not the one that was backed up", reason="damaged")
        summary["intake_entries"] = sum(1 for _ in read_segments(draft / "intake" / SEGMENTS))
        if (draft / LEDGER).exists():
            with closing(Ledger(draft / LEDGER)) as ledger:
                ledger.verify_chain()
                months = {item.month: item.digest.hex() for item in ledger.settlements()}
            if any(months.get(month) != name for month, name in summary["settled"].items()):
                raise LocalError("the settlements are not those that were backed up", reason="damaged")
        _place_manifests(draft)
    except (OSError, ValueError, KeyError, TypeError, FarcastError) as error:
        raise LocalError(f"{file} does not hold a whole origin: {error}", reason="damaged") from error
    return summary


def _check_database(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as conn:
            if conn.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise LocalError(f"{path.name} is damaged", reason="damaged")
    except sqlite3.Error as error:
        raise LocalError(f"{path.name} is damaged: {error}", reason="damaged") from error


def _place_manifests(draft: Path) -> None:
    """Put the manifests into the store: settlement needs them, whether films are here or not."""
    folder = draft / MANIFESTS
    if not folder.is_dir():
        return
    labels: dict[str, list[Cid]] = {}
    with closing(DiskStore(draft, Settings.load(draft, {}).store.quota_bytes, CollectorRegistry())) as store:
        for path in sorted(folder.iterdir()):
            data = path.read_bytes()
            manifest = open_manifest(data)
            cid = Cid.parse(path.name)
            if cid.codec != RAW or not cid.matches(data):
                raise LocalError(f"{path.name} is another manifest", reason="damaged")
            store.put(cid, data)
            labels[manifest_label(cid)] = [cid]
            labels.setdefault(pin_label(manifest.title, manifest.root_cid), []).append(cid)
        for label, cids in labels.items():
            store.pin(label, cids)
        store.sync()
    shutil.rmtree(folder)
