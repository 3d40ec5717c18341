"""The zones of an origin: their tokens by the clock, and what is left of their purges."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from farcast.origin.cdn.edges import Edges
from farcast.origin.cdn.worklist import Worklist
from farcast.origin.cdn.zone import bare
from farcast.protocol.errors import LocalError, UsageError

BUNNY, PLAIN = "https://films.b-cdn.net", "https://cdn.example/films/"
LINE = f"{BUNNY} kind=bunny key=$KEY token=$TOKEN"
ENVIRON = {"KEY": "api-key", "TOKEN": "token-key"}
DAY_S = 86_400


def edges(*lines: str, folder: Path = Path("unused"), environ: dict[str, str] = ENVIRON) -> Edges:
    return Edges(lines, folder, environ, CollectorRegistry())


@given(st.integers(DAY_S, 10**10 - DAY_S))
def test_a_token_is_the_same_through_half_its_life_and_good_for_the_other_half(now_s: int) -> None:
    known = edges(LINE)
    (made,) = known.signed([BUNNY], now_s)
    begin_s = now_s // (DAY_S // 2) * (DAY_S // 2)
    assert known.signed([made], begin_s) == known.signed([BUNNY], begin_s + DAY_S // 2 - 1) == [made]
    assert known.signed([made], begin_s + DAY_S // 2) != [made]
    assert int(made.rpartition("expires=")[2]) - now_s > DAY_S // 2


def test_a_zone_without_a_token_is_told_as_it_was_announced() -> None:
    assert edges(LINE).signed([PLAIN, BUNNY], DAY_S)[0] == PLAIN
    assert edges().signed([PLAIN], DAY_S) == [PLAIN]


def test_a_zone_that_needs_no_token_any_more_loses_the_one_it_had() -> None:
    (tokened,) = edges(LINE).signed([BUNNY], DAY_S)
    assert edges().signed([tokened], DAY_S) == [BUNNY]
    assert edges(f"{BUNNY} kind=bunny key=$KEY").signed([tokened], DAY_S) == [BUNNY]


def test_a_key_that_cannot_be_read_keeps_the_token_that_is_out(caplog: pytest.LogCaptureFixture) -> None:
    (tokened,) = edges(LINE).signed([BUNNY], DAY_S)
    registry = CollectorRegistry()
    lost = Edges([LINE], Path("unused"), {}, registry)
    assert lost.signed([tokened], 9 * DAY_S) == [tokened]
    assert "the variable TOKEN is not set" in caplog.text
    labels = {"kind": "bunny", "reason": "bad_key"}
    assert registry.get_sample_value("farcast_origin_cdn_token_failures_total", labels) == 1
    with pytest.raises(UsageError, match="is not set"):
        lost.check()


def test_zones_that_no_box_is_told_of_are_known() -> None:
    known = edges(LINE, "https://other.example")
    assert known.strays(known.signed([BUNNY + "/"], DAY_S)) == ["https://other.example"]
    assert known.purges(BUNNY + "/")
    assert not known.purges("https://other.example")
    assert not known.purges("https://stranger.example")
    assert known.tag_headers == ("cdn-tag",)
    with pytest.raises(UsageError, match="twice"):
        edges(LINE, BUNNY + "/")


def test_what_must_go_is_remembered_until_it_has_gone(tmp_path: Path) -> None:
    listed, path = Worklist(tmp_path / "purges"), tmp_path / "purges"
    assert listed.read("film", BUNNY) == []
    assert listed.add("film", BUNNY, ["/a", "/b", "/a"]) == ["/a", "/b"]
    assert Worklist(path).add("film", BUNNY, ["/b", "/c"]) == ["/a", "/b", "/c"]
    assert listed.read("film", PLAIN) == listed.read("other", BUNNY) == []
    assert {one.stat().st_mode & 0o777 for one in path.iterdir()} == {0o600}
    listed.replace("film", BUNNY, ["/c"])
    assert listed.read("film", BUNNY) == ["/c"]
    listed.replace("film", BUNNY, [])
    assert list(path.iterdir()) == []


def test_a_damaged_list_is_named_with_its_mend(tmp_path: Path) -> None:
    listed = Worklist(tmp_path)
    listed.add("film", BUNNY, ["/a"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff\n")
    with pytest.raises(LocalError, match="remove it and purge again"):
        listed.read("film", BUNNY)


def test_only_zones_that_can_be_told_get_a_list(tmp_path: Path) -> None:
    known = edges(LINE, folder=tmp_path)
    known.remember("film", [*known.signed([BUNNY], DAY_S), PLAIN], ["/a"])
    assert len(list(tmp_path.iterdir())) == 1
    assert Worklist(tmp_path).read("film", bare(BUNNY)) == ["/a"]
