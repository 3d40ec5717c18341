"""A real Kubo beside our UnixFS and CAR code (``.ci/peers.sh kubo``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from farcast.protocol import car
from farcast.protocol.cid import Cid
from farcast.protocol.unixfs import Block, Entry, FileWriter, content, directory, leaves, listing, resolve

Need = Callable[..., str]


@pytest.fixture(scope="module")
def script(vector_script: Callable[[str], ModuleType]) -> ModuleType:
    return vector_script("make_cids")


@pytest.fixture
def kubo(need: Need, script: ModuleType, tmp_path: Path) -> Any:  # noqa: ANN401 - a class of a script
    return script.Kubo(need("ipfs"), tmp_path)


def film(script: ModuleType) -> tuple[list[Block], Entry]:
    """Write a small film's folder: a playlist beside a folder of two segments."""
    blocks: list[Block] = []

    def write(data: bytes) -> Entry:
        writer = FileWriter()
        blocks.extend(writer.push(data))
        last, entry = writer.finish()
        blocks.extend(last)
        return entry

    segments = {f"{number}.m4s": write(script.stream(f"segment {number}", 2_500_000)) for number in range(2)}
    cid, data, folder = directory(segments)
    blocks.append((cid, data))
    cid, data, root = directory({"v720": folder, "master.m3u8": write(b"#EXTM3U\n")})
    blocks.append((cid, data))
    return blocks, root


def test_kubo_still_makes_the_golden_cids(
    need: Need, script: ModuleType, vectors: Callable[[str], Any], tmp_path: Path
) -> None:
    made = script.ask(need("ipfs"), tmp_path)
    made = json.loads(json.dumps(made))
    golden = vectors("cids")
    assert made.pop("kubo").count(".") == golden.pop("kubo").count(".") == 2
    assert made == golden


def test_kubo_loads_the_car_we_write_and_finds_the_same_folder(kubo: Any, script: ModuleType) -> None:  # noqa: ANN401
    blocks, root = film(script)
    archive = car.header([root.cid]) + b"".join(car.section(cid, data) for cid, data in blocks)
    done = json.loads(kubo.run("--enc=json", "dag", "import", "--pin-roots", stdin=archive))
    assert done["Root"]["Cid"]["/"] == str(root.cid)
    assert not done["Root"]["PinErrorMsg"]
    for number in range(2):
        expected = script.stream(f"segment {number}", 2_500_000)
        assert kubo.run("cat", f"/ipfs/{root.cid}/v720/{number}.m4s") == expected
    stat = json.loads(kubo.run("--enc=json", "dag", "stat", "--progress=false", str(root.cid)))
    assert stat["DagStats"][0]["Size"] == root.tsize


def test_kubo_gives_our_film_the_same_name_and_we_read_its_car(kubo: Any, script: ModuleType) -> None:  # noqa: ANN401
    blocks, root = film(script)
    files = {f"v720/{number}.m4s": script.stream(f"segment {number}", 2_500_000) for number in range(2)}
    files["master.m3u8"] = b"#EXTM3U\n"
    assert kubo.add_folder(files) == str(root.cid)
    reader = car.Reader()
    theirs = dict(reader.push(kubo.run("dag", "export", str(root.cid))))
    reader.finish()
    assert theirs == dict(blocks)
    assert reader.roots == (root.cid,)


def test_we_walk_a_folder_that_kubo_shards(kubo: Any) -> None:  # noqa: ANN401
    names = {f"{10**9 + number}": b"%d" % (number % 7) for number in range(4855)}
    reader = car.Reader()
    root = Cid.parse(kubo.add_folder(names))
    blocks = dict(reader.push(kubo.run("dag", "export", str(root))))
    assert [link.name for link in listing(root, blocks.get)] == sorted(names)
    for name in list(names)[::100]:
        file = resolve(root, [name], blocks.get)
        (leaf,) = leaves(file, blocks.get)
        assert content(leaf, blocks[leaf.cid]) == names[name]
