"""A verdict on a report, for scripts and in words."""

from __future__ import annotations

from ..protocol.identity import peer_id
from .verify import Verdict


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
