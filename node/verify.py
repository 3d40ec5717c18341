"""Verify: check a month's report with nothing but the origin's public keys.

The signature vouches for the statement and for the hash of every file; leaves, totals and tables are
then computed again from each other, so neither a changed byte nor a wrong sum passes. The intake log
must go on from that of the month before, and acks that somebody kept must fit it and the pulses it says
it stored. Files are read in pieces: a report of a million payees is checked in some 500 MB.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..protocol.audit import AuditError, audit
from ..protocol.batch import Ack, open_ack
from ..protocol.codec import decode
from ..protocol.errors import RemoteError
from ..protocol.leaves import Leaves
from ..protocol.merkle import HASH_BYTES, Tree, root_over, verify_consistency
from ..protocol.note import open_note
from ..protocol.statement import (
    CHECKPOINT,
    CONSISTENCY,
    HEAD,
    HEAD_LIMIT_BYTES,
    INTAKE,
    LEAVES,
    PAGE,
    TICKETS,
    Consistency,
    FileHash,
    Head,
    Line,
    Statement,
    digest,
    log_name,
    open_head,
    ticket_name,
    ticket_names,
    unpack_tickets,
)
from ..protocol.tables import TABLES

FILE_LIMIT_BYTES = 1 << 30
RECEIPTS_LIMIT_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
_NAMES = frozenset({*TABLES, LEAVES, INTAKE, TICKETS, CHECKPOINT, CONSISTENCY, PAGE})
_NOT_SIGNED = "the file is not the one that was signed"
_NOT_DERIVED = "the line is not what the signed statement says"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found; ``file`` and ``line`` (from 1, 0 for the whole file) name the first fault.

    ``payee_lines`` are the leaves of the payee asked for, at ``payee_places``, with their inclusion
    proofs; ``acks`` were checked, ``later_acks`` speak of a log longer than the one the report settled
    and say nothing about it. ``follows`` is the month whose report lies beside and goes before.
    """

    ok: bool
    sentence: str
    file: str = ""
    line: int = 0
    statement: Statement | None = None
    payee_lines: list[Line] = field(default_factory=list[Line])
    payee_places: list[int] = field(default_factory=list[int])
    payee_proofs: list[list[bytes]] = field(default_factory=list[list[bytes]])
    acks: int = 0
    later_acks: int = 0
    follows: str = ""


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
    files, statement = _stated(folder, head), head.statement
    leaves = _leaves(folder, files[LEAVES])
    audit(statement, leaves)
    for name, write in TABLES.items():
        _compare(folder, files[name], write(statement, leaves))
    entries = _entries(_whole(folder, files[INTAKE]), statement)
    tickets = _tickets(_whole(folder, files[TICKETS]), statement, wanted=bool(acks))
    _check_checkpoint(_whole(folder, files[CHECKPOINT]), settlement_keys, statement)
    follows = _check_consistency(folder, _whole(folder, files[CONSISTENCY]), settlement_keys, head, entries)
    _whole(folder, files[PAGE])
    checked, later = _check_acks(acks, intake_keys, statement, entries, tickets)
    places = leaves.places_of(payee) if payee is not None else []
    if payee is not None and not places:
        _refuse(LEAVES, 0, f"{payee} is no payee in {statement.month}")
    sentence = f"{statement.month} is sound: {len(files) + 1} files, {_count(len(leaves), 'leaf', 'leaves')}"
    if acks:
        sentence += f", {_count(checked, 'ack', 'acks')}"
    if follows:
        sentence += f", and follows {follows}"
    return Verdict(
        ok=True,
        sentence=sentence,
        statement=statement,
        payee_lines=[leaves[place] for place in places],
        payee_places=places,
        payee_proofs=leaves.proofs(places),
        acks=checked,
        later_acks=later,
        follows=follows,
    )


def _open_head(folder: Path, settlement_keys: Sequence[bytes]) -> Head:
    data = _read(folder / HEAD, HEAD_LIMIT_BYTES)
    try:
        return open_head(data, settlement_keys)
    except RemoteError as error:
        raise AuditError(HEAD, 0, f"not signed by this origin's settlement key ({error})") from error


def _stated(folder: Path, head: Head) -> dict[str, FileHash]:
    """Return what the head says of every file; nothing but those may be there."""
    stated = {item.name: item for item in head.files}
    if frozenset(stated) != _NAMES or len(head.files) != len(_NAMES):
        _refuse(HEAD, 0, "the head does not name exactly the files of a report")
    for path in sorted(folder.iterdir()):
        if path.name != HEAD and path.name not in stated:
            _refuse(path.name, 0, "the signed head knows no such file")
    return stated


def _leaves(folder: Path, stated: FileHash) -> Leaves:
    digest = sha256()

    def pieces() -> Iterator[bytes]:
        with _opened(folder / stated.name, FILE_LIMIT_BYTES) as file:
            while data := file.read(PIECE_BYTES):
                digest.update(data)
                yield data

    try:
        leaves = Leaves.read(pieces())
    except AuditError:
        raise
    except RemoteError as error:
        raise AuditError(LEAVES, 0, str(error)) from error
    if digest.digest() != stated.sha256:
        _refuse(LEAVES, 0, _NOT_SIGNED)
    return leaves


def _compare(folder: Path, stated: FileHash, pieces: Iterable[str]) -> None:
    """Check a derived file against what it must be, piece by piece, and against its signed hash."""
    digest, size = sha256(), 0
    with _opened(folder / stated.name, FILE_LIMIT_BYTES) as file:
        for piece in pieces:
            expected = piece.encode()
            found = file.read(len(expected))
            if found != expected:
                pairs = zip_longest(found.split(b"\n"), expected.split(b"\n"))
                wrong = next(number for number, (ours, theirs) in enumerate(pairs, 1) if ours != theirs)
                _refuse(stated.name, _lines(file, size) + wrong, _NOT_DERIVED)
            digest.update(found)
            size += len(found)
        if file.read(1):
            _refuse(stated.name, _lines(file, size) + 1, _NOT_DERIVED)
    if digest.digest() != stated.sha256 or size != stated.size:
        _refuse(stated.name, 0, _NOT_SIGNED)


def _lines(file: BinaryIO, size: int) -> int:
    """Count the lines in the first ``size`` bytes."""
    file.seek(0)
    return sum(file.read(min(PIECE_BYTES, size - at)).count(b"\n") for at in range(0, size, PIECE_BYTES))


def _whole(folder: Path, stated: FileHash) -> bytes:
    data = _read(folder / stated.name, FILE_LIMIT_BYTES)
    if sha256(data).digest() != stated.sha256 or len(data) != stated.size:
        _refuse(stated.name, 0, _NOT_SIGNED)
    return data


def _entries(data: bytes, statement: Statement) -> list[bytes]:
    """Return the leaf hashes of the intake log's entries."""
    entries = [data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES)]
    sound = not len(data) % HASH_BYTES and len(entries) == statement.log_size
    if not sound or root_over(entries) != statement.log_root:
        _refuse(INTAKE, 0, "the entries are not those of the signed log root")
    return entries


def _check_checkpoint(data: bytes, keys: Sequence[bytes], statement: Statement) -> None:
    for key in keys:
        try:
            head = open_note(data, log_name(key), key)
        except RemoteError:
            continue
        if (head.size, head.root, head.time_ms) == (
            statement.log_size, statement.log_root, statement.as_of_ms,
        ):  # fmt: skip
            return
        _refuse(CHECKPOINT, 2, "the checkpoint is of another log than the statement's")
    _refuse(CHECKPOINT, 0, "not signed by this origin's settlement key")


def _check_consistency(
    folder: Path, data: bytes, keys: Sequence[bytes], head: Head, entries: Sequence[bytes]
) -> str:
    """Check that the log only grew since the month before; returns that month where its report is beside."""
    try:
        before = decode(Consistency, data)
    except RemoteError as error:
        raise AuditError(CONSISTENCY, 0, str(error)) from error
    statement = head.statement
    grown = before.size <= len(entries) and root_over(entries[: before.size]) == before.root
    if not grown or not verify_consistency(
        before.size, len(entries), before.root, statement.log_root, before.proof
    ):
        _refuse(CONSISTENCY, 0, "the log does not go on from that of the month before")
    if bool(before.month) != any(statement.previous) or before.month >= statement.month:
        _refuse(CONSISTENCY, 0, "another month before this one is in the statement")
    beside = folder.absolute().parent / before.month
    if not before.month or not (beside / HEAD).is_file():
        return ""
    try:
        earlier = open_head(_read(beside / HEAD, HEAD_LIMIT_BYTES), keys).statement
    except RemoteError:
        return ""  # whoever put it there, it says nothing about this report
    if earlier.month != before.month:
        return ""
    told = (digest(earlier), earlier.log_size, earlier.log_root)
    if told != (statement.previous, before.size, before.root):
        _refuse(CONSISTENCY, 0, f"the report of {before.month} beside this one is not the one it follows")
    return before.month


def _tickets(data: bytes, statement: Statement, *, wanted: bool) -> dict[bytes, int]:
    """Check the tickets, and return them where they are wanted."""
    if sha256(data).digest() != statement.tickets_hash:
        _refuse(TICKETS, 0, "the tickets are not those of the signed statement")
    try:
        if wanted:
            return unpack_tickets(data)
        ticket_names(data)
    except RemoteError as error:
        raise AuditError(TICKETS, 0, str(error)) from error
    return {}


def _check_acks(
    acks: Sequence[bytes],
    intake_keys: Sequence[bytes],
    statement: Statement,
    entries: Sequence[bytes],
    tickets: dict[bytes, int],
) -> tuple[int, int]:
    """Check kept acks; returns how many, and how many are about a later log."""
    checked = later = 0
    tree = Tree(entries if acks else ())
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
    with _opened(path, limit_bytes) as file:
        return file.read(limit_bytes)


@contextmanager
def _opened(path: Path, limit_bytes: int) -> Generator[BinaryIO]:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > limit_bytes:
            _refuse(path.name, 0, "the file is missing, too large, or no plain file")
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise AuditError(path.name, 0, f"the file cannot be read: {error.strerror}") from error


def _refuse(file: str, line: int, sentence: str) -> NoReturn:
    raise AuditError(file, line, sentence)
