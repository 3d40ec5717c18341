"""Checking a report as a person asks for it: which keys count, which acks were kept."""

from __future__ import annotations

from pathlib import Path

from ..protocol.errors import RemoteError, UsageError
from ..protocol.evidence import EVIDENCE_LIMIT_BYTES, Equivocation, open_evidence
from .catalog.rootfile import read_root
from .catalog.trust import Trust
from .verify import Verdict, read_receipts, verify


def audit(folder: Path, root: Path | None, receipts: Path | None, payee: str, home: Path) -> Verdict:
    """Check the report in ``folder`` with the keys of ``root``, else of the origin ``home`` trusts.

    Raises:
        UsageError: where there is no report, no root.json, or a home that trusts nobody.
        RemoteError: where root.json or the kept acks are broken.

    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such report directory")
    settlement, intake = _keys(root, home)
    acks = read_receipts(receipts) if receipts is not None else []
    return verify(folder, settlement, acks=acks, intake_keys=intake, payee=payee or None)


def audit_evidence(path: Path, root: Path | None, home: Path) -> Equivocation:
    """Check a file of evidence with the intake keys of ``root``, else of the origin ``home`` trusts.

    Raises:
        UsageError: where it cannot be read, or as ``audit``.
        RemoteError: where it is not evidence this origin's intake key signed.

    """
    _, intake = _keys(root, home)
    try:
        with path.open("rb") as file:
            data = file.read(EVIDENCE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return open_evidence(data, intake)
    except RemoteError as error:
        raise RemoteError(f"{path} is no evidence of this origin's: {error}", reason=error.reason) from error


def _keys(root: Path | None, home: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the settlement and the intake keys that count."""
    if root is not None:
        if not root.is_file():
            raise UsageError(f"{root}: no such root.json")
        hint = read_root(root.read_bytes())
        return hint.settlement, hint.intake
    trust = Trust(home / "trust", lambda _: None)
    if trust.hint is None:
        raise UsageError(
            "say whose report it is: --root root.json, or run it in a home that joined the origin"
        )
    keyring = trust.keyring
    if keyring is None:
        return trust.hint.settlement, trust.hint.intake
    return list(keyring.settlement), list(keyring.intake)
