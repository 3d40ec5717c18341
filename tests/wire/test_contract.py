"""An operator's contract with real processes: pause, SIGHUP, volume, leave; downloads run through."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.street import FILM, Box, Street, ask, draw, until

NOISE = "testsrc2=size=320x180:rate=10:duration=8,noise=alls=80:allf=t"
"""A picture that does not compress, so that its files take a while at a slow rate."""


NEIGHBOUR = "127.0.0.78"
"""Where slow readers come from: the origin dials back from 127.0.0.1, and is a client too."""


@dataclass
class Lane:
    """One origin, one relay, and a file of some size that the relay holds."""

    street: Street
    origin: Box
    relay: Box
    settings: dict[str, str]
    file: str

    @property
    def place(self) -> str:
        """Where the relay listens."""
        return f"127.0.0.1:{self.relay.port}"

    def command(self, *words: str) -> Any:  # noqa: ANN401 - JSON
        """Run a command of the relay's operator."""
        return self.street.must("relay", *words, "--home", self.relay.home)

    def write(self, text: str) -> None:
        """Write the relay's settings.toml and let it read them again."""
        (self.relay.home / "settings.toml").write_text(text)
        before = self.log().count("settings ")
        self.relay.process.send_signal(signal.SIGHUP)
        until(lambda: self.log().count("settings ") > before)

    def restart(self) -> None:
        """Kill the relay with SIGKILL and start it again."""
        self.relay.process.kill()
        self.relay.process.wait()
        (self.relay.home / "admin.json").unlink()
        self.relay = self.street.start("relay", "relay", "run", settings=self.settings)

    def log(self) -> str:
        """Return what the relay has logged."""
        return self.relay.log.read_text()

    def sent_bytes(self) -> float:
        """Return what the relay has sent to what it takes for the Internet."""
        return self.relay.metric("farcast_relay_contract_internet_bytes_total", direction="up")

    def standing(self) -> dict[str, Any]:
        """Return how the origin sees the relay."""
        found = self.street.must("origin", "relays", "--home", self.origin.home)["relays"]
        return dict[str, Any](found[0])


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Generator[Lane]:
    """Bring an origin and a relay up; the relay counts loopback as the Internet."""
    folder = tmp_path_factory.mktemp("lane")
    street, port = Street(folder), free_port()
    home = street.home("origin")
    try:
        street.must("origin", "init", "--endpoint", f"127.0.0.1:{port}", "--home", home)
        street.must("origin", "payee", "add", "ada", "--home", home)
        film = draw(folder / "film.mp4", "-f", "lavfi", "-i", NOISE, *FILM[4:])
        street.must("origin", "publish", film, "--preset", "ultrafast", "--home", home)
        where = {"FARCAST_LISTEN_PORT": str(port), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
        origin = street.start("origin", "origin", "run", settings=where)
        link = street.must("origin", "invite", "--relay", "--home", home)["link"]
        settings = {
            "FARCAST_LISTEN_PORT": str(free_port()), "FARCAST_NETWORK_ANNOUNCE": "", "FARCAST_LOG_LEVEL": "",
        }  # fmt: skip
        settings["FARCAST_NETWORK_ANNOUNCE"] = f"127.0.0.1:{settings['FARCAST_LISTEN_PORT']}"
        joined = street.run("relay", "join", link, "--home", street.home("relay"), settings=settings)
        assert joined.code == 0, joined
        (street.home("relay") / "settings.toml").write_text("[contract]\nlan_exempt = false\n")
        relay = street.start("relay", "relay", "run", settings=settings)
        lane = Lane(street, origin, relay, settings, "")
        until(lambda: relay.api("/api/status")["verdict"] == "Serving", 30)
        yield lane
    finally:
        street.close()


class Slow:
    """A client that reads a body a little at a time, so that much can happen meanwhile."""

    def __init__(self, place: str, path: str) -> None:
        host, _, port = place.rpartition(":")
        self._connection = http.client.HTTPConnection(
            host, int(port), timeout=30, source_address=(NEIGHBOUR, 0)
        )
        self._connection.connect()
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self._connection.request("GET", path)
        self._answer = self._connection.getresponse()
        self.status, self.length = self._answer.status, int(self._answer.headers["content-length"])
        self.read = len(self._answer.read(1))

    def finish(self) -> int:
        """Read the rest and return how many bytes came."""
        self.read += len(self._answer.read())
        self._connection.close()
        return self.read


def film_file(lane: Lane) -> str:
    """Return the path of the largest file of the film, which the relay has by then."""
    if lane.file:
        return lane.file
    master = ask(lane.place, "GET", "/watch/film/master.m3u8").body.decode()
    sizes: dict[str, int] = {}
    for line in [line for line in master.splitlines() if line.endswith(".m3u8")]:
        folder = line.rpartition("/")[0]
        media = ask(lane.place, "GET", f"/watch/film/{line}").body.decode()
        for name in [name for name in media.splitlines() if name and not name.startswith("#")]:
            path = f"/watch/film/{folder}/{name}" if folder else f"/watch/film/{name}"
            sizes[path] = len(ask(lane.place, "GET", path).body)
    lane.file = max(sizes, key=lambda path: sizes[path])
    return lane.file


SLOW = '[contract]\nlan_exempt = false\nrate_up_bps = "64 kbit/s"\n'
"""A second's burst and then 8 kB a second: the film's largest file takes 11 seconds."""
FREE = "[contract]\nlan_exempt = false\n"


def test_pause_lets_what_is_under_way_finish_and_begins_nothing_new(lane: Lane) -> None:
    path = film_file(lane)
    lane.write(SLOW)
    slow = Slow(lane.place, path)
    assert slow.status == 200
    assert slow.length > 60_000
    assert lane.command("pause") == {"state": "paused", "connections": 1, "origin_told": True}
    refused = ask(lane.place, "GET", path)
    assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "paused", "600")
    ready = ask(lane.place, "GET", "/readyz")
    assert (ready.status, ask(lane.place, "GET", "/healthz").status) == (503, 200)
    assert lane.standing()["wish"] == "paused"
    assert not lane.standing()["listed"]
    sent = lane.sent_bytes()
    lane.write(FREE)
    assert slow.finish() == slow.length
    until(lambda: lane.sent_bytes() > sent + 8_000)  # it was under way all the time
    status = lane.relay.api("/api/status")
    assert status["verdict"].startswith("Paused")
    assert lane.relay.metric("farcast_relay_contract_state", state="paused") == 1
    lane.restart()
    assert ask(lane.place, "GET", path).status == 503, "it holds across a crash"
    assert lane.command("resume")["state"] == "serving"
    assert ask(lane.place, "GET", path).status == 200
    assert lane.standing()["listed"]


def test_a_download_runs_through_sighup_and_the_rates_change(lane: Lane) -> None:
    path = film_file(lane)
    lane.write(SLOW)
    slow = Slow(lane.place, path)
    lane.write('[contract]\nlan_exempt = false\nrate_up_bps = "72 kbit/s"\n[batch]\nmax_pulses = 900\n')
    line = lane.log().splitlines()[-1]
    assert "from now on contract.rate_up_bps = 72000" in line
    assert "from the next start on batch.max_pulses = 900" in line
    assert lane.relay.metric("farcast_relay_contract_rate_bytes_per_second", direction="up") == 9_000
    lane.write('[contract]\nrate_up_bps = "fast"\n')
    assert "the old ones stay" in lane.log().splitlines()[-1]
    assert "[contract] rate_up_bps: expected an integer" in lane.log().splitlines()[-1]
    assert lane.relay.metric("farcast_relay_contract_rate_bytes_per_second", direction="up") == 9_000
    assert lane.relay.metric("farcast_relay_settings_reloads_total", result="refused") == 1
    sent = lane.sent_bytes()
    lane.write(FREE)
    assert slow.finish() == slow.length
    until(lambda: lane.sent_bytes() > sent + 8_000)  # it was under way all the time


def test_a_client_may_have_so_many_connections_and_no_more(lane: Lane) -> None:
    path = film_file(lane)
    lane.write(SLOW + "client_connections = 1\n")
    slow = Slow(lane.place, path)
    second = Slow(lane.place, path)
    second.finish()
    assert (slow.status, second.status) == (200, 429)
    assert ask(lane.place, "HEAD", path).status == 200, "another address is another client"
    lane.write(FREE)
    assert ask(lane.place, "GET", path).status == 200
    assert slow.finish() == slow.length
    assert lane.relay.metric("farcast_node_http_refusals_total", reason="client_connections") >= 1


def test_the_volume_counts_both_ways_hibernates_and_survives_a_kill(lane: Lane) -> None:
    path = film_file(lane)
    size = len(ask(lane.place, "GET", path).body)
    until(lambda: lane.relay.api("/api/status")["contract"]["up_bytes"] >= size)
    contract = lane.relay.api("/api/status")["contract"]
    assert contract["down_bytes"] > 0
    assert contract["used_bytes"] == contract["up_bytes"] + contract["down_bytes"]
    lane.write('[contract]\nlan_exempt = false\nvolume_bytes = "10 MB"\n')
    end = time.monotonic() + 30
    while ask(lane.place, "GET", path).status == 200:
        assert time.monotonic() < end
    refused = ask(lane.place, "GET", path)
    assert (refused.status, refused.reason) == (503, "hibernating")
    status = lane.relay.api("/api/status")
    assert status["verdict"].startswith("Hibernating until ")
    assert status["contract"]["wakes"][:10] in status["verdict"]
    used = status["contract"]["used_bytes"]
    until(lambda: json.loads((lane.relay.home / "contract.json").read_text())["usage"]["up_bytes"] > 9e6)
    lane.restart()
    again = lane.relay.api("/api/status")["contract"]
    assert again["state"] == "hibernating"
    assert used - 100_000 <= again["used_bytes"], "at most 1 % of 10 MB was lost"
    assert lane.relay.metric("farcast_relay_contract_remaining_bytes") < 500_000
    lane.write("[contract]\nlan_exempt = false\n")
    assert ask(lane.place, "GET", path).status == 200


def test_a_check_before_joining_lets_the_origin_dial_back_and_spends_nothing(lane: Lane) -> None:
    link = lane.street.must("origin", "invite", "--relay", "--home", lane.origin.home)["link"]
    stranger = lane.street.home("stranger")
    port = str(free_port())
    settings = {"FARCAST_LISTEN_PORT": port, "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{port}"}
    ran = lane.street.run("relay", "check", link, "--home", stranger, "--json", settings=settings)
    found = {finding["name"]: finding for finding in ran.json["findings"]}
    assert (ran.code, ran.json["ready"], ran.json["published"]) == (0, True, [f"127.0.0.1:{port}"])
    assert set(found) == {"disk", "disk speed", "port", "reachable", "address", "speed", "clock"}
    assert (found["reachable"]["mark"], found["clock"]["mark"]) == ("good", "good")
    assert "TCP and UDP" in found["reachable"]["text"]
    assert not stranger.exists(), "it leaves nothing behind"
    closed = settings | {"FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{free_port()}"}
    ran = lane.street.run("relay", "check", link, "--home", stranger, settings=closed)
    assert ran.code == 1
    assert ran.out.startswith("Not ready: reachable: not at 127.0.0.1 (TCP: Connection refused); forward")
    assert "directory then shows everybody its address" in ran.out
    running = lane.street.run("relay", "check", link, "--home", lane.relay.home, settings=lane.settings)
    assert running.code == 0, running
    assert "the relay that runs here has it" in running.out
    wrong = lane.street.run(
        "relay", "check", link, "--home", stranger, "--json", settings=settings, shift_s=600
    )
    said = re.match(r"Not ready: clock: (\d+\.\d) s ahead", wrong.json["verdict"])
    assert said, wrong
    assert float(said[1]) == pytest.approx(600, abs=2)  # half of an answer's way is unsure


def test_a_refusal_says_why_and_leaving_takes_it_off_the_directory(lane: Lane) -> None:
    key = lane.standing()["id"]
    lane.street.must(
        "origin", "relays", "refuse", key, "--reason", "two in one house", "--home", lane.origin.home
    )
    lane.relay.process.send_signal(signal.SIGHUP)  # it renews then
    until(lambda: "because two in one house" in lane.relay.api("/api/status")["verdict"])
    lane.street.must("origin", "relays", "approve", key, "--home", lane.origin.home)
    lane.relay.process.send_signal(signal.SIGHUP)
    until(lambda: lane.relay.api("/api/status")["verdict"] == "Serving")
    left = lane.command("leave")
    assert (left["purged"], left["pulses"]) == (False, 0)
    assert (lane.standing()["wish"], lane.standing()["listed"]) == ("left", False)
    lane.relay.process.terminate()
    assert lane.relay.process.wait(10) == 0
    ran = lane.street.run("relay", "run", "--home", lane.relay.home, settings=lane.settings)
    ran.refused(2, "has left its origin", "farcast relay join")
    assert lane.command("leave", "--purge")["purged"]
    assert not lane.relay.home.exists()
