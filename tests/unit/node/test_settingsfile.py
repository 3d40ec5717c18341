from __future__ import annotations

from pathlib import Path

import pytest

from farcast.node.settingsfile import set_key
from farcast.protocol.errors import UsageError

TEXT = """# my box
[listen] # public
  port = 8000 # behind the router
host = "::"

[network]
announce = [ # two of them
  "a:1",
  "b:2",
] # end
"""


def changed(home: Path, before: str, name: str, value: str) -> str:
    path = home / "settings.toml"
    path.write_text(before)
    settings = set_key(home, name, value)
    assert settings.origin_of(name) == "file"
    return path.read_text()


def test_one_key_changes_and_comments_stay(tmp_path: Path) -> None:
    after = changed(tmp_path, TEXT, "listen.port", "9000")
    assert after == TEXT.replace("  port = 8000", "port = 9000")


def test_a_value_over_many_lines_is_replaced_whole(tmp_path: Path) -> None:
    after = changed(tmp_path, TEXT, "network.announce", "c:3, d:4")
    assert after == TEXT[: TEXT.index("announce")] + 'announce = ["c:3", "d:4"] # end\n'


def test_a_missing_key_or_table_is_added(tmp_path: Path) -> None:
    assert "[network]\ndirect = false\nannounce" in changed(tmp_path, TEXT, "network.direct", "false")
    assert changed(tmp_path, TEXT, "log.level", "debug") == TEXT + '\n[log]\nlevel = "debug"\n'
    (tmp_path / "settings.toml").unlink()
    set_key(tmp_path, "store.quota_bytes", "30 GB")
    assert (tmp_path / "settings.toml").read_text() == "[store]\nquota_bytes = 30000000000\n"
    assert (tmp_path / "settings.toml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("before", "name", "value", "words"),
    [
        (TEXT, "listen.prot", "1", "did you mean listen.port"),
        (TEXT, "listen", "1", "no such setting"),
        (TEXT, "listen.port", "x", "expected an integer"),
        ("listen = { port = 1 }\n", "listen.port", "2", "edit it there"),
        ("listen.port = 1\n", "listen.port", "2", "edit it there"),
        ('[log]\n"level" = "info"\n', "log.level", "debug", "edit it there"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_refused_and_the_file_stays(
    tmp_path: Path, before: str, name: str, value: str, words: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(before)
    with pytest.raises(UsageError, match=words):
        set_key(tmp_path, name, value)
    assert path.read_text() == before


def test_rates_by_region_are_written_as_one_line(tmp_path: Path) -> None:
    after = changed(tmp_path, "[money]\n", "money.withholding", "DE=1500, US-CA=7")
    assert after == '[money]\nwithholding = { "DE" = 1500, "US-CA" = 7 }\n'
