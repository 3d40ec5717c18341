"""A relay takes a new key: real boxes, before and after, and with the answer lost."""

from __future__ import annotations

from farcast.node.demo.troupe import free_port
from farcast.node.home import read_identity
from farcast.node.keyrotation import NEXT_FILE
from farcast.tests.wire.street import Street, until


def test_a_relay_takes_a_new_key_and_stays_who_it_is(street: Street) -> None:
    home, ports = street.home("origin"), (free_port(), free_port())
    street.must("origin", "announce", f"127.0.0.1:{ports[0]}", "--home", home)
    link = street.must("origin", "invite", "--relay", "--home", home)["link"]
    where = {"FARCAST_LISTEN_PORT": str(ports[1]), "FARCAST_NETWORK_ANNOUNCE": f"127.0.0.1:{ports[1]}"}
    relay_home = street.home("rotated")
    silent = street.run("key", "rotate", "--home", relay_home)
    silent.refused(2, str(relay_home))
    origin = street.start("origin", "origin", "run", settings={"FARCAST_LISTEN_PORT": str(ports[0])})
    assert street.run("relay", "join", link, "--home", relay_home, "--payee", "ada", settings=where).code == 0
    first = read_identity(relay_home).peer_id
    relay = street.start("rotated", "relay", "run", settings=where)
    until(lambda: relay.api("/api/status")["verdict"] == "Serving", 30)
    street.run("key", "rotate", "--home", relay_home).refused(2, "in use")
    relay.stop()

    ran = street.run("key", "rotate", "--home", relay_home, "--json")
    assert ran.code == 0, ran
    found = ran.json
    assert (found["relay"], found["old"]) == (first, first)
    assert read_identity(relay_home).peer_id == found["new"] != first
    assert not (relay_home / NEXT_FILE).exists()

    relay = street.start("rotated", "relay", "run", settings=where)
    until(lambda: relay.api("/api/status")["verdict"] == "Serving", 30)
    [row] = street.must("origin", "relays", "--home", home)["relays"]
    assert (row["id"], row["standing"], row["payee"], row["listed"]) == (first, "approved", "ada", True)
    relay.stop()

    # the key is replaced last: a machine that died just before asks the origin again
    key = relay_home / "identity.key"
    newer = street.run("key", "rotate", "--home", relay_home, "--json").json
    taken = key.read_bytes()
    assert newer["relay"] == first
    assert newer["old"] == found["new"]
    origin.stop()
    gone = street.run("key", "rotate", "--home", relay_home)
    assert gone.code == 1, gone
    assert key.read_bytes() == taken
    assert (relay_home / NEXT_FILE).exists()
