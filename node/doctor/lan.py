"""How the local network stands: judged from what a probe saw, worst first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

from .finding import Finding, bad, ok, warning


class Seen(NamedTuple):
    """What a probe saw on one interface of this machine.

    ``refused`` is why nothing could be sent to the group, empty where it could; ``echoed`` whether this
    machine heard itself there; ``heard`` other machines that spoke or answered by multicast; ``known``
    machines it exchanges frames with, its router apart.
    """

    name: str
    wireless: bool
    refused: str
    echoed: bool
    heard: int
    known: int


def judge_lan(seen: Sequence[Seen], neighbours: int, port: int) -> Finding:
    """Say whether boxes of this network can find each other.

    ``neighbours`` are those the running box knows, 0 where it does not run; ``port`` is that of presence.
    """
    name = "lan"
    if neighbours:
        return ok(name, f"{_count(neighbours, 'neighbour')} on this network")
    if not seen:
        return warning(
            name,
            "this machine is on no local network, so there are no neighbours",
            "connect it, or name its address in [network] interfaces",
        )
    heard = any(one.heard for one in seen)
    for judge in (_local,) if heard else (_local, _between, _alone):
        for one in seen:
            if (found := judge(name, one, port)) is not None:
                return found
    who = "no neighbour of this origin" if heard else "nobody else"
    return ok(name, f"multicast works here; {who} is on the network now")


def _local(name: str, one: Seen, port: int) -> Finding | None:
    """Judge what this machine does to its own multicast."""
    if one.refused:
        return bad(
            name,
            f"this machine may not send multicast on {one.name}: {one.refused}",
            f"let UDP to port {port} out of its own firewall",
        )
    if not one.echoed:
        return bad(
            name,
            f"a firewall on this machine keeps multicast out on {one.name}: it does not hear itself",
            f"let UDP port {port}, and TCP and UDP of the box's own port, in from the local network",
        )
    return None


def _between(name: str, one: Seen, port: int) -> Finding | None:
    """Judge a network on which machines are known and none was heard."""
    del port
    if not one.known:
        return None
    return warning(
        name,
        f"multicast does not pass between the machines on {one.name}: "
        f"{_count(one.known, 'machine')} known there, none heard",
        "switch multicast filtering (IGMP snooping without a querier) off at the switch or access point",
    )


def _alone(name: str, one: Seen, port: int) -> Finding | None:
    """Judge a Wi-Fi on which nobody shows."""
    del port
    if not one.wireless:
        return None
    return warning(
        name,
        f"no other machine shows itself on the Wi-Fi {one.name}: it is alone there, or the access point "
        "keeps its clients apart",
        "switch client isolation (guest network) off, or use a cable",
    )


def judge_ipv6(addresses: Sequence[str]) -> Finding:
    """Say whether this machine has IPv6; ``addresses`` are all its own, without scopes."""
    name = "ipv6"
    found = [ip_address(text) for text in addresses if ":" in text]
    if not any(not one.is_loopback for one in found):
        return warning(
            name,
            "this machine has no IPv6: it finds neighbours by IPv4 alone, and behind a shared IPv4 address "
            "nobody can dial it",
            "switch it on: sysctl -w net.ipv6.conf.all.disable_ipv6=0, and ask the provider for it",
        )
    if any(one.is_global for one in found):
        return ok(name, "this machine has a public IPv6 address")
    return ok(name, "this machine has IPv6 on the local network alone")


def judge_filter(rules: str, port: int, presence_port: int) -> Finding:
    """Say what the machine's own packet filter does to this box; ``rules`` as `nft list ruleset` prints them.

    A chain on the input hook whose policy is drop, and in which neither the port nor everything is
    accepted, keeps others out. What sets, jumps and marks do cannot be told from the text: then nothing is.
    """
    name = "firewall"
    for chain in _input_chains(rules):
        words = " ".join(chain)
        if "policy drop" not in words or "jump " in words or "goto " in words:
            continue
        accepted = [line for line in chain if "accept" in line and "policy" not in line]
        if any(_names(line, port) for line in accepted):
            continue
        return bad(
            name,
            f"this machine's firewall drops what comes to port {port}, so nobody reaches this box",
            f"accept TCP and UDP port {port}, and UDP port {presence_port}, in that chain of nft's ruleset",
        )
    return ok(name, f"no rule of this machine's firewall keeps port {port} shut, as far as can be told")


def _input_chains(rules: str) -> list[list[str]]:
    """Return the lines of each chain that is on the input hook."""
    chains: list[list[str]] = []
    lines: list[str] = []
    for text in rules.splitlines():
        line = text.strip()
        if line.startswith("chain "):
            lines = []
        elif line == "}":
            if any("hook input" in one for one in lines):
                chains.append(lines)
            lines = []
        elif line:
            lines.append(line)
    return chains


def _names(line: str, port: int) -> bool:
    """Say whether a rule that accepts lets the port in: by its number, a range, or without naming any."""
    if "dport" not in line:
        return not any(word in line for word in ("iif", "saddr", "ct state", "icmp", "protocol", "@"))
    after = line.partition("dport")[2].partition("accept")[0].replace("{", " ").replace("}", " ")
    for part in after.replace(",", " ").split():
        first, _, last = part.partition("-")
        if first.isdecimal() and int(first) <= port <= int(last if last.isdecimal() else first):
            return True
    return "@" in after  # a named set may hold it


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
