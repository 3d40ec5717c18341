"""A standalone relay as a process, filled by the CAR importer, and what its answers look like from outside.

Everything the gateway sends is read with ``decoder.py``, which shares no line with the package.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from farcast.node.report import quiet
from farcast.relay.importdesk import import_car
from farcast.relay.imports import label_of
from farcast.relay.standalone import make_standalone

VECTORS = Path(__file__).parents[1] / "vectors" / "trustless-gateway"
RAW, CAR = "application/vnd.ipld.raw", "application/vnd.ipld.car"
START_S, STOP_S = 60.0, 20.0

_spec = importlib.util.spec_from_file_location("trustless_decoder", Path(__file__).parent / "decoder.py")
assert _spec is not None
assert _spec.loader is not None
decoder: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(decoder)


class Reply(NamedTuple):
    """One answer; ``whole`` is False where its body ended abnormally."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    head_bytes: int

    @property
    def blocks(self) -> list[str]:
        """The CIDs of a CAR in the order in which they stand there, each block's hash checked."""
        assert self.whole
        return [block["cid"] for block in decoder.decode("car", self.body)["blocks"]]


class Fixture:
    """One CAR of the suite: its root, its blocks, and the CIDs that paths in it lead to."""

    def __init__(self, name: str) -> None:
        car = decoder.decode("car", (VECTORS / f"{name}.car").read_bytes())
        (self.root,) = car["roots"]
        self.data: dict[str, bytes] = {block["cid"]: block["data"] for block in car["blocks"]}

    def at(self, *path: str) -> str:
        """Return the CID at a path of folders."""
        here: str = self.root
        for name in path:
            here = str(decoder.read_folder(here, self.data)[name])
        return here

    def links(self, cid: str) -> list[str]:
        """Return the links of a dag-pb block, in its order."""
        return [link["cid"] for link in decoder.read_node(self.data[cid])["links"]]

    def below(self, cid: str) -> list[str]:
        """Return every block below ``cid``, depth first, each time it occurs."""
        if decoder.cid_parts(decoder.cid_bytes(cid))[0] != 0x70:
            return []
        return [one for link in self.links(cid) for one in (link, *self.below(link))]

    def shards(self, cid: str) -> list[str]:
        """Return the shards below a sharded folder's ``cid``, depth first."""
        links = decoder.read_node(self.data[cid])["links"]
        inner = [link["cid"] for link in links if len(link["name"]) == 2]
        return [one for shard in inner for one in (shard, *self.shards(shard))]

    def way(self, cid: str, name: str) -> list[str]:
        """Return the shards between a sharded folder's ``cid`` and its entry ``name``."""
        links = decoder.read_node(self.data[cid])["links"]
        if any(link["name"][2:] == name for link in links):
            return []
        inner = (link["cid"] for link in links if len(link["name"]) == 2)
        return next([shard, *self.way(shard, name)] for shard in inner if _holds(self, shard, name))


def _holds(fixture: Fixture, shard: str, name: str) -> bool:
    return name in decoder.read_folder(shard, fixture.data)


class Relay(NamedTuple):
    """A running relay."""

    port: int
    home: Path
    pid: int

    def ask(self, target: str, method: str = "GET", **headers: str) -> Reply:
        """Make one request; an underscore in a header's name is a dash."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, headers=fields)
            response = connection.getresponse()
            head = sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + 20
            found = {name.lower(): value for name, value in response.getheaders()}
            try:
                body, whole = response.read(), True
            except http.client.IncompleteRead as error:
                body, whole = error.partial, False
            except ConnectionResetError:
                body, whole = b"", False
            return Reply(response.status, found, body, whole, head)
        finally:
            connection.close()


def farcast(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command in ``home`` to its end."""
    command = [sys.executable, "-m", "farcast", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)


@contextmanager
def running(home: Path) -> Generator[Relay]:
    """Run the relay of ``home`` on free ports."""
    environment = {**os.environ, "FARCAST_LISTEN_PORT": "0", "FARCAST_ADMIN_PORT": "0"}
    command = [sys.executable, "-m", "farcast", "relay", "run", "--json", "--home", str(home)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        text = b""
        while not text.endswith(b"}\n"):
            line = process.stdout.readline()
            assert line, process.communicate(timeout=STOP_S)
            text += line
        yield Relay(json.loads(text)["public_port"], home, process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)


def made(home: Path, cars: Sequence[Path]) -> None:
    """Make a standalone relay that has imported ``cars``."""
    make_standalone(home)
    for path in cars:
        import_car(home, path, label_of(path), quiet)
