"""A real origin's office for tests of money: its own keys, films in its store, viewers under its tickets."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.settings import Settings
from farcast.origin.keys import init
from farcast.origin.office import Office
from farcast.protocol.batch import PulsePost
from farcast.protocol.codec import encode
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.ports import TierName
from farcast.protocol.pulse import ACTIVE, START, PulseSigner, Served, Viewing
from farcast.protocol.ticket import DAY_MS, Holder
from farcast.tests.unit.origin.mint import FIRST_DAY, RELAY, account

NOON_MS = DAY_MS // 2
MINUTE_MS = 60_000


def found(home: Path) -> None:
    """Make an origin in ``home``."""
    init(
        home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", FIRST_DAY * 86_400.0
    )


class CountingHouse:
    """The office of the origin in ``home`` at a time that stands until it is set."""

    def __init__(self, home: Path, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.now_ms = FIRST_DAY * DAY_MS
        self.registry = CollectorRegistry()
        settings = Settings.load(home, environ or {})
        self.office = Office(home, settings, lambda: self.now_ms, self.registry)
        self.bursary = self.office.bursary

    def close(self) -> None:
        """Close every file."""
        self.office.close()

    def film(self, title: str, payees: dict[str, int], size_bytes: int = 10**9) -> bytes:
        """Put a title into the store, its payees into the books; returns the digest of its manifest."""
        for payee in payees:
            self.office.payees.add(payee)
        publisher = self.office.keys.publisher
        root = b"\x01\x70\x12\x20" + sha256(title.encode()).digest()
        manifest = Manifest(
            1, title, 1, publisher.key, title, "", "en", 60_000, root, size_bytes, [], [], Window(0, 0), [],
            [Payee(name, points) for name, points in payees.items()], "open", None, 0, b"",
        )  # fmt: skip
        cid, data = seal_manifest(manifest, publisher)
        self.office.shelf.store.put(cid, data, hashed=True)
        return cid.digest

    def relay(self, relay: Identity = RELAY, payee: str = "") -> None:
        """Enrol and approve a relay."""
        endpoint = Endpoint("relay.example", 7433, False)
        record = RelayRecord(1, relay.key, [endpoint], payee, self.now_ms, self.now_ms + DAY_MS)
        self.office.roster.enrol("", relay.seal("record", record), relay.key, self.now_ms)
        self.office.roster.judge(relay.peer_id, "approved")

    def watch(
        self,
        number: int,
        title: bytes,
        minutes: int,
        *,
        day: int = FIRST_DAY,
        kbytes: int = 0,
        from_min: int = 60,
        late_ms: int = 0,
        relay: bytes = RELAY.key,
    ) -> None:
        """Let account ``number`` watch on a day; each pulse arrives at its own time, or ``late_ms`` later."""
        signed = self.sign(number, title, minutes, day=day, kbytes=kbytes, from_min=from_min, relay=relay)
        for at_ms, data in signed:
            self.office.treasury.intake.post(data, at_ms + late_ms)

    def sign(
        self,
        number: int,
        title: bytes,
        minutes: int,
        *,
        day: int = FIRST_DAY,
        kbytes: int = 0,
        from_min: int = 60,
        relay: bytes = RELAY.key,
    ) -> list[tuple[int, bytes]]:
        """Sign what account ``number`` watches: each pulse's own time, and the post that brings it."""
        session = Identity(sha256(f"{number} {day} {title.hex()} {from_min}".encode()).digest())
        tid = sha256(session.key).digest()[:16]
        grant = self.office.treasury.tickets.issue(tid, day, session.key, Holder(account(number), 0))
        signer = PulseSigner(grant.ticket, grant.key, session)
        signed: list[tuple[int, bytes]] = []
        for minute in range(minutes + 1):
            served = [Served(TierName.RELAY, relay[:16], kbytes)] if kbytes and minute else []
            viewing = Viewing(ACTIVE if minute else START, title, 0, 0, served, bytes(16))
            at_ms = day * DAY_MS + (from_min + minute) * MINUTE_MS
            pulse = signer.sign(at_ms, MINUTE_MS if minute else 0, 0, viewing)
            signed.append((at_ms, encode(PulsePost(1, [grant.ticket], [pulse]))))
        return signed
