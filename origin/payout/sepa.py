"""SEPA credit transfers by file: one file a run, for the operator to give to the bank.

A file is written under a hidden name, the books are told that its orders have left, and only then it
gets its name: whoever can take it to the bank finds orders that are ``sent``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Self

from ...protocol.errors import LocalError, StoreFullError, UsageError
from .creditfile import MAX_TRANSFERS, Debtor, Transfer, credit_file, message_id
from .iban import parse_bic, parse_iban
from .method import Errand
from .order import Order, Verdict
from .terms import Terms

CURRENCY = "EUR"
SUFFIX, _DRAFT = ".xml", ".draft"


class SepaFiles:
    """Writes credit transfer files into ``folder``, drawn on ``debtor`` as the settings give it."""

    looks_up = False
    together = MAX_TRANSFERS

    def __init__(self, folder: Path, debtor: Debtor, currency: str) -> None:
        self.folder = folder
        self._debtor = debtor
        self._currency = currency

    def trouble(self) -> str:
        """Say what the settings lack."""
        if self._currency != CURRENCY:
            return f"SEPA moves {CURRENCY} alone, and [money] currency is {self._currency}"
        name, iban, bic = self._debtor
        if not name or not iban:
            return "no account pays: set [payout] name and iban"
        try:
            parse_iban(iban)
            if bic:
                parse_bic(bic)
        except UsageError as error:
            return f"[payout]: {error}"
        return ""

    def fault(self, terms: Terms) -> str:
        """A transfer needs an account; banks find their codes themselves."""
        return "" if terms.iban else f"no IBAN: farcast origin payee set {terms.payee} --iban ..."

    def recover(self, was_sent: Callable[[str], bool]) -> None:
        """Name the files whose orders have left, delete the drafts of those that have not."""
        if not self.folder.is_dir():
            return
        with _Alone(self.folder):
            for draft in sorted(self.folder.glob(f".*{SUFFIX}{_DRAFT}")):
                name = draft.name.removeprefix(".").removesuffix(_DRAFT)
                if was_sent(name):
                    _publish(draft, self.folder / name)
                else:
                    draft.unlink(missing_ok=True)

    def prepare(self, errands: Sequence[Errand], now_ms: int) -> _File:
        """Write the file under its hidden name, durably.

        Raises:
            StoreFullError: the disk is full; nothing is left of the file.
            LocalError: it cannot be written, or another run is at it.

        """
        name, iban, bic = self._debtor
        debtor = Debtor(name, parse_iban(iban), parse_bic(bic) if bic else "")
        transfers = [
            Transfer(
                order.key, terms.name, terms.iban, terms.bic, order.net_cents,
                f"{debtor.name} payout {order.key[:12]}",
            )
            for order, terms in errands
        ]  # fmt: skip
        name = message_id([transfer.key for transfer in transfers]) + SUFFIX
        data = credit_file(debtor, transfers, now_ms)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f".{name}{_DRAFT}"
        alone = _Alone(self.folder)
        try:
            _write(draft, data)
        except BaseException:
            alone.close()
            raise
        return _File(draft, self.folder / name, alone)

    def find(self, order: Order) -> Verdict:
        """Only the bank knows, and it tells the operator."""
        return Verdict("silent", order.reference, "only the bank knows")


class _Alone:
    """Keeps other processes of this machine from the drafts; ``LocalError`` where one is at them."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            flock(self._fd, LOCK_EX | LOCK_NB)
        except OSError as error:
            self.close()
            message = f"another run writes in {folder}; try again when it is done"
            raise LocalError(message, reason="busy") from error

    def close(self) -> None:
        """Let the others."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _File:
    def __init__(self, draft: Path, path: Path, alone: _Alone) -> None:
        self.reference = path.name
        self._draft = draft
        self._path = path
        self._alone = alone

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._alone.close()

    def go(self) -> Verdict:
        """Give the file its name."""
        try:
            _publish(self._draft, self._path)
        except OSError as error:  # the draft stays, and the next run names it
            return Verdict(
                "pending", self.reference, f"{self._draft} keeps its hidden name: {error.strerror}"
            )
        return Verdict("pending", self.reference)

    def drop(self) -> None:
        """Delete the draft."""
        self._draft.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Write a file that exists whole and durable afterwards, or not at all."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            _sync(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"the disk is full, {path.parent} takes no credit transfer file; make room"
            raise StoreFullError(message, reason="disk_full") from error
        raise LocalError(f"{path} cannot be written: {error.strerror}", reason="disk") from error


def _publish(draft: Path, path: Path) -> None:
    draft.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
