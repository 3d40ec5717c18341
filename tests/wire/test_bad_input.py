"""Wrong use of every command: one sentence, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from farcast.node.demo.troupe import free_port
from farcast.tests.wire.conftest import Town, listen
from farcast.tests.wire.street import (
    DAY_S,
    PICTURE,
    SOUND,
    Street,
    draw,
    names,
    side_by_side,
    unchanged,
    until,
)

YEAR_S = 365 * DAY_S


def test_media_that_is_no_film_is_named_and_leaves_nothing(street: Street, tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(os.urandom(100_000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    whole = draw(tmp_path / "whole.mp4", *PICTURE, "-c:v", "libx264", "-preset", "ultrafast")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:2_000])
    draw(tmp_path / "sound.mka", *SOUND)
    home = street.home("origin")

    def refused(name: str) -> None:
        ran = street.run("origin", "publish", tmp_path / name, "--home", home, "--json")
        ran.refused(2, name, "name a video file")
        assert "passwd" not in ran.err
        assert ran.out == ""

    before = names(home)
    with unchanged(home):
        for name in ("noise.mp4", "list.m3u8", "cut.mp4", "sound.mka", "absent.mp4"):
            refused(name)
    assert names(home) == before  # not even an empty store


def test_media_that_may_not_be_read_is_named(street: Street, tmp_path: Path) -> None:
    secret = draw(tmp_path / "secret.mp4", *PICTURE, "-c:v", "libx264", "-preset", "ultrafast")
    secret.chmod(0)
    within = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    if within and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed: apt-get install util-linux")
    with unchanged(street.home("origin")):
        ran = street.run("origin", "publish", secret, "--home", street.home("origin"), within=within)
    ran.refused(2, "secret.mp4", "not readable")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nme = "x"', ("film.toml", "unknown key nme", "did you mean 'name'?")),
        ("name = ", ("film.toml", "not TOML")),
        ('name = "x"\n[[payees]]\npayee = "ada"\npoints = 9_999', ("film.toml", "payees", "10000")),
        ('name = "x"\n[[payees]]\npayee = "bob"\npoints = 10_000', ("'bob'", "origin payee add bob")),
    ],
)
def test_a_film_toml_that_is_wrong_is_named_with_its_key(
    street: Street, tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    film = draw(tmp_path / "film.mp4", *PICTURE, "-c:v", "libx264", "-preset", "ultrafast")
    (tmp_path / "film.toml").write_text(text)
    with unchanged(street.home("origin")):
        street.run("origin", "publish", film, "--home", street.home("origin")).refused(2, *words)


def test_a_settings_file_that_is_wrong_is_named_with_table_and_key(street: Street, tmp_path: Path) -> None:
    cases = {
        "[listen]\nprot = 1": ("[listen] prot", "did you mean port?"),
        '[listen]\nport = "high"': ("[listen] port", "integer from 0 to 65535"),
        "[lisen]": ("[lisen]", "did you mean listen?"),
        "[listen": ("not TOML",),
        '[admin]\nhost = "0.0.0.0"': ("[admin] host", "loopback"),
        '[network]\nannounce = ["here"]': ("[network] announce", "HOST:PORT"),
        '[network]\ninterfaces = ["eth0"]': ("[network] interfaces", "192.168.1.20"),
        '[admin]\ntoken = "not-long-enough"': ("[admin] token", "16 or more"),
    }

    def refused(number: int, text: str, words: tuple[str, ...]) -> None:
        home = tmp_path / str(number)
        home.mkdir()
        (home / "settings.toml").write_text(text)
        commands = (("config", "check"), ("origin", "run"), ("relay", "run"), ("run",))
        with unchanged(home):
            ran = street.run(
                *commands[number % 4], "--home", home, settings={"FARCAST_NETWORK_INTERFACES": ""}
            )
        ran.refused(2, str(home / "settings.toml"), *words)
        assert "not-long-enough" not in ran.err  # a token is a secret even where it is too short

    side_by_side(
        *(lambda n=n, t=t, w=w: refused(n, t, w) for n, (t, w) in enumerate(cases.items())),
        lambda: street.run("config", "check", settings={"FARCAST_LISTEN_PRT": "1"}).refused(
            2, "FARCAST_LISTEN_PRT", "did you mean FARCAST_LISTEN_PORT?"
        ),
    )


def test_wrong_words_on_the_command_line_are_one_sentence_and_point_to_help(street: Street) -> None:
    home = street.home("origin")

    def refused(arguments: list[str | Path], *words: str) -> None:
        ran = street.run(*arguments)
        ran.refused(2, *words)
        assert ran.out == ""

    side_by_side(
        lambda: refused(["frobnicate"], "no such command 'frobnicate'", "farcast --help"),
        lambda: refused(["origin", "frobnicate"], "'frobnicate'", "farcast origin --help"),
        lambda: refused(["relay", "frobnicate"], "'frobnicate'", "farcast relay --help"),
        lambda: refused(["origin", "publish"], "missing argument", "farcast origin publish --help"),
        lambda: refused(["list", "--hmoe", "x"], "no such option: --hmoe", "farcast list --help"),
        lambda: refused(["origin", "book", "revenue", "ten", "--home", home], "'cents'", "--help"),
        lambda: refused(["pulses", "maybe", "--home", home], "show, on, off or export"),
        lambda: refused(["cid", "/no/such/film"], "/no/such/film"),
        lambda: refused(["verify", "/no/such/report", "--home", home], "/no/such/report"),
        lambda: refused(["origin", "announce", "nowhere", "--home", street.home("none")], "origin init"),
    )


def test_a_home_is_made_once_and_used_by_its_role_alone(street: Street, tmp_path: Path) -> None:
    home, none, file = street.home("origin"), tmp_path / "none", tmp_path / "file"
    file.write_text("mine")
    taken = tmp_path / "taken"
    (taken / "keys").mkdir(parents=True)
    (taken / "keys" / "mine").write_text("not Farcast's")
    root = home / "tuf" / "root.json"
    init = ("origin", "init", "--endpoint", "127.0.0.1:9", "--home")
    with unchanged(tmp_path), unchanged(home):
        side_by_side(
            lambda: street.run(*init, home).refused(2, str(home), "farcast origin run"),
            lambda: street.run("origin", "run", "--home", none).refused(2, str(none), "farcast origin init"),
            lambda: street.run("relay", "run", "--home", none).refused(2, str(none), "farcast relay join"),
            lambda: street.run("run", "--home", none).refused(2, str(none), "farcast join"),
            lambda: street.run("status", "--home", none).refused(2, str(none), "farcast join"),
            lambda: street.run("relay", "status", "--home", none).refused(2, str(none), "relay join"),
            lambda: street.run("join", root, "--home", file).refused(2, str(file), "is a file", "--home"),
            lambda: street.run("run", "--home", file).refused(2, str(file), "is a file", "--home"),
            lambda: street.run(*init, file).refused(2, str(file), "is a file", "--home"),
            lambda: street.run(*init, taken).refused(2, str(taken / "keys"), "empty folder"),
        )
        street.run("run", "--home", home).refused(2, str(home), "home of an origin", "--home")
        street.run("join", root, "--home", home).refused(2, str(home), "home of an origin", "--home")
    assert (taken / "keys" / "mine").read_text() == "not Farcast's"


def test_two_processes_never_share_a_home(town: Town) -> None:
    run = town.street.run
    side_by_side(
        lambda: run("origin", "run", "--home", town.origin.home).refused(2, "in use by process", "--home"),
        lambda: run("relay", "run", "--home", town.relay.home).refused(2, "in use by process", "--home"),
        lambda: run("run", "--home", town.viewer.home).refused(2, "in use by process", "--home"),
    )


def test_a_taken_port_names_the_key_to_change(town: Town, tmp_path: Path) -> None:
    root = town.origin.home / "tuf" / "root.json"
    town.street.must("join", root, "--home", tmp_path / "node")
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port = free_port()
        udp.bind(("127.0.0.1", port))
        for settings, words in (
            ({"FARCAST_LISTEN_PORT": str(tcp.getsockname()[1])}, ("TCP", "[listen] port")),
            ({"FARCAST_LISTEN_PORT": str(port)}, ("UDP", "[listen] port")),
            ({"FARCAST_ADMIN_PORT": str(tcp.getsockname()[1])}, ("TCP", "[admin] port")),
            ({"FARCAST_LISTEN_HOST": "192.0.2.7"}, ("192.0.2.7", "[listen] host")),
        ):
            ran = town.street.run("run", "--home", tmp_path / "node", settings=settings)
            ran.refused(2, *words)
            assert not (tmp_path / "node" / "admin.json").exists()


def test_a_root_that_is_not_the_right_one_is_refused_and_leaves_no_home(town: Town, tmp_path: Path) -> None:
    street, root = town.street, (town.origin.home / "tuf" / "root.json").read_bytes()
    files = {
        "not.json": b"not JSON at all",
        "cut.json": root[: len(root) // 2],
        "forged.json": root.replace(b'"Town"', b'"Tawn"'),
        "big.json": root + b" " * 100_000,
        "timestamp.json": (town.origin.home / "tuf" / "timestamp.json").read_bytes(),
    }
    assert files["forged.json"] != root
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    link = town.invite()
    digest = link.split("root=")[1][:64]
    other = link.replace(digest, "0" * 64)
    with unchanged(tmp_path):
        for_node, for_relay = ("join",), ("relay", "join")
        settings = listen(free_port())

        def refused(command: tuple[str, ...], given: str | Path, code: int, *words: str) -> None:
            ran = street.run(*command, given, "--home", tmp_path / "a" / "home", settings=settings)
            ran.refused(code, *words)

        side_by_side(
            lambda: refused(for_node, tmp_path / "not.json", 1, "no root.json", "ask the origin"),
            lambda: refused(for_relay, tmp_path / "cut.json", 1, "no root.json", "ask the origin"),
            lambda: refused(for_node, tmp_path / "forged.json", 1, "no root.json", "ask the origin"),
            lambda: refused(for_node, tmp_path / "timestamp.json", 1, "no root.json"),
            lambda: refused(for_node, tmp_path / "big.json", 2, "big.json", "too large"),
            lambda: refused(for_node, tmp_path / "absent.json", 2, "absent.json", "root.json"),
            lambda: refused(for_node, other, 1, link.split("/")[2], "not the one the invite names"),
        )


def test_a_box_stays_with_its_first_origin(town: Town, street: Street, tmp_path: Path) -> None:
    town.street.must("join", town.origin.home / "tuf" / "root.json", "--home", tmp_path)
    with unchanged(tmp_path):
        ran = street.run("join", street.home("origin") / "tuf" / "root.json", "--home", tmp_path)
    ran.refused(2, "already trusts Town", "--home")


def test_an_invite_that_does_not_hold_is_refused_and_leaves_no_home(town: Town, tmp_path: Path) -> None:
    street = town.street
    relay, plain = town.invite("--relay"), town.invite()
    token = relay.split("token=")[1].split("&")[0]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("here before")
    settings = listen(free_port())
    down = plain.replace(plain.split("/")[2], f"127.0.0.1:{free_port()}")

    def refused(command: tuple[str, ...], link: str, code: int, *words: str, given: str = "") -> None:
        home = mine if code == 1 else tmp_path / "new" / "home"
        ran = street.run(*command, link, "--home", home, settings=settings, given=given)
        ran.refused(code, *words)
        assert token not in ran.err

    with unchanged(tmp_path):
        refused(("join",), relay, 2, "for a relay", "farcast relay join")
        refused(("relay", "join"), plain, 2, "for a viewer", "origin invite --relay")
        refused(("join",), plain.replace("root=", "rot="), 2, "no invite link", "ask the origin")
        refused(("join",), "-", 2, "no invite link", given=f"{plain}?\n")
        refused(("join",), town.invites["late"], 1, "has expired", "new one")
        refused(("relay", "join"), town.invites["old"], 1, "has expired", "new one")
        refused(("relay", "join"), relay.replace(token[:4], "AAAA"), 1, "not one of this origin's")
        refused(("join",), down, 1, down.split("/")[2], "are you online?")
        refused(("relay", "join"), down.replace("kind=viewer", "kind=relay"), 1, "are you online?")
    assert (mine / "diary.txt").read_text() == "here before"
    street.run("relay", "join", relay, "--home", tmp_path / "one").refused(2, "[listen] port", "announce")
    first = street.run("relay", "join", relay, "--home", tmp_path / "one", settings=settings)
    assert first.code == 0, first
    with unchanged(tmp_path):
        refused(("relay", "join"), relay, 1, "used already", "new one")
    street.must("join", "--home", tmp_path / "two", town.invite("--account", "alice"))


def test_a_clock_a_year_off_gets_no_tickets_and_spends_no_invite(town: Town, tmp_path: Path) -> None:
    street, link = town.street, town.invite("--account", "alice")
    with unchanged(tmp_path):
        ran = street.run("join", link, "--home", tmp_path / "ahead", shift_s=YEAR_S + DAY_S)
        ran.refused(1, "expired", "clock")
    street.must("join", link, "--home", street.home("late"))
    late = street.start("late", "run", shift_s=-YEAR_S)
    until(lambda: late.metric("farcast_node_task_failures_total", reason="wrong_day") > 0)
    until(lambda: "clock" in late.api("/api/status")["verdict"])
    said = street.run("status", "--home", late.home)
    assert (said.code, "is this device's clock right?" in said.out.splitlines()[0]) == (0, True)
    assert late.stop() == 0
