"""Verify: check a month's report with nothing but the origin's public keys.

The signature vouches for the statement and for the hash of every file; leaves, totals and tables are
then computed again from each other, so neither a changed byte nor a wrong sum passes. Acks that
somebody kept must fit the intake log the report settled and the pulses it says it stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from ..protocol.audit import AuditError, audit
from ..protocol.batch import Ack, open_ack
from ..protocol.codec import decode
from ..protocol.errors import RemoteError
from ..protocol.merkle import HASH_BYTES, Tree
from ..protocol.statement import (
    HEAD,
    HEAD_LIMIT_BYTES,
    INTAKE,
    LEAVES,
    PAGE,
    TICKETS,
    Head,
    Line,
    Statement,
    open_head,
    ticket_name,
    unpack_lines,
    unpack_tickets,
)
from ..protocol.tables import TABLES

FILE_LIMIT_BYTES = 1 << 30
RECEIPTS_LIMIT_BYTES = 64 << 20
_NAMES = frozenset({*TABLES, LEAVES, INTAKE, TICKETS, PAGE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found; ``file`` and ``line`` (from 1, 0 for the whole file) name the first fault.

    ``payee_lines`` are the leaves of the payee asked for; ``acks`` were checked, ``later_acks``
    speak of a log longer than the one the report settled and say nothing about it.
    """

    ok: bool
    sentence: str
    file: str = ""
    line: int = 0
    statement: Statement | None = None
    payee_lines: list[Line] = field(default_factory=list[Line])
    acks: int = 0
    later_acks: int = 0


def verify(
    folder: Path,
    settlement_keys: Sequence[bytes],
    *,
    acks: Sequence[bytes] = (),
    intake_keys: Sequence[bytes] = (),
    payee: str | None = None,
) -> Verdict:
    """Check the report in ``folder``; ``acks`` are signed ack envelopes. Blocking; never raises."""
    try:
        return _check(folder, settlement_keys, acks, intake_keys, payee)
    except AuditError as error:
        return Verdict(ok=False, sentence=str(error), file=error.file, line=error.line)
    except RemoteError as error:
        return Verdict(ok=False, sentence=f"{LEAVES}: {error}", file=LEAVES)
    except OSError as error:
        return Verdict(ok=False, sentence=f"{folder} cannot be read: {error.strerror}", file=folder.name)


def read_receipts(path: Path) -> list[bytes]:
    """Read a file of kept acks: one signed envelope, or a msgpack array of them.

    Raises:
        RemoteError: where it is neither.

    """
    try:
        if path.stat().st_size > RECEIPTS_LIMIT_BYTES:
            raise RemoteError(f"{path} is too large to be a file of acks", reason="too_large")
        data = path.read_bytes()
    except OSError as error:
        raise RemoteError(f"{path} cannot be read: {error.strerror}", reason="malformed") from error
    try:
        return (
            decode(list[bytes], data, limit_bytes=RECEIPTS_LIMIT_BYTES)
            if data[:1] != b"\x92"
            else _either(data)
        )
    except RemoteError as error:
        raise RemoteError(f"{path} holds no acks: {error}", reason=error.reason) from error


def _either(data: bytes) -> list[bytes]:
    """Tell one envelope ``[body, sig]`` from an array of two envelopes: a signature has 64 bytes."""
    items = decode(list[bytes], data, limit_bytes=RECEIPTS_LIMIT_BYTES)
    return [data] if len(items[1]) == 64 else items  # noqa: PLR2004 - an Ed25519 signature


def _check(
    folder: Path,
    settlement_keys: Sequence[bytes],
    acks: Sequence[bytes],
    intake_keys: Sequence[bytes],
    payee: str | None,
) -> Verdict:
    head = _open_head(folder, settlement_keys)
    files = _read_files(folder, head)
    statement = head.statement
    lines = unpack_lines(files[LEAVES])
    audit(statement, lines)
    for name, write in TABLES.items():
        _compare(name, files[name], write(statement, lines))
    tree = _intake_tree(files[INTAKE], statement)
    tickets = _tickets(files[TICKETS], statement)
    checked, later = _check_acks(acks, intake_keys, statement, tree, tickets)
    own = [line for line in lines if line.payee == payee]
    if payee is not None and not own:
        _refuse(LEAVES, 0, f"{payee} is no payee in {statement.month}")
    sentence = f"{statement.month} is sound: {len(files) + 1} files, {_count(len(lines), 'leaf', 'leaves')}"
    if acks:
        sentence += f", {_count(checked, 'ack', 'acks')}"
    return Verdict(
        ok=True, sentence=sentence, statement=statement, payee_lines=own, acks=checked, later_acks=later
    )


def _open_head(folder: Path, settlement_keys: Sequence[bytes]) -> Head:
    data = _read(folder / HEAD, HEAD_LIMIT_BYTES)
    try:
        return open_head(data, settlement_keys)
    except RemoteError as error:
        raise AuditError(HEAD, 0, f"not signed by this origin's settlement key ({error})") from error


def _read_files(folder: Path, head: Head) -> dict[str, bytes]:
    """Return every file the head names, and nothing but those may be there."""
    stated = {item.name: item for item in head.files}
    if frozenset(stated) != _NAMES or len(head.files) != len(_NAMES):
        _refuse(HEAD, 0, "the head does not name exactly the files of a report")
    found = sorted(path.name for path in folder.iterdir())
    for name in found:
        if name != HEAD and name not in stated:
            _refuse(name, 0, "the signed head knows no such file")
    files: dict[str, bytes] = {}
    for name in sorted(stated, key=lambda name: (name != LEAVES, name)):  # leaves tell other files' lines
        item = stated[name]
        data = _read(folder / name, FILE_LIMIT_BYTES)
        if len(data) != item.size or sha256(data).digest() != item.sha256:
            _blame(name, data, head.statement, files)
        files[name] = data
    return files


def _blame(name: str, data: bytes, statement: Statement, files: dict[str, bytes]) -> NoReturn:
    """Refuse a file whose hash is wrong, naming the line where the rest of the report can tell it."""
    if name in TABLES and LEAVES in files:
        _compare(name, data, TABLES[name](statement, unpack_lines(files[LEAVES])))
    _refuse(name, 0, "the file is not the one that was signed")


def _compare(name: str, data: bytes, expected: bytes) -> None:
    if data == expected:
        return
    pairs = zip_longest(data.split(b"\n"), expected.split(b"\n"))
    number = next(number for number, (ours, theirs) in enumerate(pairs, 1) if ours != theirs)
    _refuse(name, number, "the line is not what the signed statement says")


def _intake_tree(data: bytes, statement: Statement) -> Tree:
    tree = Tree(data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES))
    if len(data) % HASH_BYTES or tree.size != statement.log_size or tree.root() != statement.log_root:
        _refuse(INTAKE, 0, "the entries are not those of the signed log root")
    return tree


def _tickets(data: bytes, statement: Statement) -> dict[bytes, int]:
    if sha256(data).digest() != statement.tickets_hash:
        _refuse(TICKETS, 0, "the tickets are not those of the signed statement")
    try:
        return unpack_tickets(data)
    except RemoteError as error:
        raise AuditError(TICKETS, 0, str(error)) from error


def _check_acks(
    acks: Sequence[bytes],
    intake_keys: Sequence[bytes],
    statement: Statement,
    tree: Tree,
    tickets: dict[bytes, int],
) -> tuple[int, int]:
    """Check kept acks; returns how many, and how many are about a later log."""
    checked = later = 0
    for number, data in enumerate(acks, 1):
        try:
            ack = open_ack(data, list(intake_keys))
        except RemoteError as error:
            raise AuditError("receipts", number, f"not an ack of this origin ({error})") from error
        if ack.log_size > statement.log_size:
            later += 1
            continue
        if tree.root(ack.log_size) != ack.log_root:
            _refuse(INTAKE, 0, f"the log that ack {number} promised is not the one that was settled")
        _check_tickets(number, ack, statement, tickets)
        checked += 1
    return checked, later


def _check_tickets(number: int, ack: Ack, statement: Statement, tickets: dict[bytes, int]) -> None:
    """Check that every acked pulse of this month's and the last month's tickets is stored.

    An ack from before this month may speak of tickets that older reports list; one from within it
    may not, since pulses older than the month before are no longer taken.
    """
    for item in ack.tids:
        acked = item.upto + len(item.extra)
        stored = tickets.get(ticket_name(item.tid))
        if stored is None and (not acked or _month_of_ack(ack) < statement.month):
            continue
        if stored is None or stored < acked:
            sentence = (
                f"ack {number} promised {acked} pulses of ticket {item.tid.hex()}, {stored or 0} are stored"
            )
            _refuse(TICKETS, 0, sentence)


def _month_of_ack(ack: Ack) -> str:

    return datetime.fromtimestamp(ack.at_ms // 1_000, UTC).strftime("%Y-%m")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > limit_bytes:
            _refuse(path.name, 0, "the file is missing, too large, or no plain file")
        return path.read_bytes()
    except OSError as error:
        raise AuditError(path.name, 0, f"the file cannot be read: {error.strerror}") from error


def _refuse(file: str, line: int, sentence: str) -> NoReturn:
    raise AuditError(file, line, sentence)
