"""A small Farcast of real processes for the hostile tests, each started as a person starts it."""

from __future__ import annotations

import http.client
import http.server
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

from farcast.__main__ import main
from farcast.node.demo.troupe import clean_environment, free_port
from farcast.tests.wire.webserver import WebServer

ROOT = Path(__file__).resolve().parents[2]
VIEWER = "127.0.0.77"
"""Where the tests' requests come from, so that a box which wrote it down is found out."""
COMMAND_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 60.0, 30.0, 10.0
DAY_S = 86_400

_SHIFTED = """
import sys, time, datetime
shift_s, real, real_ns = int(sys.argv.pop(1)), time.time, time.time_ns
time.time, time.time_ns = lambda: real() + shift_s, lambda: real_ns() + shift_s * 10**9
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().fromtimestamp(time.time(), tz)
datetime.datetime = Shifted
from farcast.__main__ import main
main()
"""
"""The commands on a machine whose clock is wrong by so many seconds."""


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["farcast.__main__", "farcast.origin.office", "farcast.relay.service", "farcast.node.viewer", __name__]
)


def command(arguments: list[str], environment: dict[str, str], folder: str, paths: list[str]) -> None:
    """Be the process of one command: its words, environment, folder, and files as stdin, stdout, stderr."""
    for number, path in enumerate(paths[:3]):
        mode = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY
        os.dup2(os.open(path, mode, 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, "w" if number else "r", closefd=False) for number in range(3)
    )
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["farcast", *arguments]
    try:
        main()
    except SystemExit as leave:
        # told by file too: what a fork server says of its children is lost if it is asked at a bad moment
        Path(paths[3]).write_text(str(leave.code if isinstance(leave.code, int) else int(bool(leave.code))))
        raise


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever the command prints
        """What it printed with ``--json``: one JSON value and nothing else."""
        return json.loads(self.out)

    def refused(self, code: int, *words: str) -> None:
        """Assert that it failed with ``code`` and one sentence with all of ``words`` in it."""
        assert self.code == code, self
        lines = [line for line in self.err.splitlines() if not line.startswith(("warning: ", "DEBUG "))]
        assert len(lines) == 1, self
        assert lines[0].startswith("farcast: "), self
        assert len(lines[0]) > len("farcast: ") + 10, self
        assert "bug in Farcast" not in lines[0], self
        for word in words:
            assert word in lines[0], (word, self)


@dataclass
class Box:
    """One running box."""

    process: subprocess.Popen[bytes]
    home: Path
    out: Path
    log: Path
    url: str = ""
    port: int = 0

    @property
    def token(self) -> str:
        """The secret in its local address."""
        return self.url.rpartition("/")[2]

    @property
    def local(self) -> str:
        """``host:port`` of its loopback listener."""
        return urlsplit(self.url).netloc

    @property
    def rss_kib(self) -> int:
        """Its memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def api(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return what its admin API says."""
        answer = ask(self.local, "GET", f"/{self.token}{path}")
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of one metric over the series that carry ``labels``."""
        with urlopen(f"http://{self.local}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found if all(word in line for word in wanted))

    def refusals(self) -> list[str]:
        """Return the counts of what its servers refused, as scraped."""
        with urlopen(f"http://{self.local}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return [line for line in lines if line.startswith("farcast_node_http_refusals_total")]

    def stop(self) -> int:
        """End it as Ctrl-C does; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@dataclass
class Street:
    """A folder of homes, the settings they share, and what was started there."""

    folder: Path
    boxes: dict[str, Box] = field(default_factory=dict[str, Box])
    settings: dict[str, str] = field(
        default_factory=lambda: {
            "PYTHONPATH": str(ROOT / ".src"),
            "NO_COLOR": "1",
            "FARCAST_NETWORK_ALLOW_PRIVATE": "true",
            "FARCAST_NETWORK_INTERFACES": "127.0.0.1",
            "FARCAST_LISTEN_HOST": "127.0.0.1",
            "FARCAST_LISTEN_PORT": "0",
            "FARCAST_ADMIN_PORT": "0",
            "FARCAST_MESH_PORT": str(free_port()),
            "FARCAST_MESH_ZEROCONF": "false",
            "FARCAST_SATELLITE_PORT": str(free_port()),
            "FARCAST_SATELLITE_INTERFACE": "127.0.0.1",
            "FARCAST_CATALOG_POLL_S": "1",
            "FARCAST_CATALOG_IDLE_POLL_S": "1",
            "FARCAST_LOG_LEVEL": "debug",
        }
    )

    def home(self, name: str) -> Path:
        """Return where a box lives."""
        return self.folder / name

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command; an empty setting of ``extra`` is left out."""
        settings = {**self.settings, **(extra or {})}
        return clean_environment({name: text for name, text in settings.items() if text})

    def run(
        self,
        *arguments: str | Path,
        settings: Mapping[str, str] | None = None,
        given: str = "",
        shift_s: int = 0,
        within: Sequence[str] = (),
    ) -> Ran:
        """Run one command; ``given`` is its stdin, ``shift_s`` how wrong its clock is."""
        if not shift_s and not within:
            ran = self._fork([*map(str, arguments)], settings, given)
            assert "Traceback" not in ran.err, ran
            return ran
        start = ["-c", _SHIFTED, str(shift_s)] if shift_s else ["-m", "farcast"]
        done = subprocess.run(
            [*within, sys.executable, *start, *map(str, arguments)],
            input=given.encode(),
            capture_output=True,
            env=self.environment(settings),
            cwd=self.folder,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in ran.err, ran
        return ran

    def _fork(self, arguments: list[str], settings: Mapping[str, str] | None, given: str) -> Ran:
        """Run a command in a process of its own that begins with everything imported: ten times as fast."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("in", "out", "err", "code")]
            paths[0].write_text(given)
            work = (arguments, self.environment(settings), str(self.folder), [str(path) for path in paths])
            process = _FORKS.Process(target=command, args=work)
            process.start()
            process.join(COMMAND_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
            code = int(paths[3].read_text()) if paths[3].exists() else process.exitcode
            process.close()
            assert code is not None
            return Ran(code, paths[1].read_text(), paths[2].read_text())

    def must(self, *arguments: str | Path, shift_s: int = 0) -> Any:  # noqa: ANN401 - JSON
        """Run a command that works, and return its JSON."""
        ran = self.run(*arguments, "--json", shift_s=shift_s)
        assert ran.code == 0, ran
        return ran.json

    def start(
        self,
        name: str,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        shift_s: int = 0,
        within: Sequence[str] = (),
    ) -> Box:
        """Start a box in its home, ``within`` words that start it elsewhere, and wait until it listens."""
        home, out, log = self.home(name), self.folder / f"{name}.out", self.folder / f"{name}.log"
        start = ["-c", _SHIFTED, str(shift_s)] if shift_s else ["-m", "farcast"]
        with out.open("ab") as stdout, log.open("ab") as stderr:
            process = subprocess.Popen(
                [*within, sys.executable, *start, *arguments, "--home", str(home)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=self.environment(settings),
                cwd=self.folder,
                start_new_session=True,
            )
        box = self.boxes[name] = Box(process, home, out, log)
        told: dict[str, Any] = {}

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(OSError, ValueError):
                told.update(json.loads((home / "admin.json").read_text()))
            return bool(told)

        until(listens, START_TIMEOUT_S)
        box.url, box.port = told["url"], told["port"]
        return box

    def close(self) -> None:
        """End every process."""
        for box in self.boxes.values():
            if box.process.poll() is None:
                box.process.terminate()
        for box in self.boxes.values():
            try:
                box.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                box.process.kill()
                box.process.wait()


class Liar(WebServer):
    """A CDN in front of ``origin`` that is silent, or cuts every block short, or spoils it."""

    def __init__(self) -> None:
        """Listen on a free port of loopback."""
        super().__init__(_Lie)
        self.origin = 0
        self.way = ""
        self.start()


class _Lie(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        liar = self.server
        assert isinstance(liar, Liar)
        if not liar.way:
            self.send_error(503)
            return
        with urlopen(f"http://127.0.0.1:{liar.origin}{self.path}", timeout=5) as answer:
            data = bytearray(answer.read())
        if liar.way == "cut":
            self._answer(len(data), bytes(data[: len(data) // 2]))
        else:
            data[len(data) // 2] ^= 1
            self._answer(len(data), bytes(data))

    def _answer(self, length: int, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = len(body) < length

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
        del format, args


class Answered(NamedTuple):
    """A plain HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        """The reason word of a problem document."""
        return str(json.loads(self.body)["reason"])


def ask(
    place: str, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answered:
    """Make one request to ``host:port`` from the viewer's address, on a connection of its own."""
    host, _, port = place.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=15, source_address=(VIEWER, 0))
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        fields = {key.lower(): text for key, text in answer.getheaders()}
        return Answered(answer.status, answer.read(), fields)
    finally:
        connection.close()


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until ``holds``; it failing for so long is the test's failure."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s"
        time.sleep(0.05)


def names(folder: Path) -> set[str]:
    """Return every path in a folder, so that what a command left behind is seen."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


OPENED = {"blocks", "blocks/.tmp", "index.db", "encodes", "encodes/.lock"}
"""Of a home: what is there, and empty, from the first publishing on."""


def side_by_side(*work: Callable[[], None]) -> None:
    """Run commands two at a time: most of each is starting Python."""
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(one) for one in work]:
            job.result()


@contextmanager
def unchanged(folder: Path, but: str = "") -> Generator[None]:
    """Assert that a folder holds afterwards what it held before, ``but`` and below apart."""

    def seen() -> set[str]:
        return {name for name in names(folder) | OPENED if not but or not f"{name}/".startswith(f"{but}/")}

    before = seen()
    yield
    assert seen() == before


def draw(path: Path, *arguments: str) -> Path:
    """Let ffmpeg make a small file."""
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *arguments, str(path)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ})
    return path


PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=128x72:rate=10:duration=8")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:duration=8")
FILM = (*PICTURE, *SOUND, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
