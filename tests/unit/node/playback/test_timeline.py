from __future__ import annotations

import pytest

from farcast.node.playback.timeline import Slot, Timelines, parse_media
from farcast.protocol.errors import RemoteError
from farcast.protocol.identity import Identity
from farcast.protocol.manifest import Manifest, Payee, Rendition, Window

PUBLISHER = Identity(b"p" * 32)
PLAYLISTS = {
    "v240/index.m3u8": "#EXTM3U\n#EXTINF:2.000000,\nseg-00000.m4s\n#EXTINF:1.500000,\npart-1/seg-00001.m4s\n",
    "audio/index.m3u8": "#EXTM3U\n#EXTINF:2.005333,\nseg-00000.m4s\n",
}


def rendition(name: str, kind: str) -> Rendition:
    return Rendition(name, kind, f"{name}/index.m3u8", "x", 1, 1, 0, 0, 0, "", 2, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


FILM = Manifest(
    1, "film", 1, PUBLISHER.key, "film", "", "", 3_500, b"\x01\x70\x12\x20" + bytes(32), 1,
    [rendition("audio", "audio"), rendition("v240", "video")], [], Window(0, 0), [], [Payee("a", 10_000)],
    "open", None, 0, b"",
)  # fmt: skip


class Folder:
    """The title's files, and which of them were read."""

    def __init__(self) -> None:
        self.read_paths: list[str] = []

    async def read(self, path: str) -> bytes:
        """Return one playlist."""
        self.read_paths.append(path)
        return PLAYLISTS[path].encode()


async def test_a_player_that_never_asks_for_a_playlist_is_understood() -> None:
    """A DASH player asks for manifest.mpd and then for segments, wherever it seeks first."""
    lines, folder = Timelines(), Folder()
    assert await lines.slot(FILM, "manifest.mpd", folder.read) is None
    assert await lines.slot(FILM, "v240/init.mp4", folder.read) is None
    assert await lines.slot(FILM, "v240/seg-00000.m4s", folder.read) == Slot("video", 1, 0, 2_000)
    assert await lines.slot(FILM, "audio/seg-00000.m4s", folder.read) == Slot("audio", 0, 0, 2_005)
    assert folder.read_paths == ["v240/index.m3u8", "audio/index.m3u8"]


async def test_a_first_seek_into_a_later_folder_of_a_long_film_is_understood() -> None:
    lines, folder = Timelines(), Folder()
    assert await lines.slot(FILM, "v240/part-1/seg-00001.m4s", folder.read) == Slot("video", 1, 2_000, 1_500)
    assert folder.read_paths == ["v240/index.m3u8"]


async def test_what_follows_is_known_once_its_playlist_was_read() -> None:
    lines, folder = Timelines(), Folder()
    root, first = FILM.root_cid, "v240/seg-00000.m4s"
    assert lines.after(root, first) == ""
    await lines.slot(FILM, first, folder.read)
    assert lines.after(root, first) == "v240/part-1/seg-00001.m4s"
    assert lines.after(root, "v240/part-1/seg-00001.m4s") == ""
    assert lines.after(root, "audio/seg-00000.m4s") == ""


async def test_texts_and_pictures_to_seek_by_are_no_media() -> None:
    lines, folder = Timelines(), Folder()
    for path in ("text/en.vtt", "text/en.m3u8", "storyboard.vtt", "storyboard/00000.jpg", "poster.jpg"):
        assert await lines.slot(FILM, path, folder.read) is None
    assert folder.read_paths == []


@pytest.mark.parametrize("line", ["#EXTINF:x,", "#EXTINF:-1,", "#EXTINF:4000,"])
def test_a_segment_of_no_sane_length_is_refused(line: str) -> None:
    with pytest.raises(RemoteError, match="no sane duration"):
        parse_media(f"#EXTM3U\n{line}\nseg.m4s\n", "v/index.m3u8", "video", 0)
