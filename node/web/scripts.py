"""The web player's scripts as they are sent: minified where `make page` had npm, else as they are written.

node/page/minify.mjs makes the small ones, with their source maps, and notes of which sources.
"""

from __future__ import annotations

import functools
import hashlib
import re
from importlib.resources import files

PACKAGE = "farcast.node.web"
SCRIPTS = ("sw.js", "account.js", "player.js", "join.js")
_IMPORT = re.compile(r'^importScripts\("(.+)"\);\n', re.MULTILINE)
_STRICT = '"use strict";\n'


def script(name: str) -> bytes:
    """Return one of ``SCRIPTS`` as it is sent."""
    return small(name) if minified() else written(name)


def small(name: str) -> bytes:
    """Return a file that was made by minifying: a script, or its source map by its name and ``.map``."""
    return files(PACKAGE).joinpath("small", name).read_bytes()


@functools.cache
def minified() -> bool:
    """Say whether the minified scripts are here, all made of the sources that are beside them."""
    here = files(PACKAGE)
    made, names = here.joinpath("small", "made"), sorted(one.name for one in here.iterdir())
    sources = b"".join(here.joinpath(name).read_bytes() for name in names if name.endswith(".js"))
    return made.is_file() and made.read_text() == hashlib.sha256(sources).hexdigest()


def written(name: str) -> bytes:
    """Return a script as it is written, lean, with the one it imports at once in its place."""
    return _IMPORT.sub(lambda found: _lean(found[1]).removeprefix(_STRICT), _lean(name)).encode()


def _lean(name: str) -> str:
    """Return a script without comment lines, indents and empty lines."""
    lines = (line.strip() for line in files(PACKAGE).joinpath(name).read_text("utf-8").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"
