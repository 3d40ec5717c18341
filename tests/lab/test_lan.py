"""The doctor between two network namespaces: a firewall of its own, multicast cut between, and all well.

The file is also the program in each namespace: ``test_lan.py look`` prints what a probe sees, ``test_lan.py
speak`` is another machine that speaks to the group.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Protocol

import pytest

from farcast.node.doctor.finding import State
from farcast.node.doctor.lan import Seen, judge_lan
from farcast.node.doctor.lanprobe import look

GROUP, PORT = "239.255.74.34", 7_434


class Wire(Protocol):
    """Two namespaces, see conftest."""

    addresses: tuple[str, str]

    def filter(self, end: int, rules: str) -> None:
        """Load nftables rules at one end."""
        ...

    def start(self, end: int, script: str, *words: str) -> subprocess.Popen[str]:
        """Run this file at one end."""
        ...


def speak(own: str, other: str) -> None:
    """Be another machine: known to the other one by its frames, and heard in the group."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        while True:
            for place in ((GROUP, PORT), (other, 9)):
                try:
                    sock.sendto(b"hello", place)
                except OSError:  # a filter that refuses
                    continue
            print("spoken", flush=True)  # noqa: T201 - the parent waits for it
            time.sleep(0.2)


def chain(hook: str, rule: str) -> str:
    """Return a ruleset of one rule."""
    lines = (f"chain {hook} {{", f"type filter hook {hook} priority 0; policy accept;", rule, "}")
    return "\n".join(("table inet lab {", *lines, "}", ""))


def seen_by(wire: Wire, *, other: bool) -> list[Seen]:
    """Look from one end, with another machine at the other or none."""
    if other:
        speaker = wire.start(1, __file__, "speak", wire.addresses[1], wire.addresses[0])
        assert speaker.stdout is not None
        for _ in range(2):
            assert speaker.stdout.readline() == "spoken\n"
        contact = wire.start(0, __file__, "greet", wire.addresses[1])  # so that it is known by its frames
        assert contact.wait(20) == 0
    out, err = wire.start(0, __file__, "look").communicate(timeout=40)
    assert out, err
    return [Seen(*row) for row in json.loads(out)]


@pytest.mark.lab
def test_a_network_where_all_is_well_and_nobody_or_somebody_is_there(wire: Wire) -> None:
    [alone] = seen_by(wire, other=False)
    assert (alone.refused, alone.echoed, alone.heard, alone.known) == ("", True, 0, 0)
    [together] = seen_by(wire, other=True)
    assert (together.echoed, together.heard, together.known) == (True, 1, 1)
    assert judge_lan([together], 0, PORT).state is State.OK


@pytest.mark.lab
def test_a_firewall_of_this_machine_is_told_from_multicast_that_is_cut_between(wire: Wire) -> None:
    wire.filter(0, chain("input", f"udp dport {PORT} drop"))
    [shut] = seen_by(wire, other=True)
    assert (shut.echoed, shut.heard) == (False, 0)
    assert "a firewall on this machine" in judge_lan([shut], 0, PORT).sentence
    wire.filter(0, "flush ruleset")
    wire.filter(0, chain("output", f"udp dport {PORT} reject"))
    [mute] = seen_by(wire, other=False)
    assert mute.refused or not mute.echoed
    assert judge_lan([mute], 0, PORT).state is State.BAD
    wire.filter(0, "flush ruleset")
    wire.filter(1, chain("output", f"ip daddr {GROUP} drop"))
    [cut] = seen_by(wire, other=True)
    assert (cut.echoed, cut.heard, cut.known) == (True, 0, 1)
    found = judge_lan([cut], 0, PORT)
    assert "multicast does not pass" in found.sentence
    assert "IGMP snooping" in found.mend


if __name__ == "__main__":
    match sys.argv[1]:
        case "speak":
            speak(sys.argv[2], sys.argv[3])
        case "greet":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for _ in range(5):
                    sock.sendto(b"hello", (sys.argv[2], 9))
                    time.sleep(0.1)
        case _:
            print(json.dumps(look((), GROUP, PORT)))  # noqa: T201 - likewise
