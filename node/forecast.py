"""The forecast: what comes by satellite and when, in the names that people know."""

from __future__ import annotations

from typing import Any

from ..protocol.errors import FarcastError
from ..satellite.antenna import Antenna
from .catalog.library import Library


def forecast(antenna: Antenna | None, library: Library) -> dict[str, Any] | None:
    """Return the sky's facts and the listed titles that come; None on a box that does not receive."""
    if antenna is None:
        return None
    sky = antenna.sky()
    coming = [
        {**one._asdict(), "name": _name(library, one.title)} for one in sky.coming if library.lists(one.title)
    ]
    return {**sky._asdict(), "coming": coming}


def _name(library: Library, title: str) -> str:
    """Return what people call a title; its id before the manifest is here."""
    try:
        return library.manifest(title).name
    except FarcastError:
        return title
