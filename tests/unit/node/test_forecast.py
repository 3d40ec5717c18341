"""What a person is told of the sky."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from farcast.node.catalog.library import Library
from farcast.node.forecast import forecast
from farcast.protocol.errors import RefusedError
from farcast.satellite.antenna import Antenna, Coming, Sky


class Shelf:
    """Lists two titles and has the manifest of one."""

    def lists(self, title: str) -> bool:
        """Say whether a title is listed."""
        return title in ("coast", "dawn")

    def manifest(self, title: str) -> object:
        """Return what names the title."""
        if title != "coast":
            raise RefusedError("not here yet", status=503, reason="no_manifest")
        return SimpleNamespace(name="The coast")


def test_listed_titles_come_under_the_names_people_know_in_their_order() -> None:
    coming = [Coming("gone", 0, 5), Coming("dawn", 3, 9), Coming("coast", 9, 14)]
    dish = SimpleNamespace(
        sky=lambda: Sky(heard=True, rate_bps=2, collecting=1, stored_bytes=4, coming=coming)
    )
    assert forecast(cast("Antenna", dish), cast("Library", Shelf())) == {
        "heard": True,
        "rate_bps": 2,
        "collecting": 1,
        "stored_bytes": 4,
        "coming": [
            {"title": "dawn", "name": "dawn", "begins_in_s": 3, "whole_in_s": 9},
            {"title": "coast", "name": "The coast", "begins_in_s": 9, "whole_in_s": 14},
        ],
    }


def test_a_box_that_does_not_receive_has_no_forecast() -> None:
    assert forecast(None, cast("Library", Shelf())) is None
