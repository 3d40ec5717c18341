"""The web player's Service Worker: over servers that fail in every way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import pytest

from farcast.node.web.scripts import SCRIPTS, written
from farcast.protocol.cid import RAW, Cid
from farcast.protocol.codec import decode, encode
from farcast.protocol.identity import Identity, Signed
from farcast.protocol.manifest import Manifest, Payee, Rendition, Window, open_manifest, seal_manifest
from farcast.protocol.unixfs import Entry, FileWriter, folder
from farcast.tests.unit.node.web.asloaded import FORMS, texts

WORKER = Path(__file__).with_name("worker.mjs")
PUBLISHER = Identity(b"p" * 32)
MIB = 1 << 20

Need = Callable[..., str]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_sent_unminified_has_no_comment_and_loses_no_code(name: str) -> None:
    lines = written(name).decode().splitlines()
    assert not [line for line in lines if line.startswith(("//", " "))]
    assert "`" not in "".join(line for line in lines if line.count("`") % 2), "no text spans lines"


def title() -> dict[str, object]:
    """Make a signed title of our own writer's blocks, one file larger than a chunk."""
    random, blocks = Random(7), dict[str, str]()
    files = {
        "master.m3u8": b"#EXTM3U\n", "v0/index.m3u8": b"#EXTM3U\n#EXT-X-ENDLIST\n" * 20,
        "v0/init.mp4": random.randbytes(800), "v0/seg-00000.m4s": random.randbytes(2 * MIB + 5),
        "v0/seg-00001.m4s": random.randbytes(300_000), "empty.vtt": b"",
    }  # fmt: skip
    folders: dict[str, dict[str, Entry]] = {"": {}, "v0": {}}

    def keep(found: list[tuple[Cid, bytes]]) -> None:
        blocks.update({str(cid): data.hex() for cid, data in found})

    for path, data in files.items():
        writer = FileWriter()
        keep(writer.push(data))
        last, entry = writer.finish()
        keep(last)
        where, _, name = path.rpartition("/")
        folders[where][name] = entry
    made, folders[""]["v0"] = folder(folders["v0"])
    keep(made)
    made, root = folder(folders[""])
    keep(made)
    rendition = Rendition("v0", "video", "v0/index.m3u8", "avc1.4d401e", 1, 1, 640, 360, 25_000, "", 2, 1)
    manifest = Manifest(
        1, "film", 1, PUBLISHER.key, "Film", "", "en", 4_000, root.cid.encode(), root.tsize, [rendition], [],
        Window(0, 0), [], [Payee("ada", 10_000)], "open", None, 1_800_000_000_000, b"",
    )  # fmt: skip
    cid, data = seal_manifest(manifest, PUBLISHER)
    signed = decode(Signed, data)
    longer = msgspec.structs.replace(manifest, duration_ms=9_000)
    forged = encode(Signed(encode(longer), signed.sig))  # another body under the same signature
    keep([(cid, data), (Cid.of(RAW, forged), forged)])
    with pytest.raises(Exception, match="is not signed by"):
        open_manifest(forged)
    return {
        "title": "film", "root": str(root.cid), "manifest": cid.digest.hex(),
        "publishers": [PUBLISHER.key.hex()], "blocks": blocks,
        "files": {path: data.hex() for path, data in files.items()},
        "forged": Cid.of(RAW, forged).digest.hex(),
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_only_checked_bytes_pass_and_no_server_stops_it(need: Need, tmp_path: Path, form: str) -> None:
    scripts, given = tmp_path / "scripts.json", tmp_path / "title.json"
    scripts.write_text(json.dumps(texts(form, "sw.js")))
    given.write_text(json.dumps(title()))
    done = subprocess.run(
        [need("node"), "--test-reporter=tap", str(WORKER)],
        env={**os.environ, "FARCAST_WORKER": f"{scripts}\n{given}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "# tests 22" in done.stdout, done.stdout
    assert "# pass 22" in done.stdout
