from __future__ import annotations

import subprocess
import sys

START = "import sys; from farcast.node.catalog.updater import Updater, UpdaterConfig, FetcherInterface; "


def ran(script: str) -> str:
    """Return what a new Python says, because this one may have imported all of tuf long ago."""
    command = [sys.executable, "-c", START + script]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_the_updater_comes_without_an_http_client() -> None:
    assert ran("print('tuf.ngclient.updater' in sys.modules, 'urllib3' in sys.modules)") == "True False"


def test_whoever_wants_it_gets_the_client_that_tuf_makes() -> None:
    script = (
        "import tuf.ngclient as tuf; made = tuf.Urllib3Fetcher(socket_timeout=7)\n"
        "from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher\n"
        "print(type(made) is Urllib3Fetcher, made.socket_timeout, isinstance(made, FetcherInterface))"
    )
    assert ran(script) == "True 7 True"


def test_whatever_else_tuf_asks_of_that_module_is_the_real_thing() -> None:
    script = (
        "from farcast.node.catalog.updater import _without_urllib3\n"
        "with _without_urllib3():\n"
        "    from tuf.ngclient.urllib3_fetcher import logger, Urllib3Fetcher\n"
        "print(logger.name, 'urllib3' in sys.modules, sys.modules[logger.name].logger is logger)"
    )
    assert ran(script) == "tuf.ngclient.urllib3_fetcher True True"


def test_tuf_imported_before_is_left_as_it_is() -> None:
    command = (
        "import tuf.ngclient.urllib3_fetcher as real; " + START + "print(real.Urllib3Fetcher.__module__, "
    )
    command += "sys.modules['tuf.ngclient.urllib3_fetcher'] is real)"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "tuf.ngclient.urllib3_fetcher True"
