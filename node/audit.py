"""Checking a report as a person asks for it: which keys count, which acks were kept."""

from __future__ import annotations

from pathlib import Path

from ..protocol.errors import UsageError
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
    if root is not None:
        if not root.is_file():
            raise UsageError(f"{root}: no such root.json")
        hint = read_root(root.read_bytes())
        settlement, intake = hint.settlement, hint.intake
    else:
        trust = Trust(home / "trust", lambda _: None)
        if trust.hint is None:
            raise UsageError(
                "say whose report it is: --root root.json, or run it in a home that joined the origin"
            )
        keyring = trust.keyring
        settlement = list(keyring.settlement) if keyring else trust.hint.settlement
        intake = list(keyring.intake) if keyring else trust.hint.intake
    acks = read_receipts(receipts) if receipts is not None else []
    return verify(folder, settlement, acks=acks, intake_keys=intake, payee=payee or None)
