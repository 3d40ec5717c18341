"""farcast: this repository is the package, so ``relay/`` is ``farcast.relay``."""

from os.path import realpath

__path__ = [realpath(part) for part in __path__]  # tracebacks name relay/, not .src/farcast/relay/
