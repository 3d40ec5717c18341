"""A lived-in origin for tests: published, watched, booked and settled, through its own office."""

from __future__ import annotations

import shutil
from pathlib import Path

from msgspec.structs import replace

from farcast.node.report import quiet
from farcast.node.settings import Settings
from farcast.origin.keys import init
from farcast.origin.office import Office
from farcast.origin.publish import pin_label
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.directory import Endpoint
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Window, seal_manifest
from farcast.protocol.pulse import ACTIVE, START, PulseSigner, Viewing
from farcast.protocol.ticket import DAY_MS, Holder
from farcast.tests.unit.origin.mint import CLOSE_MS, FIRST_DAY, FIRST_MS, MONTH

PASSPHRASE = "correct horse battery"
PERSON = "Wilhelmine von Entenhausen"


def bear(home: Path) -> None:
    """Make an origin; that takes a while, because it stretches a passphrase."""
    init(home, "Acme", [Endpoint("films.example", 7433, False)], PASSPHRASE, FIRST_MS / 1_000)


def open_office(home: Path, **settings: str) -> Office:
    """Open the office of a home, at the time when the month may be settled; ``settings`` as FARCAST_..."""
    given = {f"FARCAST_{name}": text for name, text in settings.items()}
    return Office(home, Settings.load(home, given), lambda: CLOSE_MS + 1)


def live(template: Path, home: Path, **settings: str) -> Path:
    """Copy a fresh origin to ``home`` and let a month pass there; returns its report."""
    shutil.copytree(template, home)
    office = open_office(home, **settings)
    try:
        office.members.add(PERSON)
        manifest = _publish(office)
        for number in range(3):
            name = PERSON if number == 0 else f"viewer-{number}"
            if number:
                office.members.add(name)
            watch(office, manifest, office.accounts.pseudonym(name), 10 + number)
        office.money.book("revenue", 90_001, month=MONTH)
        office.money.book("cost", 12_345, month=MONTH)
        office.money.settle(MONTH)
        return Path(office.money.report(MONTH)["folder"])
    finally:
        office.close()


def watch(
    office: Office,
    manifest: bytes,
    account: bytes,
    minutes: int,
    *,
    day: int = FIRST_DAY + 2,
    late_ms: int = DAY_MS,
) -> None:
    """Let an account watch for some minutes and post its pulses to the intake so long after midnight."""
    session = Identity(account * 2)
    grant = office.treasury.tickets.issue(account, day, session.key, Holder(account, 1))
    signer = PulseSigner(grant.ticket, grant.key, session)
    pulses: list[bytes] = []
    for minute in range(minutes + 1):
        viewing = Viewing(ACTIVE if minute else START, manifest, 0, 0, [], bytes(16))
        at_ms = day * DAY_MS + 3_600_000 + minute * 60_000
        pulses.append(signer.sign(at_ms, 60_000 if minute else 0, 0, viewing))
    from farcast.protocol.batch import PulsePost

    office.treasury.intake.post(encode(PulsePost(1, [grant.ticket], pulses)), day * DAY_MS + late_ms)


def _publish(office: Office) -> bytes:
    """Publish a title whose folder is one block; returns the digest of its manifest."""
    folder = b"a folder"
    root = Cid.of(RAW, folder)
    publisher = office.keys.publisher
    manifest = Manifest(
        1, "film", 1, publisher.key, "Film", "", "en", 60_000, root.encode(), 10**9, [], [], Window(0, 0), [],
        [Payee("ada", 6_000), Payee("ben", 4_000)], "open", None, 0, b"",
    )  # fmt: skip
    _, older = seal_manifest(replace(manifest, name="Older"), publisher)
    cid, data = seal_manifest(manifest, publisher)
    for block, bytes_ in ((root, folder), (cid, data), (Cid.of(RAW, older), older)):
        office.shelf.store.put(block, bytes_)
    office.shelf.store.pin(pin_label("film", root), [root, cid])
    office.log.append("publish", "film", Cid.of(RAW, older), FIRST_MS)
    office.log.append("supersede", "film", cid, FIRST_MS + 1)
    return cid.digest


__all__ = ["PASSPHRASE", "PERSON", "bear", "live", "open_office", "quiet", "watch"]
