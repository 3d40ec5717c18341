"""How often a block asked for is here: S3-FIFO against the least recently used, on seeded traces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.s3fifo import S3Fifo
from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid

Request = tuple[int, int]
"""The number of a block and its bytes."""


def trace(seed: int, requests: int, blocks: int, scan_blocks: int) -> Iterator[Request]:
    """Yield requests for popular blocks (Zipf, exponent 0.9), with long films played once in between."""
    random = Random(seed)
    sizes = [random.randrange(200, 1_000) for _ in range(blocks)]
    weights = [1 / rank**0.9 for rank in range(1, blocks + 1)]
    popular = random.choices(range(blocks), weights, k=requests)
    scanned = blocks
    for at, number in enumerate(popular):
        yield number, sizes[number]
        if at % (requests // 10) == requests // 20:
            for _ in range(scan_blocks):
                scanned += 1
                yield scanned, 1_000


class Recent:
    """The least recently used leave first, size-aware."""

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.held_bytes = 0
        self.held: OrderedDict[int, int] = OrderedDict()

    def ask(self, number: int, size_bytes: int) -> bool:
        """Say whether it is here; it is afterwards."""
        if number in self.held:
            self.held.move_to_end(number)
            return True
        self.held[number] = size_bytes
        self.held_bytes += size_bytes
        while self.held_bytes > self.quota_bytes:
            self.held_bytes -= self.held.popitem(last=False)[1]
        return False


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("quota_bytes", [150_000, 600_000])
def test_s3_fifo_has_more_of_what_is_asked_for_than_lru(seed: int, quota_bytes: int) -> None:
    fifo, recent = S3Fifo[int](quota_bytes), Recent(quota_bytes)
    hits = recent_hits = asked = 0
    for number, size in trace(seed, 40_000, 4_000, 800):
        asked += 1
        recent_hits += recent.ask(number, size)
        if fifo.hit(number):
            hits += 1
        else:
            fifo.insert(number, size)
        assert fifo.held_bytes <= quota_bytes
    assert hits / asked > 1.05 * recent_hits / asked


def test_a_store_on_disk_has_more_of_what_is_asked_for_than_lru(tmp_path: Path) -> None:
    quota_bytes = 30_000
    store, recent = DiskStore(tmp_path, quota_bytes, CollectorRegistry()), Recent(quota_bytes)
    hits = recent_hits = 0
    for number, size in trace(1, 1_500, 300, 60):
        data = number.to_bytes(4, "big") + bytes(size - 4)
        cid = Cid.of(RAW, data)
        recent_hits += recent.ask(number, size)
        if store.path(cid):
            hits += 1
        else:
            store.put(cid, data, hashed=True)
        assert store.held_bytes <= quota_bytes
    store.close()
    assert hits > 1.05 * recent_hits
