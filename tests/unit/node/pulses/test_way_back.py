"""The way back: several paths, any order, any repetition, lines cut at random; counted once, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from farcast.mesh import carry
from farcast.mesh.carry import PATIENCE_MS
from farcast.node.pulses import spool as spool_module
from farcast.origin.pulses.evidence import Evidence
from farcast.origin.pulses.segments import read_segments
from farcast.protocol.batch import open_ack, open_receipt
from farcast.protocol.errors import FarcastError, UnreachableError
from farcast.protocol.ticket import DAY_MS
from farcast.tests.unit.node.pulses.country import Country, Node
from farcast.tests.unit.origin.mint import (
    FIRST_DAY,
    INTAKE,
    OFFICE,
    RELAY,
    Shelf,
    Viewer,
    batch,
    open_intake,
    post,
)

SHELF = Shelf()
FILM = SHELF.add("film", {"ann": 10_000})
NOON = (FIRST_DAY + 2) * DAY_MS + 12 * 3_600_000
DAYS = range(FIRST_DAY, FIRST_DAY + 30)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let carriers tell what is new at once; their time is not the country's."""
    monkeypatch.setattr(carry, "NEWS_S", 0.0)


@pytest.fixture
def country(tmp_path: Path) -> Iterator[Country]:
    made = Country(tmp_path, open_intake(tmp_path), NOON)
    yield made
    made.close()


async def flush(country: Country, name: str) -> None:
    with suppress(FarcastError):
        await country.boxes[name].batcher.flush()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_cut_and_repeated_each_pulse_comes_home_once(country: Country, seed: int) -> None:
    random = Random(seed)
    nodes = [country.node(name) for name in ("ann", "bob", "cleo")]
    relays = [country.relay("north", RELAY), country.relay("south")]
    for node in nodes:
        node.neighbours = [other.name for other in nodes if other is not node]
    viewers = [Viewer(number) for number in range(3)]
    names = [box.name for box in (*nodes, *relays)]
    everything: list[bytes] = []
    for minute in range(30):
        country.now_ms = NOON + minute * 60_000
        country.lines = {
            name: {other for other in (*names, "origin") if other != name and random.random() < 0.3}
            for name in names
        }
        for node, viewer in zip(nodes, viewers, strict=True):
            pulse = viewer.beat(FILM, country.now_ms - viewer.day * DAY_MS, 60_000)
            node.file(viewer, [pulse])
            everything.append(pulse)
        for box in random.sample(names, len(names)):
            if box in ("north", "south"):
                await flush(country, box)
            else:
                one = country.boxes[box]
                assert isinstance(one, Node)
                await one.courier.errand()
                await one.porter.errand()
    for node, viewer in zip(nodes, viewers, strict=True):
        known = country.intake.acks_for([viewer.tid], country.now_ms)
        acked = open_ack(known[0], [INTAKE.key]).tids[0] if known else None
        here = node.spool.numbers().get(viewer.tid)
        stored = set(range(1, acked.upto + 1)) | set(acked.extra) if acked else set[int]()
        assert set(range(1, 31)) <= stored | set(here.all if here else ()), "nothing left but by the ack"
    country.lines = {name: {*names, "origin"} - {name} for name in names}
    for hour in range(1, 5):
        country.now_ms = NOON + 1_800_000 + hour * 3_600_000
        for node in nodes:
            await node.courier.errand()
            await node.porter.errand()
        await flush(country, "north")
        await flush(country, "south")
    counts = country.intake.counts()
    assert (counts.accepted, counts.rejected) == (len(everything), {})
    assert [box.held() for box in country.boxes.values()] == [0] * 5
    assert all(len(node.spool.proofs()) >= 1 for node in nodes)
    assert [node.spool.receipts() for node in nodes] == [[], [], []]


async def test_a_promise_deletes_nothing_and_is_kept_until_the_origin_has_spoken(country: Country) -> None:
    ann, relay = country.node("ann"), country.relay("north", RELAY)
    viewer = Viewer(1)
    ann.file(viewer, viewer.watch(FILM, 3))
    country.connect(("ann", "north"))
    await ann.courier.errand()
    assert (ann.held(), relay.held()) == (4, 4)
    [receipt] = ann.spool.receipts()
    assert open_receipt(receipt).carrier == RELAY.key
    country.connect(("north", "origin"))
    await relay.batcher.flush()
    assert (ann.held(), relay.held()) == (4, 0)
    country.now_ms += 60_000
    await ann.courier.errand()
    assert (ann.held(), ann.spool.receipts(), len(ann.spool.proofs())) == (0, [], 1)


async def test_a_relay_cut_off_from_the_origin_has_its_batches_brought_there_by_another(
    country: Country, tmp_path: Path
) -> None:
    ann = country.node("ann")
    north, south = country.relay("north", RELAY), country.relay("south")
    viewer = Viewer(1)
    ann.file(viewer, viewer.watch(FILM, 3, from_ms=12 * 3_600_000 - 180_000))
    country.connect(("ann", "north"), ("north", "south"), ("south", "origin"))
    await ann.courier.errand()
    with pytest.raises(UnreachableError):
        await north.batcher.flush()
    assert (len(south.spool.carried(9)), south.held(), north.held()) == (1, 0, 4)
    country.now_ms += 6 * 3_600_000
    assert await south.batcher.flush() == 1
    assert south.spool.carried(9) == []
    country.now_ms -= 6 * 3_600_000  # within the hour the other relay is asked, not given it again
    with pytest.raises(UnreachableError):
        await north.batcher.flush()
    assert (north.held(), north.spool.open_batches()) == (0, [])
    facts = Evidence(read_segments(tmp_path / "intake" / "seg"), OFFICE, DAYS).facts(
        9, DAYS, SHELF.manifests.get
    )
    assert {fact.received_ms for fact in facts} == {NOON}, "the first relay's stamp counts, not the carrier's"


async def test_a_batch_of_a_stranger_is_taken_pulse_by_pulse_and_one_with_a_forgery_not_whole(
    country: Country,
) -> None:
    north = country.relay("north", RELAY)
    viewer, stranger = Viewer(1), country.node("stranger")
    pulses = viewer.watch(FILM, 3)
    data = batch(stranger.identity, [viewer], pulses[:2], [NOON, NOON])
    assert country.answer("north", "/v1/pulses", data).status == 202
    assert (north.held(), north.spool.carried(9)) == (2, [])
    forged = batch(RELAY, [], pulses, [NOON] * 4)
    with pytest.raises(FarcastError) as caught:
        country.answer("north", "/v1/pulses", forged)
    assert caught.value.reason == "bad_batch"
    assert north.spool.carried(9) == []


async def test_two_bodies_under_one_number_both_reach_the_origin_as_evidence(country: Country) -> None:
    ann, bob = country.node("ann"), country.node("bob")
    honest, twin = Viewer(1), Viewer(1)
    country.connect(("ann", "bob"), ("bob", "origin"))
    ann.neighbours = ["bob"]
    await bob.courier.errand()  # so that he knows that he has an uplink
    ann.file(honest, [honest.beat(FILM, 0, 0)])
    await ann.porter.errand()
    assert bob.held() == 1
    ann.file(twin, [twin.beat(FILM, 1_000, 0)])
    await ann.porter.errand()
    assert bob.held() == 2
    await bob.courier.errand()
    counts = country.intake.counts()
    assert (counts.accepted, counts.rejected) == (1, {"equivocation": 1})


async def test_what_a_neighbour_has_is_never_sent_to_it_again(country: Country) -> None:
    ann, bob, cleo = country.node("ann"), country.node("bob"), country.node("cleo")
    viewer = Viewer(1)
    ann.file(viewer, viewer.watch(FILM, 60))
    country.connect(("ann", "bob"), ("ann", "cleo"), ("bob", "cleo"))
    ann.neighbours, bob.neighbours = ["bob", "cleo"], ["cleo"]
    for _ in range(3):
        await ann.porter.errand()
        await bob.porter.errand()
    assert {path for _, _, path, _ in country.requests} == {"/v1/beacons"}, "a way may come within the day"
    for _ in range(3):
        country.now_ms += PATIENCE_MS
        await ann.porter.errand()
        await bob.porter.errand()
    assert (bob.held(), cleo.held()) == (61, 61)
    posts = [(start, end) for start, end, path, _ in country.requests if path == "/v1/pulses"]
    assert sorted(posts) == [("ann", "bob"), ("ann", "cleo")], "bob compared with cleo and sent nothing"


async def test_a_ticket_over_its_quota_holds_up_no_other(
    country: Country, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "TID_PULSES", 4)
    ann, relay = country.node("ann"), country.relay("north", RELAY)
    greedy, honest = Viewer(1), Viewer(2)
    relay.reception.take(post([greedy], greedy.watch(FILM, 3)))
    ann.file(greedy, greedy.watch(FILM, 3, from_ms=7_200_000))
    ann.file(honest, honest.watch(FILM, 3))
    country.connect(("ann", "north"))
    await ann.courier.errand()
    assert set(relay.spool.numbers()[honest.tid].all) == {1, 2, 3, 4}
    assert relay.spool.numbers()[greedy.tid].all == [1, 2, 3, 4]
