from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.blocks.store import DiskStore
from farcast.node.ffmpeg import find_ffmpeg
from farcast.origin.publish import Published, pin_label, publish
from farcast.origin.studio import ingest
from farcast.origin.studio.contentkeys import ContentKeys
from farcast.origin.studio.film import Film
from farcast.protocol.errors import UsageError
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, open_manifest

PUBLISHER = Identity(b"p" * 32)
FILM = Film(
    title="the-film",
    name="The Film",
    payees=(Payee(payee="anna", points=10_000),),
    description="d",
    language="en",
)


def quiet(stage: str, done: float, total: float) -> None:
    """Show no progress."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "film.mkv"
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2.4", "-f", "lavfi", "-i", "sine=d=2.4"]
    command = [find_ffmpeg(), "-loglevel", "error", *source, "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


@pytest.fixture(scope="module")
def encodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encodes")


class Desk:
    """Publishes one film again and again, as a command would."""

    def __init__(self, media: Path, encodes: Path, store: DiskStore) -> None:
        self._media, self._encodes, self.store = media, encodes, store

    def publish(
        self,
        film: Film,
        previous: Manifest | None = None,
        now_ms: int = 1_000,
        keys: ContentKeys | None = None,
    ) -> Published:
        """Publish the film's file as ``film`` says."""
        return publish(
            self._media, film, self._encodes, self.store, PUBLISHER, previous, now_ms, "ultrafast", quiet,
            keys=keys,
        )  # fmt: skip


@pytest.fixture
def desk(media: Path, encodes: Path, tmp_path: Path) -> Iterator[Desk]:
    store = DiskStore(tmp_path / "home", 64 << 20, CollectorRegistry())
    yield Desk(media, encodes, store)
    store.close()


def test_a_film_becomes_a_signed_manifest_in_the_store(desk: Desk) -> None:
    done = desk.publish(FILM)
    manifest = open_manifest(done.data, frozenset({PUBLISHER.key}))
    assert manifest == done.manifest
    assert desk.store.get(done.cid) == done.data
    assert (manifest.title, manifest.name, manifest.version, manifest.supersedes) == (
        "the-film",
        "The Film",
        1,
        b"",
    )
    assert manifest.duration_ms == 2_400
    assert [one.name for one in manifest.renditions] == ["audio", "v32", "v64"]
    assert [one.language for one in manifest.renditions] == ["en", "", ""]
    assert [(one.kind, one.path) for one in manifest.tracks] == [
        ("poster", "poster.jpg"),
        ("storyboard", "storyboard.vtt"),
    ]
    assert done.changed
    assert done.blocks == done.new_blocks == desk.store.held_blocks


@pytest.mark.parametrize(
    ("fails", "without", "left"),
    [
        ("tile=", "storyboard", ["poster.jpg"]),
        ("poster.jpg", "poster", ["storyboard.vtt"]),
        (".jpg", "poster and storyboard", []),
    ],
)
def test_a_film_whose_poster_or_storyboard_fails_is_published_without_and_says_so(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, without: str, left: list[str]
) -> None:
    real, clumsy = find_ffmpeg(), tmp_path / "ffmpeg"
    clumsy.write_text(
        f"""#!/bin/sh
        case "$*" in *{fails}*) echo "Unknown encoder 'mjpeg'" >&2; exit 1;; esac
        exec {real} "$@"
        """
    )
    clumsy.chmod(0o755)
    store = DiskStore(tmp_path / "home", 64 << 20, CollectorRegistry())
    desk = Desk(media, tmp_path / "encodes", store)
    programs = [str(clumsy)]

    def found(program: str) -> str:
        del program
        return programs[-1]

    monkeypatch.setattr(ingest, "find_ffmpeg", found)
    done = desk.publish(FILM)
    assert [one.path for one in done.manifest.tracks] == left
    (warning,) = done.warnings
    assert warning.startswith(f"film.mkv goes without {without}, for ffmpeg could make none (")
    assert "Unknown encoder 'mjpeg'" in warning
    assert f"delete {done.folder} and publish again" in warning
    assert ("thumbnail_tile" in (done.folder / "manifest.mpd").read_text()) == ("storyboard.vtt" in left)
    assert (done.folder / "storyboard").exists() == ("storyboard.vtt" in left)
    again = desk.publish(FILM, done.manifest, now_ms=2_000)
    assert not again.changed
    assert again.warnings[0].startswith(
        f"film.mkv goes without {without}, for ffmpeg could make none; to try"
    )
    segments = {path.relative_to(done.folder): path.read_bytes() for path in done.folder.rglob("*.m4s")}
    shutil.rmtree(done.folder)
    programs.append(real)
    whole = desk.publish(FILM, done.manifest, now_ms=3_000)
    assert [one.path for one in whole.manifest.tracks] == ["poster.jpg", "storyboard.vtt"]
    assert not whole.warnings
    assert segments == {
        path.relative_to(whole.folder): path.read_bytes() for path in whole.folder.rglob("*.m4s")
    }
    store.close()


def test_publishing_again_changes_nothing(desk: Desk) -> None:
    first = desk.publish(FILM)
    second = desk.publish(FILM, first.manifest, now_ms=2_000)
    assert not second.changed
    assert (second.manifest, second.cid, second.data) == (first.manifest, first.cid, first.data)
    assert (second.new_blocks, second.new_bytes, second.reused) == (0, 0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Another Name"},
        {"description": ""},
        {"payees": (Payee(payee="anna", points=4_000), Payee(payee="bob", points=6_000))},
        {"territories": ("DE",)},
    ],
)
def test_another_word_about_the_film_is_a_new_version_of_the_same_folder(
    desk: Desk, change: dict[str, object]
) -> None:
    first = desk.publish(FILM)
    second = desk.publish(replace(FILM, **change), first.manifest, now_ms=2_000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert second.changed
    assert second.manifest.version == 2
    assert second.manifest.root == first.manifest.root
    assert second.manifest.supersedes == first.cid.encode()
    assert second.manifest.created_ms == 2_000
    assert second.new_blocks == 1


def test_another_language_changes_the_two_playlists_of_the_whole_and_nothing_else(desk: Desk) -> None:
    first = desk.publish(FILM)
    second = desk.publish(replace(FILM, language="fr"), first.manifest)
    assert second.manifest.root != first.manifest.root
    assert second.new_blocks == 4  # master playlist, MPD, the folder above them, the manifest


def test_what_is_published_is_pinned_and_what_it_replaces_is_not(desk: Desk) -> None:
    first = desk.publish(FILM)
    second = desk.publish(replace(FILM, language="fr"), first.manifest)
    pinned = desk.store.pinned()
    assert list(pinned) == [pin_label("the-film", second.manifest.root_cid)]
    cids = set(next(iter(pinned.values())))
    assert second.cid in cids
    assert len(cids) == second.blocks
    assert first.cid not in cids


def test_a_title_of_somebody_else_is_not_taken_over(desk: Desk, media: Path, encodes: Path) -> None:
    first = desk.publish(FILM)
    thief = Identity(b"t" * 32)
    with pytest.raises(UsageError, match=f"belongs to {PUBLISHER.peer_id}"):
        publish(media, FILM, encodes, desk.store, thief, first.manifest, 0, "ultrafast", quiet)
    with pytest.raises(UsageError, match="cannot follow the title the-film"):
        desk.publish(replace(FILM, title="other"), first.manifest)


def test_a_film_for_tickets_only_is_never_published_in_the_clear(desk: Desk) -> None:
    with pytest.raises(UsageError, match="no keys to encrypt it with"):
        desk.publish(replace(FILM, access="ticket"))
    assert desk.store.held_blocks == 0


def test_a_ticket_title_is_sealed_under_a_key_that_stays_with_its_content(desk: Desk) -> None:
    film, keys = replace(FILM, access="ticket"), ContentKeys(b"s" * 32)
    first = desk.publish(film, keys=keys)
    assert (first.manifest.access, first.changed) == ("ticket", True)
    assert first.manifest.protection is not None
    (key_id,) = first.manifest.protection.key_ids
    assert keys.owns(key_id)
    again = desk.publish(film, first.manifest, keys=keys)
    assert (again.changed, again.new_blocks, again.cid) == (False, 0, first.cid)
    renamed = desk.publish(replace(film, name="Another name"), first.manifest, keys=keys)
    assert (renamed.manifest.root, renamed.manifest.protection) == (
        first.manifest.root,
        first.manifest.protection,
    )
    other = desk.publish(film, first.manifest, keys=ContentKeys(b"t" * 32))
    assert other.manifest.root != first.manifest.root
    clear = desk.publish(FILM, first.manifest)
    assert (clear.manifest.access, clear.manifest.protection) == ("open", None)
    assert clear.manifest.root != first.manifest.root


def test_no_block_of_a_ticket_title_holds_clear_media(desk: Desk) -> None:
    done = desk.publish(replace(FILM, access="ticket"), keys=ContentKeys(b"s" * 32))
    blocks = b"".join(desk.store.get(cid) or b"" for cid in desk.store.cids())
    segments = [path.read_bytes() for path in done.folder.rglob("*.m4s")]
    assert len(segments) > 3
    assert len(blocks) > sum(map(len, segments))
    for data in segments:
        assert not any(data[at : at + 32] in blocks for at in range(0, len(data) - 32, 97))
