"""A store on a disk that is full: a sentence and a metric, and every block that is there stays whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMALL_DISK = """
mount -t tmpfs -o size=96m tmpfs "$DISK" || exit 77
exec "$PYTHON" -c "$WORK" "$DISK"
"""

WORK = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.blocks.store import SPARE_BYTES, DiskStore
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import StoreFullError
disk = Path(sys.argv[1])

def block(number):
    data = number.to_bytes(4, "big") * (1 << 18)
    return Cid.of(RAW, data), data

def refused(registry):
    return registry.get_sample_value("farcast_node_store_refused_blocks_total", {"reason": "disk_full"})

def whole(store):
    held = store.cids()
    assert all(store.check(cid) for cid in held)
    files = [path for path in (disk / "blocks").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {str(cid) for cid in held}
    return len(held)

def fails(work):
    try:
        work()
    except StoreFullError as error:
        assert error.reason == "disk_full", error
        assert "make room on it" in str(error), error
        return
    raise AssertionError("it found room")

# a cache makes room for what is new, and leaves the databases what they need
registry = CollectorRegistry()
store = DiskStore(disk, 1 << 30, registry)
for number in range(60):
    store.put(*block(number))
assert 20 < whole(store) < 32, whole(store)
assert store.has(block(59)[0])
import shutil
assert shutil.disk_usage(disk).free >= SPARE_BYTES - (2 << 20)

# what is pinned stays, and what is new is refused, alone and in a batch
store.pin("film", store.cids())
kept = whole(store)
fails(lambda: store.put(*block(100)))
def many():
    with store.batch() as batch:
        for number in range(100, 140):
            batch.put(*block(number))
fails(many)
assert whole(store) == kept
before = refused(registry)
assert before >= 2

# somebody else takes the very last byte: nothing breaks, in this life or the next
def fill():
    with open(disk / "other", "ab", buffering=0) as other:
        try:
            while other.write(bytes(65_536)):
                pass
        except OSError:
            pass
fill()
fails(lambda: store.put(*block(200)))
assert refused(registry) > before
assert whole(store) == kept
for work in (lambda: store.unpin("film"), lambda: store.put(*block(201)), store.sync, store.close):
    try:
        work()
    except StoreFullError as error:
        assert error.reason == "disk_full" and "make room" in str(error), error
    if work != store.close:
        whole(store)
    fill()
(disk / "other").unlink()
store = DiskStore(disk, 1 << 30, CollectorRegistry())
assert whole(store) >= kept - 1
store.unpin("film")
for number in range(300, 310):
    assert store.put(*block(number))
assert all(store.get(block(number)[0]) for number in range(300, 310))
store.close()
print("done")
"""


def test_a_full_disk_refuses_with_a_sentence_and_never_corrupts(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install util-linux")
    facts = {"DISK": str(tmp_path), "PYTHON": sys.executable, "WORK": WORK}
    done = subprocess.run(
        ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "bash", "-c", SMALL_DISK],
        capture_output=True,
        text=True,
        env={**os.environ, **facts, "PYTHONPATH": str(ROOT / ".src")},
        timeout=60,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.stdout == "done\n", done.stderr
