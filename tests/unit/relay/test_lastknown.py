"""What a relay says while the origin is away: its last catalog, counted, and how old it is."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.catalog.replica import Replica, catalog_name
from farcast.protocol.catalog import Catalog, Entry
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import Checkpoint, seal
from farcast.relay.lastknown import LastKnown
from farcast.tests.unit.node.reel import ORIGIN

SIGNED_MS = 1_700_000_000_000
KEYS = [ORIGIN.key]
KEYRING = Keyring(1, "test", ORIGIN.key, KEYS, KEYS, KEYS, KEYS, KEYS, [], [])


class Away:
    """A relay's heads, an origin that can go away, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.away = False
        self.now_ms = SIGNED_MS
        self.registry = CollectorRegistry()
        self.folder = folder
        self.replica = Replica(folder, lambda: KEYRING)
        self.heads = LastKnown(self.replica, lambda: self.away, lambda: self.now_ms, self.registry)

    def follow(self) -> None:
        """Accept a catalog of one title."""
        catalog = Catalog()
        catalog.append(Entry(1, "publish", "film", Cid.of(RAW, b"film").encode(), SIGNED_MS))
        name = catalog_name(KEYRING)
        head = Checkpoint(name, catalog.size, catalog.root, SIGNED_MS)
        self.replica.advance(seal(head, name, ORIGIN), 0, catalog.entries)

    def stale(self, kind: str) -> float:
        """Return how many answers of a kind were counted as stale."""
        return self.registry.get_sample_value("farcast_relay_stale_answers_total", {"kind": kind}) or 0.0

    def age_s(self) -> float | None:
        """Return the gauge."""
        return self.registry.get_sample_value("farcast_relay_checkpoint_age_seconds")


def test_answers_are_counted_only_while_the_origin_is_away(tmp_path: Path) -> None:
    made = Away(tmp_path)
    assert made.heads.checkpoint() is None
    made.follow()
    assert made.heads.checkpoint() == made.replica.checkpoint()
    assert made.stale("checkpoint") == 0
    made.away, made.now_ms = True, SIGNED_MS + 600_000
    assert made.heads.checkpoint() == made.replica.checkpoint()
    assert made.heads.directory() is None
    assert made.heads.beacons() == []
    assert (made.stale("checkpoint"), made.stale("directory"), made.stale("beacons")) == (1, 0, 0)
    assert made.heads.facts() == {"entries": 1, "checkpoint_age_s": 600, "stale": True}


def test_the_age_is_a_gauge_and_outlives_a_restart(tmp_path: Path) -> None:
    made = Away(tmp_path)
    assert made.age_s() == 0.0
    made.follow()
    made.now_ms += 42_000
    assert made.age_s() == 42.0
    again = Away(tmp_path)
    again.replica.load()
    again.now_ms += 50_000
    assert again.age_s() == 50.0
