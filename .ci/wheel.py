"""What a wheel says while it is made: which parts of the pages are not in it, because npm was not here."""  # noqa: INP001

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WITHOUT = {
    "node/page/vendor/hls.min.js": "the pages use the browser's own HLS",
    "node/web/small/made": "the web player's scripts are sent as they are written, twice as large",
}


class MissingParts(BuildHookInterface):
    """Names each part that is missing, what goes on without it, and what brings it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Look before anything is packed; an editable install packs nothing."""
        del build_data
        if version == "editable":
            return
        for part, instead in WITHOUT.items():
            if not Path(self.root, part).is_file():
                self.app.display_warning(
                    f"{part} is missing: {instead}. `make page` makes it where npm is installed."
                )
