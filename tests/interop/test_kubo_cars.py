"""A real Kubo takes the CARs that a relay serves, and a relay serves what Kubo exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from farcast.protocol import car
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.unixfs import Block, Entry, FileWriter, folder
from farcast.tests.interop.trustless import decoder, farcast, made, running

Need = Callable[..., str]


@pytest.fixture
def kubo(need: Need, vector_script: Callable[[str], ModuleType], tmp_path: Path) -> Any:  # noqa: ANN401 - a class of a script
    return vector_script("make_cids").Kubo(need("ipfs"), tmp_path)


def sections(data: bytes) -> list[tuple[str, bytes]]:
    """Return a CAR's blocks in order, read by the independent decoder."""
    return [(block["cid"], block["data"]) for block in decoder.decode("car", data)["blocks"]]


def shelf(count: int) -> tuple[list[Block], Cid]:
    """Write a film beside a sharded folder of ``count`` names."""
    writer = FileWriter()
    blocks = writer.push(bytes(range(256)) * 9_000)
    rest, film = writer.finish()
    text = b"#EXTM3U\n"
    entry = Entry(Cid.of(RAW, text), len(text), len(text))
    shards, names = folder({f"{number:0230}": entry for number in range(count)})
    top, root = folder({"film.m4s": film, "names": names, "master.m3u8": entry})
    return [*top, *blocks, *rest, *reversed(shards), (entry.cid, text)], root.cid


def test_kubo_imports_what_a_relay_serves_and_exports_the_same_blocks(kubo: Any, tmp_path: Path) -> None:  # noqa: ANN401
    blocks, root = shelf(1_100)
    path = tmp_path / "shelf.car"
    path.write_bytes(car.header([root]) + b"".join(car.section(*block) for block in blocks))
    made(tmp_path / "relay", [path])
    with running(tmp_path / "relay") as relay:
        served = relay.ask(f"/ipfs/{root}?format=car&dag-scope=all")
        part = relay.ask(f"/ipfs/{root}/film.m4s?format=car&entity-bytes=0:10")
    done = json.loads(kubo.run("--enc=json", "dag", "import", "--pin-roots", stdin=served.body))
    assert done["Root"] == {"Cid": {"/": str(root)}, "PinErrorMsg": ""}
    exported = kubo.run("dag", "export", str(root))
    assert sections(exported) == sections(served.body)  # the same blocks in the same order
    assert kubo.run("cat", f"/ipfs/{root}/film.m4s") == bytes(range(256)) * 9_000
    assert kubo.run("cat", f"/ipfs/{root}/names/{44:0230}") == b"#EXTM3U\n"
    assert sections(part.body)[0][0] == str(root)
    kubo.run("dag", "import", "--pin-roots=false", stdin=part.body)


def test_a_relay_serves_what_kubo_exports_of_any_age(kubo: Any, tmp_path: Path) -> None:  # noqa: ANN401
    data = bytes(range(256)) * 40
    old = kubo.add(data, "--cid-version=0", "--raw-leaves=false", "--chunker=size-1000", "--max-file-links=3")
    assert old.startswith("Qm")
    names = kubo.add_folder({f"{number:0230}": b"note" for number in range(1_100)})
    cars: list[Path] = []
    exports: dict[str, bytes] = {}
    for name, cid in (("old", old), ("names", names)):
        exports[cid] = kubo.run("dag", "export", cid)
        cars.append(tmp_path / f"{name}.car")
        cars[-1].write_bytes(exports[cid])
    made(tmp_path / "relay", cars)
    with running(tmp_path / "relay") as relay:
        assert "Serving 2 imported roots" in farcast(tmp_path / "relay", "relay", "status").stdout
        for cid, exported in exports.items():
            assert relay.ask(f"/ipfs/{cid}?format=car").body == exported  # byte for byte
        one = relay.ask(f"/ipfs/{names}/{400:0230}?format=raw")
        assert one.body == b"note"
