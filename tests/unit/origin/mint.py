"""A small real origin for tests of money: tickets, viewers that sign pulses, titles, relays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry

from farcast.origin.money.closing import Closing
from farcast.origin.money.ledger import Ledger
from farcast.origin.pulses.intake import Intake
from farcast.protocol.batch import Ack, Batch, PulsePost, open_ack, pulses_root, seal_parcel
from farcast.protocol.codec import encode
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.ports import TierName
from farcast.protocol.pulse import ACTIVE, START, PulseSigner, Served, Viewing
from farcast.protocol.rules import Rules
from farcast.protocol.ticket import DAY_MS, Holder, TicketOffice

TICKET = Identity(b"\x11" * 32)
INTAKE = Identity(b"\x12" * 32)
SETTLEMENT = Identity(b"\x13" * 32)
PUBLISHER = Identity(b"\x14" * 32)
RELAY = Identity(b"\x15" * 32)
CARRIER = Identity(b"\x16" * 32)
SECRET = b"\x17" * 32
MONTH = "2026-11"
FIRST_DAY = 20_758
"""2026-11-01 in UTC days since 1970."""
FIRST_MS = FIRST_DAY * DAY_MS
CLOSE_MS = (FIRST_DAY + 30) * DAY_MS + 300_000
OFFICE = TicketOffice(TICKET, SECRET)


def account(number: int) -> bytes:
    """Return the pseudonym of account ``number``."""
    return number.to_bytes(16, "big")


@dataclass
class Shelf:
    """The titles of an origin, by the digest of their manifest."""

    manifests: dict[bytes, Manifest] = field(default_factory=dict[bytes, Manifest])

    def add(
        self, title: str, payees: dict[str, int], *, publisher: Identity = PUBLISHER, size_bytes: int = 10**9
    ) -> bytes:
        """Publish a title and return its digest."""
        block = sha256(title.encode()).digest()
        manifest = Manifest(
            1, title, 1, publisher.key, title, "", "en", 60_000, b"\x01\x70\x12\x20" + block, size_bytes, [],
            [], Window(0, 0), [], [Payee(name, points) for name, points in payees.items()], "open", None, 0,
            b"",
        )  # fmt: skip
        _, data = seal_manifest(manifest, publisher)
        digest = sha256(data).digest()
        self.manifests[digest] = manifest
        return digest


class Viewer:
    """One device of an account under one day's ticket."""

    def __init__(self, number: int, day: int = FIRST_DAY + 2, *, device: int = 0, salt: int = 0) -> None:
        seed = sha256(f"{number} {day} {device} {salt}".encode()).digest()
        self.session = Identity(seed)
        self.tid = sha256(seed).digest()[:16]
        self.day = day
        grant = OFFICE.issue(self.tid, day, self.session.key, Holder(account(number), device))
        self.ticket = grant.ticket
        self.signer = PulseSigner(grant.ticket, grant.key, self.session)
        self.pulses: list[bytes] = []

    def beat(
        self,
        manifest: bytes,
        at_ms: int,
        delta_ms: int,
        *,
        state: int = ACTIVE,
        kbytes: int = 0,
        beacon: int = 0,
    ) -> bytes:
        """Sign one pulse; ``at_ms`` counts from the ticket's day."""
        served = [Served(TierName.RELAY, RELAY.key[:16], kbytes)] if kbytes else []
        viewing = Viewing(state, manifest, 0, 0, served, bytes(16))
        pulse = self.signer.sign(self.day * DAY_MS + at_ms, delta_ms, beacon, viewing)
        self.pulses.append(pulse)
        return pulse

    def watch(self, manifest: bytes, minutes: int, *, from_ms: int = 3_600_000) -> list[bytes]:
        """Sign a start and one pulse a minute; returns the new ones."""
        before = len(self.pulses)
        self.beat(manifest, from_ms, 0, state=START)
        for minute in range(1, minutes + 1):
            self.beat(manifest, from_ms + minute * 60_000, 60_000)
        return self.pulses[before:]


def post(viewers: Sequence[Viewer], pulses: Sequence[bytes]) -> bytes:
    """Return a plain post."""
    return encode(PulsePost(1, [viewer.ticket for viewer in viewers], list(pulses)))


def batch(
    carrier: Identity,
    viewers: Sequence[Viewer],
    pulses: Sequence[bytes],
    received_ms: Sequence[int],
    number: int = 1,
) -> bytes:
    """Return a carrier's signed batch."""
    tickets = [viewer.ticket for viewer in viewers]
    parts = Batch(
        1, carrier.key, number, bytes(32), min(received_ms), max(received_ms), pulses_root(list(pulses)),
        tickets, list(received_ms),
    )  # fmt: skip
    return seal_parcel(parts, list(pulses), carrier)


def open_intake(
    folder: Path,
    registry: CollectorRegistry | None = None,
    *,
    verify: Literal["eager", "chained"] = "eager",
    revoked: Mapping[bytes, int] | None = None,
) -> Intake:
    """Open the intake of the origin in ``folder``."""
    return Intake(
        folder / "intake",
        OFFICE,
        lambda: [TICKET.key],
        INTAKE,
        lambda key: key == RELAY.key,
        registry or CollectorRegistry(),
        verify=verify,
        revoked=revoked,
    )


def read(ack: bytes) -> Ack:
    """Open an ack with the intake key."""
    return open_ack(ack, [INTAKE.key])


def closing(folder: Path, ledger: Ledger, shelf: Shelf, rules: Rules | None = None) -> Closing:
    """Return what closes months of the origin in ``folder``."""
    return Closing(
        folder / "intake",
        ledger,
        folder / "reports",
        OFFICE,
        SETTLEMENT,
        shelf.manifests.get,
        lambda: {RELAY.key: RELAY.key},
        lambda _: rules or Rules(),
    )
