"""Imports: whole verified blocks come in and stay; of a damaged CAR nothing is kept; repeating goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from farcast.node.blocks.store import DiskStore
from farcast.protocol import car
from farcast.protocol.cid import IDENTITY, RAW, Cid
from farcast.protocol.errors import LocalError, RemoteError, StoreFullError, UsageError
from farcast.protocol.unixfs import Block
from farcast.relay import cli
from farcast.relay.imports import Imports, label_of
from farcast.relay.standalone import is_standalone, make_standalone
from farcast.tests.interop.trustless import farcast, running

BLOCKS: list[Block] = [
    (Cid.of(RAW, bytes([number]) * 1_000), bytes([number]) * 1_000) for number in range(20)
]
ROOT = BLOCKS[0][0]


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path, 100_000, CollectorRegistry())


def written(path: Path, blocks: list[Block] = BLOCKS, roots: tuple[Cid, ...] = (ROOT,)) -> Path:
    path.write_bytes(car.header(roots) + b"".join(car.section(*block) for block in blocks))
    return path


def test_every_block_is_kept_and_the_roots_are_known(store: DiskStore, tmp_path: Path) -> None:
    imports = Imports(store)
    identity = (Cid(RAW, b"inside", IDENTITY), b"inside")
    path = written(tmp_path / "film.car", [*BLOCKS, BLOCKS[3], identity])
    told: list[float] = []

    def report(stage: str, done: float, total: float = 1.0) -> None:
        assert stage == "importing"
        told.append(done / total)

    done = imports.add(path, "film", report)
    assert done == ("film", (ROOT,), 21, 21_000, 20, 20_000)
    assert told[-1] == 1
    assert imports.roots == [ROOT] == Imports(store).roots
    assert set(store.pinned()["car/film"]) == {cid for cid, _ in BLOCKS}
    for number in range(200):  # a flood of other blocks pushes none of them out
        other = b"%d" % number * 300
        store.put(Cid.of(RAW, other), other)
    assert all(store.get(cid) == data for cid, data in BLOCKS)


def test_importing_again_writes_nothing_twice(store: DiskStore, tmp_path: Path) -> None:
    path = written(tmp_path / "film.car")
    Imports(store).add(path, "film")
    assert Imports(store).add(path, "film")[-2:] == (0, 0)
    assert Imports(store).add(path, "again")[-2:] == (0, 0)
    assert Imports(store).labels() == ["again", "film"]


@pytest.mark.parametrize("damage", ["cut", "changed", "none", "header", "huge"])
def test_of_a_damaged_car_nothing_is_kept_but_whole_blocks(
    store: DiskStore, tmp_path: Path, damage: str
) -> None:
    path = written(tmp_path / "film.car")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-7:]
    elif damage == "changed":
        data[-7] ^= 1
    elif damage == "huge":
        data += b"\xff\xff\xff\x7f"
    path.write_bytes(
        data if damage not in ("none", "header") else b"PK\3\4" * 9 if damage == "header" else b""
    )
    imports = Imports(store)
    with pytest.raises(RemoteError, match=r"film\.car is damaged after \d+ whole blocks: .*repeat this"):
        imports.add(path, "film")
    assert imports.roots == []
    assert store.pinned() == {}
    assert all(cid.matches(store.get(cid) or b"") for cid in store.cids())
    done = imports.add(written(path), "film")
    assert (done.blocks, imports.roots) == (20, [ROOT])


def test_a_car_that_does_not_fit_is_refused_and_pins_nothing(store: DiskStore, tmp_path: Path) -> None:
    many = [(Cid.of(RAW, b"%d" % number * 300), b"%d" % number * 300) for number in range(500)]
    with pytest.raises(StoreFullError, match="more than the quota of 100000"):
        Imports(store).add(written(tmp_path / "big.car", many), "big")
    Imports(store).add(written(tmp_path / "film.car"), "film")
    with pytest.raises(StoreFullError, match="pinned blocks fill the quota"):
        Imports(store).add(written(tmp_path / "big.car", many[-90:]), "big")
    assert "car/big" not in store.pinned()
    assert store.held_bytes <= 100_000


def test_a_label_names_one_import(store: DiskStore, tmp_path: Path) -> None:
    imports = Imports(store)
    imports.add(written(tmp_path / "film.car"), "film")
    other = written(tmp_path / "other.car", BLOCKS[1:], (BLOCKS[1][0],))
    with pytest.raises(UsageError, match="another import already"):
        imports.add(other, "film")
    assert imports.roots == [ROOT]
    for label in ("", "a/b", "-x", "x" * 65, "é"):
        with pytest.raises(UsageError, match="a label is"):
            imports.add(other, label)
    with pytest.raises(UsageError, match="cannot be read"):
        imports.add(tmp_path, "folder")


def test_a_stopped_import_can_be_repeated(store: DiskStore, tmp_path: Path) -> None:
    imports = Imports(store)
    imports.stop()
    with pytest.raises(LocalError, match="repeat it"):
        imports.add(written(tmp_path / "film.car"), "film")
    assert Imports(store).add(tmp_path / "film.car", "film").blocks == 20


@pytest.mark.parametrize(
    ("name", "label"), [("film.car", "film"), ("a b é.car", "a-b"), (".car", "car"), ("x" * 99, "x" * 64)]
)
def test_a_file_gives_its_import_a_label(name: str, label: str) -> None:
    assert label_of(Path("/somewhere", name)) == label


def test_a_standalone_relay_from_making_to_serving(tmp_path: Path) -> None:
    home, path = tmp_path / "home", written(tmp_path / "film.car")
    done = CliRunner().invoke(cli.app, ["init", "--standalone", "--json", "--home", str(home)])
    assert json.loads(done.stdout)["home"] == str(home)
    again = farcast(home, "relay", "init", "--standalone")
    assert (again.returncode, "is the home of a relay already" in again.stderr) == (2, True)
    assert is_standalone(home)
    first = farcast(home, "relay", "import", str(path), "--json")  # the home is free
    assert json.loads(first.stdout) == {
        "label": "film", "roots": [str(ROOT)], "blocks": 20, "bytes": 20_000,
        "new_blocks": 20, "new_bytes": 20_000,
    }  # fmt: skip
    with running(home) as relay:
        status = json.loads(farcast(home, "relay", "status", "--json").stdout)
        assert status["verdict"] == "Serving 1 imported root, standalone"
        other = written(tmp_path / "other.car", BLOCKS[5:], (BLOCKS[5][0],))
        done2 = farcast(home, "relay", "import", str(other))  # the relay does it
        assert (done2.returncode, done2.stderr) == (0, "")
        assert "Imported 15 blocks" in done2.stdout
        broken = tmp_path / "broken.car"
        broken.write_bytes(other.read_bytes()[:-1])
        refused = farcast(home, "relay", "import", str(broken))
        assert refused.returncode == 1
        assert "broken.car is damaged after 14 whole blocks" in refused.stderr
        missing = farcast(home, "relay", "import", str(tmp_path / "none.car"))
        assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
        text = farcast(home, "relay", "status").stdout
        assert text.startswith("Serving 2 imported roots, standalone\n")
        for cid, data in BLOCKS:
            assert relay.ask(f"/ipfs/{cid}?format=raw").body == data
        assert relay.ask("/readyz").status == 200


def test_a_relay_that_joins_is_standalone_no_more(tmp_path: Path) -> None:
    make_standalone(tmp_path / "home")
    assert is_standalone(tmp_path / "home")
    (tmp_path / "home" / "trust").mkdir()
    assert not is_standalone(tmp_path / "home")
    needs = CliRunner().invoke(cli.app, ["init", "--home", str(tmp_path / "other")])
    assert needs.exit_code == 2
    assert not (tmp_path / "other").exists()
