"""The follower: what falls from the sky adds up to the catalog, in whatever bundles it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.catalog.follow import Follower
from farcast.node.catalog.replica import Replica, catalog_name
from farcast.node.http.exchange import Exchange, Router
from farcast.node.routes import PublicRoutes
from farcast.protocol.beacon import HOUR_MS, seal_beacon
from farcast.protocol.catalog import Catalog, Entry, Page
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import encode
from farcast.protocol.directory import Directory, seal_directory
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import Checkpoint, seal
from farcast.protocol.ports import Reply, Source, TierName

ORIGIN = Identity(b"\1" * 32)
KEYS = [ORIGIN.key]
RING = Keyring(1, "Acme", ORIGIN.key, KEYS, KEYS, KEYS, KEYS, KEYS, [], [])
NAME = catalog_name(RING)
ENTRIES, PAGE = 10, 4


class Keys:
    """Trust as the follower sees it: the keyring is there once a trust file was."""

    def __init__(self, *, known: bool) -> None:
        self.keyring = RING if known else None
        self._wanted = False

    def offer(self, name: str, data: bytes) -> bool:
        """Take a file."""
        del name, data
        self._wanted = self.keyring is None
        return True

    def wants(self, offered: object) -> bool:
        """Say whether a refresh would help."""
        del offered
        return self._wanted

    async def refresh(self) -> None:
        """Learn the keyring."""
        self.keyring = RING


class Shelf:
    """A library with no titles to learn."""

    def titles(self) -> list[str]:
        """Return none."""
        return []


class Ground:
    """A follower that hears bundles."""

    def __init__(self, folder: Path, *, known: bool = True, upstream: Upstream | None = None) -> None:
        self.replica = Replica(folder, lambda: RING)
        nobody = cast("Any", None)
        self.follower = Follower(
            self.replica,
            cast("Any", Keys(known=known)),
            cast("Any", Shelf()),
            cast("Any", upstream),
            lambda: [Source(TierName.RELAY, "relay", "relay:1", ORIGIN.key)] if upstream else [],
            nobody,
            CollectorRegistry(),
        )

    async def hear(self, *bundle: tuple[str, str, bytes]) -> int:
        """Take a bundle's items; returns how many entries the catalog has then."""
        for kind, name, data in bundle:
            self.follower.offer(kind, name, data)
        await self.follower.digest_offers()
        return self.replica.catalog.size


def on_air(count: int = ENTRIES, at_ms: int = 1) -> list[tuple[str, str, bytes]]:
    """Return the checkpoint and the pages of a catalog of ``count`` entries."""
    catalog = Catalog()
    for number in range(count):
        catalog.append(Entry(1, "publish", f"film-{number}", Cid.of(RAW, bytes([number])).encode(), number))
    note = seal(Checkpoint(NAME, catalog.size, catalog.root, at_ms), NAME, ORIGIN)
    pages = [Page(1, start, catalog.entries[start : start + PAGE]) for start in range(0, count, PAGE)]
    return [("checkpoint", "", note), *(("entries", str(page.start), encode(page)) for page in pages)]


async def test_pages_that_come_in_several_bundles_add_up_to_the_catalog(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    note, *pages = on_air()
    assert await ground.hear(note, pages[0]) == 0
    assert await ground.hear(pages[2]) == 0
    assert await ground.hear(pages[1]) == ENTRIES


async def test_a_later_checkpoint_needs_only_the_page_that_grew(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    assert await ground.hear(*on_air(6)) == 6
    note, *pages = on_air(7, at_ms=2)
    assert await ground.hear(note, pages[-1]) == 7
    assert await ground.hear(on_air(7, at_ms=3)[0]) == 7
    assert ground.replica.checkpoint() == on_air(7, at_ms=3)[0][2]


async def test_what_came_before_the_keys_is_used_once_and_never_waits(tmp_path: Path) -> None:
    ground = Ground(tmp_path, known=False)
    note, *pages = on_air()
    forged = ("entries", "0", encode(Page(1, 0, [b"forged"])))
    assert await ground.hear(forged, *pages[1:]) == 0
    assert await ground.hear(("trust", "timestamp.json", b"{}"), forged, note) == 0
    assert await ground.hear(note, *pages) == ENTRIES


@pytest.mark.parametrize("junk", [b"", b"\xc1", encode(Page(1, 99, [b"x"]))])
async def test_a_page_that_is_none_stops_nothing(tmp_path: Path, junk: bytes) -> None:
    ground = Ground(tmp_path)
    note, *pages = on_air()
    assert await ground.hear(("entries", "junk", junk), *pages) == 0
    assert await ground.hear(note) == ENTRIES


class Upstream:
    """A box that follows the origin already, asked through its router; remembers what it answered."""

    def __init__(self, replica: Replica) -> None:
        nobody = cast("Any", None)
        routes = PublicRoutes(nobody, nobody, replica, nobody, dict, lambda _: [], cors=False)
        self.router = Router(lambda _: True)
        routes.add_to(self.router)
        self.spoils = False
        self.answers: list[tuple[str, int, int]] = []
        self.asked = set[str]()

    async def request(
        self, source: Source, method: str, path: str, *, headers: dict[str, str], **_: object
    ) -> Reply:
        """Answer one request; where somebody is on the way, nothing in the clear arrives as it was."""

        async def body(_: int) -> bytes:
            return b""

        exchange = Exchange.of(method, path, {"host": "relay", **headers}, peer="", secure=True, reader=body)
        answer = await self.router.handle(exchange)
        assert isinstance(answer.body, bytes)
        self.answers.append((path, answer.status, len(answer.body)))
        self.asked.add(source.address)
        spoilt = answer.body[:-1] if self.spoils and not source.key else answer.body
        return Reply(answer.status, answer.headers, spoilt)


async def test_what_is_the_same_everywhere_is_not_sent_again(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "above")
    await ground.hear(*on_air())
    ground.replica.accept_directory(seal_directory(Directory(1, 5, 9, []), ORIGIN))
    for hour in range(3):
        ground.replica.accept_beacon(seal_beacon(hour * HOUR_MS, bytes(32), ORIGIN))
    upstream = Upstream(ground.replica)
    below = Ground(tmp_path / "below", upstream=upstream)
    assert await below.follower.refresh()
    assert below.replica.catalog.size == ENTRIES
    assert below.replica.beacons() == ground.replica.beacons()
    upstream.answers.clear()
    assert await below.follower.refresh()
    assert [(status, size) for _, status, size in upstream.answers] == [(304, 0)] * 3
    await ground.hear(on_air(at_ms=9)[0])
    upstream.answers.clear()
    assert await below.follower.refresh()
    assert [status for _, status, _ in upstream.answers] == [200, 304, 304]
    assert below.replica.checkpoint() == ground.replica.checkpoint()


async def test_what_is_signed_comes_in_the_clear_unless_somebody_spoils_it(tmp_path: Path) -> None:
    ground = Ground(tmp_path / "above")
    await ground.hear(*on_air())
    ground.replica.accept_directory(seal_directory(Directory(1, 5, 9, []), ORIGIN))
    upstream = Upstream(ground.replica)
    below = Ground(tmp_path / "below", upstream=upstream)
    assert await below.follower.refresh()
    assert upstream.asked == {"http://relay:1"}
    upstream.spoils = True
    await ground.hear(*on_air(ENTRIES + 1, at_ms=9))
    assert await below.follower.refresh()
    assert below.replica.catalog.size == ENTRIES + 1
    assert upstream.asked == {"http://relay:1", "relay:1"}
    upstream.asked.clear()
    assert await below.follower.refresh()
    assert upstream.asked == {"relay:1"}, "it is left alone for a while"
