"""Fixtures all tests share: real programs to talk to, and the golden vectors."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from farcast.tests.postgres import PostgresServer
    from farcast.tests.system.chromium import Browser, Tab

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell, and so in every child
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("farcast", deadline=None)  # a busy machine is not a wrong answer
settings.load_profile("farcast")

PEERS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcast-peers"
"""Where ``.ci/peers.sh`` puts the programs it builds."""

VECTORS = Path(__file__).parent / "vectors"

HOW_TO_INSTALL = {
    "caddy": ".ci/peers.sh caddy",
    "helia-node": ".ci/peers.sh helia",
    "ip": "apt-get install iproute2",
    "ipfs": ".ci/peers.sh kubo",
    "nft": "apt-get install nftables",
    "miniupnpd": "apt-get install miniupnpd-nftables",
    "initdb": "apt-get install postgresql",
    "nginx": "apt-get install nginx-light",
    "node": "apt-get install nodejs",
    "tc": "apt-get install iproute2",
    "p2p-python": ".ci/peers.sh gossip",
    "promtool": "apt-get install prometheus",
    "varnishd": "apt-get install varnish",
    "vlc": "apt-get install vlc-bin vlc-plugin-base",
    "unshare": "apt-get install util-linux",
    "zbarimg": "apt-get install zbar-tools",
}

Need = Callable[..., str]


def peers_required() -> bool:
    """Say whether a skip is a failure, as in CI."""
    return os.environ.get("FARCAST_REQUIRE_PEERS") == "1"


def installed(program: str, *folders: str | Path) -> str | None:
    """Return where a program is, None where it is nowhere that ``need`` looks."""
    places = (*map(str, folders), str(PEERS), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
    return shutil.which(program, path=os.pathsep.join(places))


@pytest.fixture(scope="session")
def need() -> Need:
    """Return ``need(program, *folders) -> path``: skips where the program is in none of them.

    PATH, the sbin folders and the cache of built peers are looked at as well.
    """

    def find(program: str, *folders: str | Path) -> str:
        path = installed(program, *folders)
        if path is None:
            how = HOW_TO_INSTALL.get(program, f"apt-get install {program}")
            reason = f"{program} is not installed: {how}"
            if peers_required():
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


@pytest.fixture(scope="session")
def postgres(need: Need) -> Generator[PostgresServer]:
    """Yield a real PostgreSQL server."""
    from farcast.tests.postgres import PostgresServer

    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    programs = Path(need("initdb", *reversed(versions))).parent
    need("setpriv")
    server = PostgresServer(programs)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def browser(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    """Start one Chromium for all tests that want a tab."""
    from farcast.tests.system.chromium import Browser

    started = Browser(need("chromium"), tmp_path_factory.mktemp("browser") / "profile")
    yield started
    started.close()


@pytest.fixture
async def tab(browser: Browser) -> AsyncGenerator[Tab]:
    """Open a tab that shares nothing with any other test's."""
    async with browser.tab(apart=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Any]:
    """Return a reader of ``tests/vectors/NAME.json``."""
    return lambda name: json.loads((VECTORS / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def vector_script() -> Callable[[str], ModuleType]:
    """Return a loader of ``tests/vectors/NAME.py``, the script beside the golden bytes."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, VECTORS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where every peer is required."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and peers_required():
        report.outcome = "failed"
        report.longrepr = f"skipped where FARCAST_REQUIRE_PEERS=1 allows no skip: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a test file that skips itself into a failure where every peer is required."""
    report = yield
    if report.skipped and peers_required():
        report.outcome = "failed"
        report.longrepr = f"skipped where FARCAST_REQUIRE_PEERS=1 allows no skip: {report.longrepr}"
    return report
