"""What ``farcast demo --serve`` wrote down, as the system tests read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen


@dataclass(frozen=True)
class Served:
    """A demo left up: its report, and the folder all its homes are in."""

    result: dict[str, Any]
    folder: Path

    @property
    def urls(self) -> dict[str, Any]:
        """Every address."""
        return dict[str, Any](self.result["urls"])

    @property
    def film(self) -> dict[str, Any]:
        """The film's facts."""
        return dict[str, Any](self.result["film"])

    @property
    def title(self) -> str:
        """The film's id."""
        return str(self.film["title"])

    @property
    def gateway(self) -> str:
        """The node's loopback address, token included."""
        return str(self.urls["gateways"][0])

    @property
    def pids(self) -> list[int]:
        """Every process but the demo's own."""
        found: list[int] = []
        for value in self.result["pids"].values():
            found += value if isinstance(value, list) else [value]
        return found

    def home(self, name: str) -> Path:
        """Return a box's home."""
        (demo,) = self.folder.glob("farcast-demo-*")
        return demo / name

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself."""
        with urlopen(f"{self.gateway}/api/status", timeout=10) as answer:  # noqa: S310 - loopback
            return dict[str, Any](json.load(answer))
