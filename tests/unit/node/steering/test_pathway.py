"""Which ways a player without a node is shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.node.steering.pathway import HERE, ORIGIN, RELAYS, Pathway, Site, pathways, place, ranked
from farcast.protocol.directory import Endpoint, RelayRecord
from farcast.protocol.keyring import Keyring
from farcast.protocol.ports import TierName

NOW_MS = 1_800_000_000_000
BOX = b"o" * 32


def record(number: int, *endpoints: Endpoint, expires_ms: int = NOW_MS + 1) -> RelayRecord:
    return RelayRecord(1, bytes([number]) * 32, list(endpoints), "", NOW_MS - 1, expires_ms)


def keyring(*endpoints: Endpoint, cdn: list[str] | None = None) -> Keyring:
    key = [b"k" * 32]
    return Keyring(1, "Films", BOX, key, key, key, key, key, list(endpoints), cdn or [])


PLAIN = Endpoint("relay.example", 7433, web=False)
WEB = Endpoint("web.example", 443, web=True)
ODD = Endpoint("odd.example", 8443, web=True)
ORIGIN_PLAIN, ORIGIN_WEB = (
    Endpoint("films.example", 7433, web=False),
    Endpoint("films.example", 443, web=True),
)
CDN = ["https://cdn.example/films/", "http://plain.example"]
RECORDS = [record(1, PLAIN), record(2, PLAIN, WEB), record(3, ODD)]


def bases(ways: list[Pathway]) -> list[str]:
    return [way.base for way in ways]


def test_a_page_over_https_sees_web_endpoints_alone() -> None:
    found = pathways(
        Site(BOX, is_origin=True),
        "film",
        keyring(ORIGIN_PLAIN, ORIGIN_WEB, cdn=CDN),
        RECORDS,
        NOW_MS,
        https=True,
    )
    assert found[0].base == "https://cdn.example/films"
    assert {way.base for way in found[1:-1]} == {"https://web.example", "https://odd.example:8443"}
    assert found[-1] == Pathway(HERE, "", TierName.CDN)
    assert not [way for way in found if way.base.startswith("http:")]


def test_a_relay_puts_itself_before_others_and_the_origin_last() -> None:
    site = Site(RECORDS[0].relay, is_origin=False)
    found = pathways(site, "film", keyring(ORIGIN_PLAIN, ORIGIN_WEB, cdn=CDN), RECORDS, NOW_MS, https=False)
    assert bases(found)[:3] == ["https://cdn.example/films", "http://plain.example", ""]
    assert "http://relay.example:7433" not in bases(found), "itself, under its other name"
    assert found[-1].name == ORIGIN
    assert found[-1].base == "https://films.example"
    assert found[2] == Pathway(HERE, "", TierName.RELAY, RECORDS[0].relay)


def test_before_any_keys_are_known_the_site_is_the_only_way() -> None:
    assert bases(pathways(Site(BOX, is_origin=False), "film", None, [], NOW_MS, https=True)) == [""]


def test_an_expired_record_is_no_way() -> None:
    old = record(9, WEB, expires_ms=NOW_MS)
    assert bases(pathways(Site(BOX, is_origin=True), "film", None, [old], NOW_MS, https=True)) == [""]


def test_an_address_in_the_overlay_is_no_way_for_a_browser() -> None:
    far, site = Endpoint("203:f00::1", 7433, web=False), Site(BOX, is_origin=True)
    for endpoints, expected in (((far, PLAIN), ["http://relay.example:7433", ""]), ((far,), [""])):
        found = pathways(site, "film", None, [record(1, *endpoints)], NOW_MS, https=False)
        assert bases(found) == expected


def test_another_address_is_another_pathway() -> None:
    site = Site(BOX, is_origin=True)
    (one, _), (other, _) = (
        pathways(site, "film", None, [record(1, endpoint)], NOW_MS, https=True) for endpoint in (WEB, ODD)
    )
    assert one.name != other.name
    assert one.key == other.key


@given(st.integers(0, 40), st.integers(0, 2**16 - 1), st.text("abc", min_size=1, max_size=5))
def test_each_title_has_its_own_few_relays_and_each_viewer_another_first(
    count: int, turn: int, title: str
) -> None:
    records = [record(number + 1, Endpoint(f"r{number}.example", 443, web=True)) for number in range(count)]
    site = Site(BOX, is_origin=True)
    first = pathways(site, title, None, records, NOW_MS, https=True)
    found = pathways(site, title, None, list(reversed(records)), NOW_MS, https=True, turn=turn)
    assert len(found) == min(count, RELAYS) + 1
    assert set(found) == set(first), "the directory's order says nothing, nor does the turn"
    if count:
        assert found[0] == first[turn % min(count, RELAYS)]


def test_lost_ways_come_last_but_stay() -> None:
    ways = [Pathway("a", "https://a", TierName.CDN), Pathway("b", "https://b", TierName.RELAY)]
    assert ranked(ways, {"https://a"}) == [ways[1], ways[0]]
    assert ranked(ways, ()) == ways


def test_a_policy_names_the_place_and_no_path() -> None:
    assert place("https://cdn.example/films") == "https://cdn.example"
    assert place("http://[::1]:7433") == "http://[::1]:7433"
    assert place("https://cdn.example?verify=1") == "https://cdn.example"


def test_a_pull_zone_keeps_its_pathway_when_its_token_changes() -> None:
    site = Site(BOX, is_origin=True)
    first, second = (
        pathways(site, "film", keyring(cdn=[base]), [], NOW_MS, https=True)[0]
        for base in ("https://cdn.example/token=a/", "https://cdn.example/token=b/")
    )
    assert first.name == second.name
    assert first.base != second.base


def test_a_token_in_a_query_is_for_workers_that_make_each_address_themselves() -> None:
    bases = ["https://cdn.example/films?verify=1", "https://cdn.example/more", "https://b.example"]
    found = pathways(Site(BOX, is_origin=True), "film", keyring(cdn=bases), [], NOW_MS, https=True)
    assert [(way.base, way.playable) for way in found] == [
        ("https://cdn.example/films?verify=1", False),
        ("https://b.example", True),
        ("", True),
    ]
