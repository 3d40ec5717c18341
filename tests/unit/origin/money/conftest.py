"""Both databases that books can be in."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import count
from pathlib import Path

import pytest

from farcast.origin.money.database import Place
from farcast.origin.money.ledger import Ledger

NewPlace = Callable[[], Place]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewPlace:
    """Return a maker of places for new books, in SQLite and then in PostgreSQL."""
    if request.param == "postgres":
        fresh: NewPlace = request.getfixturevalue("postgres").fresh
        return fresh
    folder, names = tmp_path_factory.mktemp("books"), count(1)

    def new() -> Path:
        return folder / f"ledger-{next(names)}.db"

    return new


@pytest.fixture
def place(new_place: NewPlace) -> Place:
    """Return the place of new books."""
    return new_place()


@pytest.fixture
def ledger(place: Place) -> Generator[Ledger]:
    """Open new books."""
    found = Ledger(place)
    yield found
    found.close()
