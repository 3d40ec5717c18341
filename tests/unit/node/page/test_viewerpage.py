"""The viewer's pages as a client without scripts sees them: forms, refusals, what may be embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from farcast.node.http.exchange import Answer, Exchange, Hosts, Router
from farcast.node.page import Page
from farcast.tests.system.pagehouse import PULSES, Cinema

TYPED = {"host": "box", "accept": "text/html,*/*"}
ROWS = 250


class Client:
    """Asks the pages over ``cinema``."""

    def __init__(self, cinema: Cinema) -> None:
        self.refused: list[str] = []
        self.router = Router(Hosts(["box"]), token="t", refused=self.refused.append)
        Page(cinema, "t").add_to(self.router)

    async def ask(self, target: str, body: str | None = None, **headers: str) -> Answer:
        """Get, or post ``body``."""

        async def read(limit: int) -> bytes:
            assert limit <= 4_096
            return (body or "").encode()

        fields = TYPED | {name.replace("_", "-"): value for name, value in headers.items()}
        method = "GET" if body is None else "POST"
        exchange = Exchange.of(method, f"/t{target}", fields, peer="", secure=False, reader=read)
        return await self.router.handle(exchange)

    async def text(self, target: str) -> str:
        """Get a page that is there."""
        answer = await self.ask(target)
        assert answer.status == 200
        assert isinstance(answer.body, bytes)
        return answer.body.decode()


@pytest.fixture
def cinema(tmp_path: Path) -> Cinema:
    return Cinema(tmp_path)


@pytest.fixture
def client(cinema: Cinema) -> Client:
    return Client(cinema)


async def test_a_page_may_use_its_own_files_and_forms_and_nothing_else(client: Client) -> None:
    for target in ("/", "/play/harbour", "/sent"):
        answer = await client.ask(target)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        text = await client.text(target)
        assert "<style" not in text
        assert " style=" not in text
        assert "<script>" not in text
        assert "://" not in text.replace("http://box/t/", "")


async def test_forms_change_what_they_say_and_show_the_page_again(client: Client, cinema: Cinema) -> None:
    cinema.marked = [{"title": "harbour"}, {"title": "dawn"}]
    for target, body, where in (
        ("/play/harbour/keep", "", "/t/play/harbour"),
        ("/sent", "on=no", "/t/sent"),
        ("/forget", "title=dawn", "/t/"),
    ):
        answer = await client.ask(target, body, sec_fetch_site="same-origin")
        assert (answer.status, answer.headers["location"]) == (303, where)
    assert cinema.film["kept"] is True
    assert cinema.facts["pulses"] == {"on": False}
    assert cinema.marked == [{"title": "harbour"}]
    assert 'value="yes"' in await client.text("/sent")
    await client.ask("/play/harbour/drop", "")
    await client.ask("/forget", "")
    assert cinema.film["kept"] is False
    assert cinema.marked == []


async def test_another_pages_form_changes_nothing(client: Client, cinema: Cinema) -> None:
    for site in ("same-site", "cross-site", "none"):
        assert (await client.ask("/sent", "on=no", sec_fetch_site=site)).status == 403
    assert cinema.facts["pulses"] == {"on": True}


@pytest.mark.parametrize(
    ("target", "body", "status", "reason"),
    [
        ("/play/other", None, 404, "unknown_title"),
        ("/play/harbour/other.m3u", None, 404, "no_route"),
        ("/?from=x", None, 400, "bad_arguments"),
        ("/?from=-1", None, 400, "bad_arguments"),
        ("/sent?from=99999999999", None, 400, "bad_arguments"),
        ("/sent", "on=perhaps", 400, "bad_arguments"),
        ("/sent", "", 400, "bad_arguments"),
        ("/forget", "title", 303, ""),
        ("/forget", "&".join(f"{letter}=1" for letter in "abcdefghij"), 400, "bad_arguments"),
    ],
)
async def test_a_bad_request_is_counted_by_reason_and_is_a_page_for_people(
    client: Client, target: str, body: str | None, status: int, reason: str
) -> None:
    answer = await client.ask(target, body)
    assert answer.status == status
    assert client.refused == ([reason] if reason else [])
    if reason:
        assert answer.headers["content-type"].startswith("text/html")
        machine = await client.ask(target, body, accept="application/json")
        assert machine.headers["content-type"] == "application/problem+json"


async def test_names_from_the_catalog_are_text_and_never_markup(client: Client, cinema: Cinema) -> None:
    evil = "<script>alert(1)</script>\"'&\n#EXTINF:9"
    cinema.film |= {"name": evil, "description": evil}
    cinema.facts = {**cinema.facts, "verdict": evil, "origin": evil}
    cinema.pulses = PULSES
    for target in ("/", "/play/harbour", "/sent", "/?q=%3Cscript%3Ealert(1)%3C/script%3E"):
        assert "<script>alert" not in await client.text(target)
    lines = (await client.text("/play/harbour/harbour.m3u")).splitlines()
    assert len(lines) == 3, "a name with a new line stays one line"
    assert lines[2] == "http://box/t/watch/harbour/master.m3u8"


async def test_many_titles_and_pulses_come_in_pages(client: Client, cinema: Cinema) -> None:
    cinema.pulses = PULSES * (ROWS // len(PULSES))
    first, last = await client.text("/sent"), await client.text("/sent?from=200")
    assert first.count("<tr>") == 101
    assert "Older" in first
    assert "Newer" not in first
    assert last.count("<tr>") == len(cinema.pulses) - 200 + 1
    assert "Older" not in last


async def test_assets_are_asked_for_again_only_when_they_changed(client: Client) -> None:
    answer = await client.ask("/assets/viewer.css")
    assert answer.status == 200
    again = await client.ask("/assets/viewer.css", if_none_match=answer.headers["etag"])
    assert again.status == 304
    for name in ("viewerpage.py", "layout.html.j2", "vendor/none.js"):
        assert (await client.ask(f"/assets/{name}")).status == 404


@pytest.mark.parametrize("sky", [None, {"coming": []}])
async def test_a_box_without_news_from_the_sky_says_nothing_of_it(
    client: Client, cinema: Cinema, sky: object
) -> None:
    cinema.facts = {**cinema.facts, "satellite": sky}
    assert "satellite next" not in await client.text("/")


async def test_the_page_says_what_comes_by_satellite_next(client: Client, cinema: Cinema) -> None:
    coming = [
        {"title": f"t{at}", "name": f"Film <{at}>", "begins_in_s": at * 3_700, "whole_in_s": at * 3_700 + 65}
        for at in range(4)
    ]
    cinema.facts = {**cinema.facts, "satellite": {"coming": coming}}
    assert (
        "By satellite next: Film &lt;0&gt; (on air now, all of it in 1:05); "
        "Film &lt;1&gt; (begins in 1:01:40, all of it in 1:02:45); "
        "Film &lt;2&gt; (begins in 2:03:20, all of it in 2:04:25).</p>"
    ) in await client.text("/")
