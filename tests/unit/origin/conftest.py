from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farcast.tests.unit.origin.countinghouse import CountingHouse, found

OpenHouse = Callable[..., CountingHouse]


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("founded") / "home"
    found(home)
    return home


@pytest.fixture
def open_house(founded: Path, tmp_path: Path) -> Iterator[OpenHouse]:
    """Open the same origin's office again and again, each time with other settings perhaps."""
    home, opened = tmp_path / "home", list[CountingHouse]()
    shutil.copytree(founded, home)

    def open_(environ: dict[str, str] | None = None) -> CountingHouse:
        for house in opened:
            house.close()
        opened[:] = [CountingHouse(home, environ)]
        return opened[0]

    yield open_
    for house in opened:
        house.close()


@pytest.fixture
def house(open_house: OpenHouse) -> CountingHouse:
    return open_house()
