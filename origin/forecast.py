"""The forecast: what publishing a film would encode and write, without doing it."""

from __future__ import annotations

from typing import Any

from .reading import bitmap_warnings, read_companions
from .studio.film import Film
from .studio.ingest import Ingest, Progress

SOUND_KBIT_S = 64
"""Of each channel."""


def forecast(film: Film, asked: Ingest, progress: Progress) -> dict[str, Any]:
    """Say what ``asked`` would make of a film; reads its files once, writes nothing.

    Raises:
        UsageError: what publishing would raise for the film's files.

    """
    read_companions(film.subtitles)
    outlook = asked.outlook(progress)
    sounds = [
        {
            "language": voice.language or ("" if index else film.language),
            "label": voice.label,
            "channels": channels,
        }
        for index, (voice, channels) in enumerate(zip(asked.voices, asked.channels, strict=True))
    ]
    texts = [(one.language, one.label) for one in film.subtitles]
    texts += [(one.language, one.label) for one in asked.held.texts]
    kbit_s = sum(rung.kbit_s for rung in asked.rungs) + sum(asked.channels) * SOUND_KBIT_S
    return {
        "title": film.title,
        "name": film.name,
        "access": film.access,
        "duration_s": asked.length_s,
        "rungs": [rung._asdict() for rung in asked.rungs],
        "sounds": sounds,
        "subtitles": [{"language": language, "label": label} for language, label in texts],
        "bytes_at_most": round(kbit_s * 125 * asked.length_s),
        "encoded": outlook.done,
        "encoded_s": round(outlook.picture_s, 3),
        "warnings": bitmap_warnings(asked.media, asked.held.bitmaps),
        "dry_run": True,
    }
