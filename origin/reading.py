"""Reading matter: a film's subtitles, from files that film.toml names and from the film itself."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ..protocol.errors import UsageError
from .studio.film import Companion
from .studio.package import Subtitles
from .studio.playlist import Text
from .studio.probe import Track
from .studio.subtitles import SIZE_LIMIT_BYTES, Cue, parse_subtitles, webvtt, within

Read = tuple[Companion, list[Cue]]


def read_companions(files: Sequence[Companion]) -> list[Read]:
    """Read the subtitles that film.toml names.

    Raises:
        UsageError: ``bad_subtitles``: one that cannot be read, with the file and the mend.

    """
    found: list[Read] = []
    for companion in files:
        try:
            with companion.path.open("rb") as file:
                found.append((companion, parse_subtitles(file.read(SIZE_LIMIT_BYTES + 1))))
        except OSError as error:
            message = f"{companion.path} cannot be read: {error.strerror}"
            raise UsageError(message, reason="bad_subtitles") from error
        except ValueError as error:
            raise UsageError(f"{companion.path} {error}", reason="bad_subtitles") from error
    return found


def film_subtitles(
    media: Path,
    companions: Sequence[Read],
    own: Sequence[tuple[Track, bytes]],
    bitmaps: Sequence[Track],
    length: Fraction,
) -> tuple[list[Subtitles], list[str]]:
    """Return the subtitles of a film of ``length`` seconds, and sentences about what was left out.

    Files come first; subtitles of the film's own in a language and with a label that a file has give
    way to it.
    """
    warnings = bitmap_warnings(media, bitmaps)
    texts: list[tuple[str, str, list[Cue]]] = []
    for companion, cues in companions:
        kept = within(cues, length)
        if len(kept) < len(cues):
            late = len(cues) - len(kept)
            warnings.append(f"{late} of the {len(cues)} cues of {companion.path} begin after the film's end")
        texts.append((companion.language, companion.label, kept))
    taken = {(language, label) for language, label, _ in texts}
    for track, data in own:
        try:
            cues = within(parse_subtitles(data), length)
        except ValueError:
            cues = []
        if not cues:
            warnings.append(
                f"the subtitles in stream {track.number} of {media} have no text; they are left out"
            )
        elif (track.language, track.label) not in taken:
            texts.append((track.language, track.label, cues))
    found: list[Subtitles] = []
    names: set[str] = set()
    for language, label, cues in texts:
        plain = name = language.lower() or "other"
        number = 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.add(name)
        words = webvtt(cues)
        found.append((Text(name, language, label, len(words.encode())), words))
    return found, warnings


def bitmap_warnings(media: Path, bitmaps: Sequence[Track]) -> list[str]:
    """Name the subtitles that stay behind because they are pictures."""
    return [
        f"{media} has subtitles that are pictures ({track.codec}, stream {track.number}); they are left out, "
        "name a .srt or .vtt file of them in film.toml"
        for track in bitmaps
    ]
