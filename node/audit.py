"""Checking a report as a person asks for it: which keys count, which acks were kept."""

from __future__ import annotations

from pathlib import Path

from ..protocol.errors import UsageError
from ..protocol.identity import peer_id
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


def facts(verdict: Verdict) -> dict[str, object]:
    """Return what a check found, ready for JSON; a payee's lines have their inclusion proofs."""
    lines = verdict.payee_lines
    paid = sum(line.paid_cents for line in lines)
    return {
        "ok": verdict.ok,
        "sentence": verdict.sentence,
        "file": verdict.file,
        "line": verdict.line,
        "follows": verdict.follows,
        "acks": verdict.acks,
        "payees": [{"payee": lines[0].payee, "cents": paid}] if lines else [],
        "leaves": [
            {
                "leaf": place,
                "platform": peer_id(line.platform),
                "month": line.month,
                "share_cents": line.share_cents,
                "paid_cents": line.paid_cents,
                "held_cents": line.held_cents,
                "capped_cents": line.capped_cents,
                "proof": [each.hex() for each in proof],
            }
            for place, line, proof in zip(verdict.payee_places, lines, verdict.payee_proofs, strict=True)
        ],
    }


def sentences(verdict: Verdict) -> list[str]:
    """Say what the payee asked for gets, line by line."""
    lines = verdict.payee_lines
    if not lines:
        return []
    paid = sum(line.paid_cents for line in lines)
    return [
        f"{lines[0].payee}: {paid} cents in {len(lines)} {'leaf' if len(lines) == 1 else 'leaves'}",
        *(
            f"  leaf {place} ({line.month}, {peer_id(line.platform)}): paid {line.paid_cents}, held "
            f"{line.held_cents}, cut {line.capped_cents} cents; its proof:"
            + "".join(f"\n    {each.hex()}" for each in proof)
            for place, line, proof in zip(verdict.payee_places, lines, verdict.payee_proofs, strict=True)
        ),
    ]
