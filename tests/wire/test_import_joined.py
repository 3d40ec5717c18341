"""A relay that has joined an origin also serves what its operator imported, beside the origin's titles."""

from __future__ import annotations

from pathlib import Path

from farcast.protocol import car
from farcast.protocol.cid import RAW, Cid
from farcast.tests.interop.trustless import Relay
from farcast.tests.wire.conftest import Town

BLOCKS = [(Cid.of(RAW, bytes([number]) * 3_000), bytes([number]) * 3_000) for number in range(5)]


def test_a_joined_relay_imports_while_it_runs(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "extra.car"
    path.write_bytes(car.header([BLOCKS[0][0]]) + b"".join(car.section(*block) for block in BLOCKS))
    relay = Relay(town.relay.port, town.relay.home, town.relay.process.pid)
    assert relay.ask(f"/ipfs/{BLOCKS[0][0]}?format=raw").status == 404  # no catalog root reaches it
    told = town.street.must("relay", "import", path, "--home", town.relay.home)
    assert (told["label"], told["roots"], told["new_blocks"]) == ("extra", [str(BLOCKS[0][0])], 5)
    for cid, data in BLOCKS:
        assert relay.ask(f"/ipfs/{cid}?format=raw").body == data
    assert relay.ask(f"/ipfs/{BLOCKS[0][0]}?format=car").blocks == [str(BLOCKS[0][0])]


def test_a_joined_relay_fills_a_car_for_get_alone(town: Town) -> None:
    relay = Relay(town.relay.port, town.relay.home, town.relay.process.pid)
    root = str(town.published["root_cid"])
    reply = relay.ask(f"/ipfs/{root}?format=car")
    assert (reply.status, reply.blocks[0]) == (200, root)
    assert len(reply.blocks) > 10
    head = relay.ask(f"/ipfs/{root}?format=car", "HEAD", Cache_Control="only-if-cached")
    assert (head.status, head.headers["etag"]) == (200, reply.headers["etag"])
    part = relay.ask(f"/ipfs/{root}/master.m3u8?format=car&dag-scope=entity")
    assert set(part.blocks) <= set(reply.blocks)
