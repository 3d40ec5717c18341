# pyright: reportPrivateUsage=false
"""What a box makes of what it hears by radio: it looks sooner, is known to be fresh, or counts a refusal."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from farcast.node.catalog.replica import Replica
from farcast.node.radio import OWN_LIMIT, RECENT, Body, Radio, heard
from farcast.node.settings import Settings
from farcast.protocol.identity import Identity
from farcast.protocol.keyring import Keyring
from farcast.protocol.note import Checkpoint, compact, seal
from farcast.protocol.radio import head_datagram, waybill_datagram
from farcast.tests.unit.node.catalog.test_replica import NAME, ORIGIN, RING, heads
from farcast.tests.unit.origin.mint import Viewer, batch

RELAY, NODE, STRANGER = (Identity(letter * 32) for letter in (b"r", b"n", b"s"))
ANN = Viewer(1)
PULSES = ANN.watch(b"m" * 32, 20)[:20]


def nothing(most: int) -> list[tuple[int, bytes]]:
    """Return the batches that wait on a box where none does."""
    del most
    return []


class Listener:
    """A node with three entries that listens."""

    def __init__(self, folder: Path, ring: Keyring | None = RING) -> None:
        self.replica, self.looks = Replica(folder, lambda: RING), list[str]()
        entries, notes = heads(3)
        self.replica.advance(notes[-1], 0, entries)
        self.registry = CollectorRegistry()
        body = Body(
            NODE, b"net of 8", self.replica, lambda: ring, nothing, RELAY.key.__eq__, lambda: 7
        )  # fmt: skip
        self.radio = Radio(
            body,
            Settings.load(None, {}).reticulum,
            self.registry,
            look=lambda: self.looks.append("look"),
            advance=lambda note: self.replica.advance(note, self.replica.catalog.size, []),
        )

    def count(self, result: str) -> float:
        """Return how much that was heard ended so."""
        return self.registry.get_sample_value("farcast_node_radio_heard_total", {"result": result}) or 0.0


def head(size: int, root: bytes, time_ms: int) -> bytes:
    """Return a head as it goes by radio."""
    return head_datagram(compact(seal(Checkpoint(NAME, size, root, time_ms), NAME, ORIGIN), NAME, ORIGIN.key))


async def test_a_head_of_the_same_size_proves_how_fresh_the_catalog_is(tmp_path: Path) -> None:
    node = Listener(tmp_path)
    node.radio.hear(head(3, node.replica.catalog.root, 9_000))
    await node.radio._freshen()
    assert (node.replica.signed_ms, node.looks) == (9_000, [])
    node.radio.hear(head(3, node.replica.catalog.root, 8_000))
    assert node.count("known") == 1, "an older one, recorded and said again"
    node.radio.hear(head(3, b"x" * 32, 9_500))
    await node.radio._freshen()
    assert node.count("equivocation") == 1
    assert node.replica.signed_ms == 9_000, "another catalog of that size is taken from nobody"


async def test_a_larger_one_makes_it_look_and_is_told_on(tmp_path: Path) -> None:
    node = Listener(tmp_path)
    larger = head(9, b"y" * 32, 9_000)
    node.radio.hear(larger)
    assert (node.looks, node.radio.facts["behind"]) == (["look"], 6)
    assert node.radio._items([])[0].datagram == larger
    assert heard(node.radio.facts) == ["a catalog with 6 more entries is out", "does not run"]
    node.radio.hear(larger)
    assert node.count("repeat") == 1


async def test_waybills_are_of_relays_and_only_shown(tmp_path: Path) -> None:
    node = Listener(tmp_path)
    ours, theirs = (
        waybill_datagram(batch(carrier, [ANN], PULSES, [1_000] * 20, 1), carrier)
        for carrier in (RELAY, STRANGER)
    )
    node.radio.hear(ours)
    node.radio.hear(theirs)
    assert [one["pulses"] for one in node.radio.facts["waiting"]] == [20]
    assert (node.count("news"), node.count("stranger")) == (1, 1)
    assert [item.datagram for item in node.radio._items([])][1:] == [ours], "after its own head"
    for number in range(2 * RECENT):
        node.radio.hear(number.to_bytes(4))
    assert len(node.radio._recent) == RECENT
    assert node.count("malformed") == 2 * RECENT


async def test_no_more_batches_are_read_than_are_told_of(tmp_path: Path) -> None:
    node, asked = Listener(tmp_path), list[int]()

    def waiting(most: int) -> list[tuple[int, bytes]]:
        asked.append(most)
        return [(number, batch(NODE, [ANN], PULSES[:1], [1_000], number)) for number in range(1, most + 1)]

    node.radio._body = node.radio._body._replace(open_batches=waiting)
    assert len(node.radio._own_waybills()) == OWN_LIMIT
    assert asked == [OWN_LIMIT]


async def test_without_keys_nothing_is_believed(tmp_path: Path) -> None:
    node = Listener(tmp_path, None)
    node.radio.hear(head(9, b"y" * 32, 9_000))
    assert (node.count("no_keys"), node.radio.facts["behind"]) == (1, 0)
