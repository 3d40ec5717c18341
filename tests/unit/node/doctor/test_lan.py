"""What the doctor makes of a local network: one sentence and one mend for each way it can be shut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.doctor import lanprobe
from farcast.node.doctor.finding import State
from farcast.node.doctor.lan import Seen, judge_filter, judge_ipv6, judge_lan
from farcast.node.doctor.patient import Patient
from farcast.node.settings import Settings

WELL = Seen("eth0", wireless=False, refused="", echoed=True, heard=2, known=3)


@pytest.mark.parametrize(
    ("seen", "neighbours", "state", "words", "mend"),
    [
        ([], 3, State.OK, "3 neighbours", ""),
        ([WELL], 0, State.OK, "no neighbour of this origin", ""),
        ([WELL._replace(heard=0, known=0)], 0, State.OK, "nobody else", ""),
        ([], 0, State.WARNING, "on no local network", "connect it"),
        (
            [WELL._replace(refused="Operation not permitted")],
            0,
            State.BAD,
            "may not send multicast",
            "out of",
        ),
        ([WELL._replace(echoed=False, heard=0)], 0, State.BAD, "does not hear itself", "in from the local"),
        ([WELL._replace(heard=0)], 0, State.WARNING, "3 machines known there, none heard", "IGMP snooping"),
        (
            [WELL._replace(heard=0, known=0, wireless=True, name="wlan0")],
            0,
            State.WARNING,
            "on the Wi-Fi wlan0",
            "client isolation",
        ),
        ([WELL, WELL._replace(heard=0, known=0, wireless=True)], 0, State.OK, "multicast works here", ""),
        ([WELL, WELL._replace(echoed=False)], 0, State.BAD, "a firewall on this machine", "7434"),
    ],
)
def test_each_way_to_be_shut_off_has_its_sentence_and_its_mend(
    seen: list[Seen], neighbours: int, state: State, words: str, mend: str
) -> None:
    found = judge_lan(seen, neighbours, 7_434)
    assert found.state is state, found
    assert words in found.sentence
    assert mend in found.mend
    assert bool(found.mend) == (state is not State.OK)


@given(
    st.lists(
        st.builds(
            Seen,
            st.just("eth0"),
            st.booleans(),
            st.sampled_from(["", "denied"]),
            st.booleans(),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        max_size=4,
    )
)
def test_whatever_was_seen_there_is_one_finding_and_the_worst_wins(seen: list[Seen]) -> None:
    found = judge_lan(seen, 0, 7_434)
    shut = any(one.refused or not one.echoed for one in seen)
    assert (found.state is State.BAD) == shut
    assert "\n" not in found.sentence


@pytest.mark.parametrize(
    ("addresses", "state", "words"),
    [
        (["127.0.0.1", "192.168.1.5"], State.WARNING, "has no IPv6"),
        (["127.0.0.1", "::1", "192.168.1.5"], State.WARNING, "has no IPv6"),
        (["::1", "192.168.1.5", "fe80::1"], State.OK, "local network alone"),
        (["192.168.1.5", "fe80::1", "2a01:4f8::1"], State.OK, "public IPv6"),
    ],
)
def test_ipv6_is_there_or_not_or_at_home_alone(addresses: list[str], state: State, words: str) -> None:
    found = judge_ipv6(addresses)
    assert (found.state, words in found.sentence) == (state, True), found


def rules(policy: str, *lines: str) -> str:
    """Return a ruleset as nft prints it."""
    inside = "\n\t\t".join((f"type filter hook input priority filter; policy {policy};", *lines))
    return f"table inet filter {{\n\tchain input {{\n\t\t{inside}\n\t}}\n}}\n"


@pytest.mark.parametrize(
    ("text", "shut"),
    [
        ("", False),
        (rules("accept"), False),
        (rules("drop"), True),
        (rules("drop", 'iif "lo" accept', "ct state established,related accept"), True),
        (rules("drop", "tcp dport 22 accept"), True),
        (rules("drop", "tcp dport 7433 accept"), False),
        (rules("drop", "tcp dport { 22, 7000-8000 } accept"), False),
        (rules("drop", "tcp dport @open accept"), False),
        (rules("drop", "jump allowed"), False),
        (rules("drop", "counter packets 3 bytes 4 accept"), False),
        (rules("drop").replace("hook input", "hook output"), False),
    ],
)
def test_a_filter_that_keeps_the_port_shut_is_found_and_what_cannot_be_told_is_not_said(
    text: str, *, shut: bool
) -> None:
    found = judge_filter(text, 7_433, 7_434)
    assert (found.state is State.BAD) == shut, found


@given(st.text(alphabet="chain{} \n\tabdropinput;hook0123@-,.accept", max_size=400))
def test_any_text_for_rules_is_read(text: str) -> None:
    judge_filter(text, 7_433, 7_434)


def test_a_packet_filter_that_does_not_answer_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\nexec sleep 60\n")
    nft.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lanprobe, "RULES_S", 0.05)
    patient = Patient(tmp_path, "node", Settings.load(tmp_path, {}), None, None, None, [], "", 7433, 0)
    assert "nft does not answer" in lanprobe.check_firewall(patient).sentence
