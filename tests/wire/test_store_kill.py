"""A box killed at any moment serves no torn block and forgets nothing it promised."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.pulses.spool import DiskSpool
from farcast.protocol.batch import open_parcel
from farcast.protocol.cid import RAW, Cid

ROUNDS = 8
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60

STORE_CHILD = """
import random, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid
home, quota, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
store = DiskStore(home, quota, CollectorRegistry())
print("ready", flush=True)
while True:
    data = rng.randbytes(rng.choice([1, 5_000, 60_000, 300_000]))
    cid = Cid.of(RAW, data)
    store.put(cid, data)
    print("put", cid, flush=True)
    choice = rng.random()
    if choice < 0.2:
        print("dropping", cid, flush=True)
        store.drop(cid)
    elif choice < 0.25:
        store.sync()
    elif choice < 0.35:
        store.get(rng.choice(store.cids()))
"""

EVERY_POINT = """
import os, shutil, signal, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.errors import RemoteError
from farcast.node.blocks import batch as batches
home, quota = Path(sys.argv[1]) / "home", 25_000
in_a_batch = sys.argv[2] == "in a batch"
batches.GROUP_BLOCKS = batches.ANCHOR_BLOCKS = 2
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}

def block(number):
    data = bytes([number]) * (20_000 if number == 5 else 10_000)
    return Cid.of(RAW, data), data

def work(say):
    store = DiskStore(home, quota, CollectorRegistry())
    for number in (1, 2, 3):  # the third evicts the first
        store.put(*block(number))
        say(number)
    store.drop(block(2)[0])
    say(-2)
    store.put(*block(1))
    store.sync()
    store.put(*block(4))
    say(4)
    store.close()
    store = DiskStore(home, quota, CollectorRegistry())
    store.put(*block(5))  # evicts two in one go
    say(5)
    store.close()

def work_in_a_batch(say):
    store = DiskStore(home, quota, CollectorRegistry())
    store.put(*block(4))
    say(4)
    with store.batch() as batch:  # evicts what is there, and what its own first group brought
        for number in (6, 7, 8, 4):
            batch.put(*block(number))
    store.sync()
    say(8)
    store.close()

def die_at(point):
    left = [point]
    def hook(event, arguments):
        if event in EVENTS and str(home / "blocks") in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run(point):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        die_at(point)
        chosen = work_in_a_batch if in_a_batch else work
        chosen(lambda number: os.write(writer, number.to_bytes(1, "big", signed=True)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = [int.from_bytes([byte], "big", signed=True) for byte in said.read()]
    return os.waitpid(pid, 0)[1], words

point = 0
while True:
    point += 1
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    status, words = run(point)
    again = 0
    while not in_a_batch:  # the start after the crash is killed at every point too
        again += 1
        pid = os.fork()
        if pid == 0:
            die_at(again)
            DiskStore(home, quota, CollectorRegistry()).close()
            os._exit(0)
        if os.waitpid(pid, 0)[1] == 0:
            break
    store = DiskStore(home, quota, CollectorRegistry())
    files = {path.name: path for path in (home / "blocks").rglob("*") if path.is_file()}
    assert set(files) == {str(cid) for cid in store.cids()}, (point, files, store.cids())
    for cid in store.cids():
        place, size = store.path(cid)
        data = Path(place).read_bytes()
        assert cid.matches(data) and len(data) == size, point
    assert store.held_bytes == sum(path.stat().st_size for path in files.values()) <= quota, point
    if words and words[-1] in (1, 5, 8):
        assert store.has(block(words[-1])[0]), (point, words)
    if words == [1, 2, 3, -2]:
        assert not store.has(block(2)[0]), point
    assert store.put(*block(9)) and store.get(block(9)[0]), point
    store.close()
    if status == 0:
        print(point - 1, flush=True)
        break
"""

BATCH_CHILD = """
import random, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.blocks.store import DiskStore
from farcast.protocol.cid import RAW, Cid
home, quota, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
store = DiskStore(home, quota, CollectorRegistry())
print("ready", flush=True)
while True:
    with store.batch() as batch:
        for _ in range(rng.choice([1, 20, 70])):
            data = rng.randbytes(rng.choice([1, 5_000, 20_000]))
            cid = Cid.of(RAW, data)
            batch.put(cid, data)
            print("taken", cid, flush=True)
    store.sync()
    print("put", cid, flush=True)
"""

SPOOL_CHILD = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.pulses.spool import DiskSpool
from farcast.protocol.batch import Ack, Batch, TidAck, batch_hash, pulses_root, seal_parcel
from farcast.protocol.identity import Identity
from farcast.protocol.ports import SpooledPulse
from farcast.protocol.pulse import ACTIVE, PulseSigner, Viewing
from farcast.protocol.ticket import Holder, TicketOffice
home, seed = Path(sys.argv[1]), int(sys.argv[3])
key = Identity(bytes([seed]) * 32)
spool = DiskSpool(home / "spool.db", CollectorRegistry())
grant = TicketOffice(key, b"secret").issue(bytes([seed]) * 16, 1, key.key, Holder(bytes(16), 0))
signer = PulseSigner(grant.ticket, grant.key, key)
print("ready", flush=True)
for turn in range(200):
    pulses = []
    for _ in range(1 + turn % 7):
        data = signer.sign(1, 1, 1, Viewing(ACTIVE, bytes(32), 1, 0, [], bytes(16)))
        pulses.append(SpooledPulse(bytes([seed]) * 16, signer.seq, data, grant.ticket, 1, False))
    spool.add(pulses)
    print("added", signer.seq, flush=True)
    if turn % 3 == 2:
        number, prev = spool.next_batch()
        items = spool.unbatched(10)
        bodies = [item.pulse for item in items]
        root, times = pulses_root(bodies), [1] * len(bodies)
        data = seal_parcel(Batch(1, key.key, number, prev, 1, 1, root, [grant.ticket], times), bodies, key)
        spool.add_batch(number, data, items)
        print("batch", number, flush=True)
        if turn % 6 == 5:
            upto = max(item.seq for item in items)
            print("settling", upto, flush=True)
            said = [TidAck(bytes([seed]) * 16, upto, [], [])]
            spool.settle(key.seal("ack", Ack(1, batch_hash(data), said, "s", 0, 0, bytes(32), turn)))
            print("settled", upto, flush=True)
"""


def killed(script: str, home: Path, quota_bytes: int, seed: int) -> list[list[str]]:
    """Run ``script``, SIGKILL it at a random moment, and return every whole line it printed."""
    rng = random.Random(seed)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    arguments = [sys.executable, "-c", script, str(home), str(quota_bytes), str(seed)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environ, text=True) as child:
        assert child.stdout is not None
        try:
            lines = [child.stdout.readline() for _ in range(1 + rng.randrange(150))]
            time.sleep(rng.random() * 0.005)
        finally:
            child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        assert child.wait(TIMEOUT_S) == -signal.SIGKILL
    assert lines[0] == "ready\n"
    return [line.split() for line in lines if line.endswith("\n")][1:]


def files_under(home: Path) -> dict[str, Path]:
    return {path.name: path for path in (home / "blocks").rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", ["one by one", "in a batch"])
def test_a_store_killed_before_every_file_operation_is_whole(tmp_path: Path, way: str) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT / ".src")}
    command = [sys.executable, "-c", EVERY_POINT, str(tmp_path), way]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.mark.parametrize("quota_bytes", [10**9, 1_500_000])
@pytest.mark.parametrize("script", [STORE_CHILD, BATCH_CHILD], ids=["one by one", "in batches"])
def test_a_store_killed_at_any_moment_is_whole(tmp_path: Path, script: str, quota_bytes: int) -> None:
    promised: set[Cid] = set()
    for seed in range(ROUNDS):
        taken: set[Cid] = set()
        dropped: set[Cid] = set()
        for word, name in killed(script, tmp_path, quota_bytes, seed + quota_bytes):
            {"put": promised, "taken": taken, "dropping": dropped}[word].add(Cid.parse(name))
            if word == "put":  # a batch that has ended keeps all that it took
                promised |= taken
        promised -= dropped
        registry = CollectorRegistry()
        store = DiskStore(tmp_path, quota_bytes, registry)
        files = files_under(tmp_path)
        assert set(files) == {str(cid) for cid in store.cids()}, "a stray file, or a row without one"
        for cid in store.cids():
            place = store.path(cid)
            assert place is not None
            data = Path(place[0]).read_bytes()
            assert len(data) == place[1]
            assert cid == Cid.of(RAW, data), "a torn block would have been served"
        assert store.held_bytes == sum(path.stat().st_size for path in files.values()) <= quota_bytes
        if quota_bytes == 10**9:  # nothing was evicted, so every block put is here
            assert all(store.has(cid) for cid in promised)
        store.close()
    assert len(promised) > ROUNDS


def test_a_spool_killed_at_any_moment_keeps_every_promise(tmp_path: Path) -> None:
    promises = 0
    for seed in range(1, ROUNDS + 1):
        home = tmp_path / str(seed)
        home.mkdir()
        said = [(word, int(number)) for word, number in killed(SPOOL_CHILD, home, 0, seed)]
        last = {
            word: max((number for said_word, number in said if said_word == word), default=0)
            for word, _ in said
        }
        spool = DiskSpool(home / "spool.db", CollectorRegistry())
        known = spool.numbers().get(bytes([seed]) * 16)
        held = known.all if known else []
        gone = held[0] - 1 if held else last.get("settling", 0)
        assert last.get("settled", 0) <= gone <= last.get("settling", 0), "only an ack removes"
        assert held == list(range(gone + 1, gone + 1 + len(held)))
        assert gone + len(held) >= last.get("added", 0), "an added pulse is lost"
        assert spool.next_batch()[0] - 1 >= last.get("batch", 0), "a batch is lost"
        batched = [pulse for _, data in spool.open_batches() for pulse in open_parcel(data)[1]]
        waiting = [item.pulse for item in spool.unbatched(10_000)]
        assert {item.pulse for item in spool.pending(10_000)} <= {*waiting, *batched}
        assert not set(waiting) & set(batched), "a pulse in a batch waits for another one"
        promises += len(held)
        spool.close()
    assert promises > ROUNDS
