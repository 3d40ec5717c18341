from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.node.settings import TABLES, Settings
from farcast.node.settingvalue import read_size
from farcast.protocol.errors import UsageError

SIZE_WORDS = 'an integer from 10000000 to 9007199254740991 or a size such as "20 GB"'


def load(home: Path, text: str, **environ: str) -> Settings:
    (home / "settings.toml").write_text(text, "utf-8")
    return Settings.load(home, environ)


def refusal(home: Path, text: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(home, text, **environ)
    assert caught.value.reason == "settings"
    return str(caught.value).removeprefix(f"{home}/")


def test_every_key_has_a_default_and_every_default_a_key() -> None:
    given_keys = tomllib.loads(files("farcast.config").joinpath("defaults.toml").read_text("utf-8"))
    assert {table: set(keys) for table, keys in given_keys.items()} == {
        table: {field.name for field in msgspec.structs.fields(kind)} for table, kind in TABLES.items()
    }


def test_the_promised_ports_are_the_defaults() -> None:
    found = Settings.load(None, {})
    assert (found.listen.port, found.admin.host, found.admin.port) == (7433, "127.0.0.1", 7480)
    assert (found.mesh.group, found.mesh.port) == ("239.255.74.34", 7434)
    assert (found.satellite.group, found.satellite.port) == ("239.255.74.35", 7435)
    assert found.store.quota_bytes == 20_000_000_000
    assert set(found.origins.values()) == {"default"}


def test_the_file_wins_over_defaults_and_the_environment_over_both(tmp_path: Path) -> None:
    text = '[listen]\nport = 8000\nhost = "::1"\n[store]\nquota_bytes = "1.5 GiB"\n'
    text += '[network]\nannounce = ["a:1"]\n'
    found = load(
        tmp_path, text, FARCAST_LISTEN_PORT=" 9000 ", FARCAST_NETWORK_INTERFACES="10.0.0.1, 10.0.0.2,"
    )
    assert (found.listen.host, found.listen.port) == ("::1", 9000)
    assert found.store.quota_bytes == 3 << 29
    assert found.network.announce == ["a:1"]
    assert found.network.interfaces == ["10.0.0.1", "10.0.0.2"]
    assert found.origin_of("listen.port") == "environment"
    assert found.origin_of("listen.host") == "file"
    assert found.origin_of("admin.host") == "default"
    with pytest.raises(UsageError, match=r"did you mean listen\.port"):
        found.origin_of("listen.prot")


def test_a_home_without_a_file_has_the_defaults(tmp_path: Path) -> None:
    assert Settings.load(tmp_path, {}) == Settings.load(None, {})


def test_variables_that_name_no_table_are_left_alone() -> None:
    assert Settings.load(None, {"FARCAST_HOME": "/x", "FARCAST_REQUIRE_PEERS": "1", "LISTEN_PORT": "x"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[listen]\nport = 'x'", "[listen] port: expected an integer from 0 to 65535, got 'x'"),
        ("[listen]\nport = 65536", "[listen] port: expected an integer from 0 to 65535, got 65536"),
        ("[listen]\nport = true", "[listen] port: expected an integer from 0 to 65535, got true"),
        ("[listen]\nprot = 1", "[listen] prot: no such key; did you mean port?"),
        ("[lisen]\nport = 1", "[lisen]: no such table; did you mean listen?"),
        ("[zzz]", "[zzz]: no such table"),
        ("listen = 3", "listen: expected a table, write [listen]"),
        ("[mesh]\nenabled = 1", "[mesh] enabled: expected true or false, got 1"),
        ("[money]\nmode = 'x'", "[money] mode: expected 'per_payer' or 'pooled', got 'x'"),
        ("[money]\ncurrency = 'euro'", "[money] currency: expected three capital letters, got 'euro'"),
        (
            "[money.withholding]\nGermany = 1500",
            ("[money] withholding: expected regions with basis points from 0 to 9999, such as DE = 1500, "
            "got {'Germany': 1500}"),
        ),
        (
            "[money.withholding]\nDE = 10000",
            ("[money] withholding: expected regions with basis points from 0 to 9999, such as DE = 1500, "
            "got {'DE': 10000}"),
        ),
        ("[network]\nannounce = 'a:1'", "[network] announce: expected a list of at most 64 texts, got 'a:1'"),
        ("[network]\nannounce = [1]", "[network] announce: expected a list of at most 64 texts, got [1]"),
        (
            "[mesh]\ngroup = '10.0.0.1'",
            "[mesh] group: expected an IPv4 multicast address such as '239.255.74.34', got '10.0.0.1'",
        ),
        ("[ladder]\nhedge_max_ms = 20", "[ladder] hedge_max_ms: expected at least hedge_min_ms (50), got 20"),
        (
            "[metered]\ndish = 'https://dish'",
            "[metered] dish: expected HOST:PORT, of a Starlink dish '192.168.100.1:9200', got 'https://dish'",
        ),
        ("[store]\nquota_bytes = '20 QB'", f"[store] quota_bytes: expected {SIZE_WORDS}, got '20 QB'"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence_with_file_key_and_reason(
    tmp_path: Path, text: str, sentence: str
) -> None:
    assert refusal(tmp_path, text) == f"settings.toml: {sentence}"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("FARCAST_LISTEN_PORT", "x", "expected an integer from 0 to 65535, got 'x'"),
        ("FARCAST_MESH_ENABLED", "perhaps", "expected true or false, got 'perhaps'"),
        ("FARCAST_LISTEN_PROT", "1", "no such setting; did you mean FARCAST_LISTEN_PORT?"),
    ],
)
def test_a_wrong_variable_is_one_sentence_with_its_name(
    tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    assert refusal(tmp_path, "", **{name: value}) == f"{name}: {sentence}"


def test_rates_by_region_come_from_a_table_or_from_one_variable(tmp_path: Path) -> None:
    text = "[money]\nreserve_base = 'net'\n[money.withholding]\nDE = 1500\n'*' = 0"
    found = load(tmp_path, text)
    assert found.money.withholding == {"DE": 1_500, "*": 0}
    assert ("money.withholding", "DE = 1500, * = 0", "file") in found.rows()
    found = load(tmp_path, text, FARCAST_MONEY_WITHHOLDING="FR=1, US-CA = 700")
    assert found.money.withholding == {"FR": 1, "US-CA": 700}
    assert "such as DE = 1500" in refusal(tmp_path, "", FARCAST_MONEY_WITHHOLDING="FR")


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refusal(tmp_path, "[admin]\ntoken = 'hunter2'")
    found = load(tmp_path, "[admin]\ntoken = 'abcdefghijklmnop'")
    assert ("admin.token", "(set)", "file") in found.rows()
    assert "hunter2" not in refusal(tmp_path, "[money]\nledger = 'mysql://ann:hunter2@host/books'")
    found = load(tmp_path, "[money]\nledger = 'postgresql://ann:hunter2@host/books'")
    assert ("money.ledger", "(set)", "file") in found.rows()


def test_a_wrong_value_in_the_file_is_refused_even_where_the_environment_overrides_it(tmp_path: Path) -> None:
    assert "port" in refusal(tmp_path, "[listen]\nport = 'x'", FARCAST_LISTEN_PORT="1")


def test_what_is_no_toml_names_file_and_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[listen]\nport 3\n").startswith("settings.toml: not TOML: ")
    assert "line 2" in refusal(tmp_path, "[listen]\nport 3\n")
    (tmp_path / "settings.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        Settings.load(tmp_path, {})
    (tmp_path / "settings.toml").unlink()
    (tmp_path / "settings.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        Settings.load(tmp_path, {})


@pytest.mark.parametrize(
    "text", ["box.example:7433", "192.0.2.7:1", "[2001:db8::7]:7433", "https://box.example"]
)
def test_what_a_box_can_announce(text: str) -> None:
    assert Settings.load(None, {"FARCAST_NETWORK_ANNOUNCE": text}).network.announce == [text]


@pytest.mark.parametrize(
    "text", ["box.example", "box:0", ":7433", "http://box.example", "box:70000000", "a b:1"]
)
def test_what_a_box_cannot_announce(text: str) -> None:
    with pytest.raises(UsageError, match="FARCAST_NETWORK_ANNOUNCE"):
        Settings.load(None, {"FARCAST_NETWORK_ANNOUNCE": text})


@pytest.mark.parametrize(
    "text",
    ["http://127.0.0.1:5001", "http://[::1]:5001/", "http://localhost:5001", "https://kubo.example", ""],
)
def test_where_a_kubo_may_be_commanded(text: str) -> None:
    assert Settings.load(None, {"FARCAST_KUBO_RPC": text}).kubo.rpc == text


@pytest.mark.parametrize(
    "text",
    [
        "http://192.0.2.7:5001",
        "http://kubo.example",
        "127.0.0.1:5001",
        "http://a@127.0.0.1",
        "http://127.0.0.1/api",
    ],
)
def test_a_kubo_that_others_may_listen_to_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected an https or a loopback URL"):
        Settings.load(None, {"FARCAST_KUBO_RPC": text})


def test_pins_come_from_base_urls_alone() -> None:
    places = "http://127.0.0.1:8080,https://gateway.example"
    assert Settings.load(None, {"FARCAST_IPFS_PIN_FROM": places}).ipfs.pin_from == places.split(",")
    assert Settings.load(None, {}).ipfs.pin_from == []
    for text in (
        "gateway.example",
        "https://gateway.example/ipfs",
        "ipfs://gateway",
        "https://a b",
        "https://g?x",
    ):
        with pytest.raises(UsageError, match="expected base URLs of IPFS gateways"):
            Settings.load(None, {"FARCAST_IPFS_PIN_FROM": text})


def test_a_home_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, but a home is a folder"):
        Settings.load(tmp_path / "file", {})


def test_rows_show_every_key_as_it_is_written() -> None:
    rows = {
        name: (value, origin)
        for name, value, origin in Settings.load(None, {"FARCAST_NETWORK_ANNOUNCE": "a:1,b:2"}).rows()
    }
    assert rows["network.announce"] == ("a:1, b:2", "environment")
    assert rows["mesh.enabled"] == ("true", "default")
    assert rows["listen.port"] == ("7433", "default")
    assert len(rows) == sum(len(msgspec.structs.fields(kind)) for kind in TABLES.values())


@given(st.text(max_size=30))
def test_any_value_of_a_variable_fits_or_is_refused(text: str) -> None:
    for name in (
        "FARCAST_LISTEN_PORT",
        "FARCAST_STORE_QUOTA_BYTES",
        "FARCAST_MESH_ENABLED",
        "FARCAST_NETWORK_ANNOUNCE",
    ):
        try:
            found = Settings.load(None, {name: text})
        except UsageError:
            continue
        assert 0 <= found.listen.port <= 65_535
        assert found.store.quota_bytes >= 10_000_000


@pytest.mark.parametrize(
    ("text", "size"),
    [("17", 17), ("20 GB", 20 * 10**9), ("1.5GiB", 3 << 29), (" 2 tb ", 2 * 10**12), ("0.1 kB", 100)],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "1 QB", "-1 GB", "1.2.3 GB", "1e3 GB", "nan", "٣ x"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        read_size(text)
