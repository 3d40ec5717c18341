"""A viewer's pages: the films, a player, and what this box has sent; each works without scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, quote

from ...protocol.errors import FarcastError, RefusedError
from ..http.exchange import Answer, Exchange, Handler, Router
from ..http.problem import problem_of
from .assets import HLS, Assets, there
from .qr import QUIET, path, qr

PAGE_TITLES = 60
PAGE_PULSES = 100
BEGUN_SHOWN = 6
FORM_LIMIT_BYTES = 4_096

Row = dict[str, Any]


class FrontDesk(Protocol):
    """What the pages show and switch: a node's desk. What is not ``async`` may block, but for ``lan``."""

    @property
    def lan(self) -> Callable[[], str]:
        """What gives the home's address of this box, empty while it serves this machine alone."""
        ...

    def status(self) -> Row:
        """Return everything of the box, the verdict first."""
        ...

    def find(self, query: str = "") -> list[str]:
        """Return the titles a query means, best first."""
        ...

    def titles(self, ids: Sequence[str] | None = None) -> list[Row]:
        """Return rows of titles."""
        ...

    def title(self, title: str) -> Row:
        """Return a title with all its player offers; raises ``RefusedError``."""
        ...

    def begun(self) -> list[Row]:
        """Return the titles somebody may go on with."""
        ...

    def forget(self, title: str = "") -> None:
        """Forget where a title, or all, were left."""
        ...

    def sent(self) -> list[Row]:
        """Return what this box signed lately, newest first."""
        ...

    def sessions(self) -> list[Row]:
        """Return the origin's verdicts of the last 24 hours."""
        ...

    async def keep(self, title: str) -> object:
        """Begin to keep a title."""
        ...

    async def drop(self, title: str) -> object:
        """Let go of a kept title."""
        ...

    async def switch_pulses(self, *, on: bool) -> None:
        """Sign pulses or none."""
        ...


class Page:
    """The pages below a path token, and the forms on them."""

    def __init__(self, desk: FrontDesk, token: str) -> None:
        self._desk = desk
        self._assets = Assets(token, forms=True)
        self._fail: Callable[[Exception], Answer] = lambda error: Answer.of_problem(problem_of(error))

    def add_to(self, router: Router) -> None:
        """Add the pages' routes below the path token."""
        self._fail = router.fail
        router.route("GET", "/", self._guarded(self.overview))
        router.route("POST", "/forget", self._guarded(self.forget))
        router.route("GET", "/sent", self._guarded(self.sent))
        router.route("POST", "/sent", self._guarded(self.switch))
        router.route("GET", "/play/{title}", self._guarded(self.player))
        router.route("POST", "/play/{title}/keep", self._guarded(self.keep))
        router.route("POST", "/play/{title}/drop", self._guarded(self.drop))
        router.route("GET", "/play/{title}/{name}", self._guarded(self.playlist))
        router.route("GET", "/assets/{name...}", self._assets.asset)

    async def overview(self, exchange: Exchange) -> Answer:
        """``GET /{token}/?q=&from=``: what may be gone on with, the titles, how the box stands."""
        query = exchange.query.get("q", "").strip()
        first = _number(exchange, "from")

        def read() -> Row:
            ids = self._desk.find(query)
            begun = [] if query or first else self._desk.begun()[:BEGUN_SHOWN]
            rows = self._desk.titles(ids[first : first + PAGE_TITLES])
            return {"status": self._desk.status(), "titles": rows, "begun": begun, "total": len(ids)}

        shown = await asyncio.to_thread(read)
        after = first + PAGE_TITLES
        return self._assets.render(
            exchange,
            "overview.html.j2",
            **shown,
            query=query,
            before=_page(query, max(0, first - PAGE_TITLES)) if first else "",
            after=_page(query, after) if after < shown["total"] else "",
        )

    async def player(self, exchange: Exchange) -> Answer:
        """``GET /{token}/play/{title}``: the player and how what it shows comes."""
        title = exchange.match["title"]
        found, status = await asyncio.to_thread(lambda: (self._desk.title(title), self._desk.status()))
        lan = self._desk.lan()
        address = f"{lan}/watch/{title}/tv.m3u8" if lan else ""
        code = await asyncio.to_thread(qr, address) if address else []
        return self._assets.render(
            exchange,
            "player.html.j2",
            title=found,
            status=status,
            scripted=there(HLS),
            tv=address,
            qr_path=path(code),
            qr_size=len(code) + 2 * QUIET,
        )

    async def playlist(self, exchange: Exchange) -> Answer:
        """``GET /{token}/play/{title}/{title}.m3u``: the address in a file that VLC opens."""
        title = exchange.match["title"]
        if exchange.match["name"] != f"{title}.m3u":
            raise RefusedError("nothing is at this path", status=404, reason="no_route")
        found = await asyncio.to_thread(self._desk.title, title)
        address = self._assets.address(exchange, f"/watch/{title}/master.m3u8")
        name = " ".join(str(found["name"]).split())
        text = f"#EXTM3U\n#EXTINF:{found['duration_s']},{name}\n{address}\n"
        headers = {
            "content-type": "audio/x-mpegurl; charset=utf-8",
            "content-disposition": f'attachment; filename="{title}.m3u"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        return Answer(200, headers, text.encode())

    async def sent(self, exchange: Exchange) -> Answer:
        """``GET /{token}/sent?from=``: every pulse of the last 24 hours, and the switch."""
        first = _number(exchange, "from")
        pulses, sessions, status = await asyncio.to_thread(
            lambda: (self._desk.sent(), self._desk.sessions(), self._desk.status())
        )
        shown = pulses[first : first + PAGE_PULSES]
        named = {row["title"]: row["name"] for row in await asyncio.to_thread(self._names, shown)}
        waiting = [one for one in pulses if one["state"] in ("waiting", "left")]
        return self._assets.render(
            exchange,
            "sent.html.j2",
            status=status,
            pulses=[{**one, "name": named.get(one["title"], "")} for one in shown],
            sessions=sessions,
            total=len(pulses),
            viewed_s=sum(one["viewed_ms"] for one in pulses) // 1_000,
            waiting=len(waiting),
            oldest_ms=min((one["at_ms"] for one in waiting), default=0),
            before=f"/sent?from={max(0, first - PAGE_PULSES)}" if first else "",
            after=f"/sent?from={first + PAGE_PULSES}" if first + PAGE_PULSES < len(pulses) else "",
        )

    # -- forms

    async def keep(self, exchange: Exchange) -> Answer:
        """``POST /{token}/play/{title}/keep``: begin to keep, and look at the player again."""
        await self._desk.keep(exchange.match["title"])
        return self._assets.back(f"/play/{exchange.match['title']}")

    async def drop(self, exchange: Exchange) -> Answer:
        """``POST /{token}/play/{title}/drop``: let go, and look at the player again."""
        await self._desk.drop(exchange.match["title"])
        return self._assets.back(f"/play/{exchange.match['title']}")

    async def forget(self, exchange: Exchange) -> Answer:
        """``POST /{token}/forget``: forget where every title was left, or that of the field ``title``."""
        title = (await _form(exchange)).get("title", "")
        await asyncio.to_thread(self._desk.forget, title)
        return self._assets.back("/")

    async def switch(self, exchange: Exchange) -> Answer:
        """``POST /{token}/sent``: pulses on or off, by the field ``on``."""
        wish = (await _form(exchange)).get("on", "")
        if wish not in ("yes", "no"):
            raise RefusedError("say on=yes or on=no", status=400, reason="bad_arguments")
        await self._desk.switch_pulses(on=wish == "yes")
        return self._assets.back("/sent")

    def _names(self, pulses: list[Row]) -> list[Row]:
        return self._desk.titles(sorted({one["title"] for one in pulses if one["title"]}))

    def _guarded(self, show: Handler) -> Handler:
        """Let a person read a refusal as a page; a program gets the problem document."""

        async def shown(exchange: Exchange) -> Answer:
            try:
                return await show(exchange)
            except FarcastError as error:
                answer = self._fail(error)
                if "text/html" not in exchange.headers.get("accept", ""):
                    return answer
                page = self._assets.render(
                    exchange, "problem.html.j2", code=answer.status, sentence=_sentence(str(error))
                )
                page.headers |= {
                    name: answer.headers[name] for name in ("retry-after",) if name in answer.headers
                }
                return page

        return shown


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _number(exchange: Exchange, name: str) -> int:
    text = exchange.query.get(name, "0") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise RefusedError(f"{name}={text[:20]!r} is no number", status=400, reason="bad_arguments")
    return int(text)


def _page(query: str, first: int) -> str:
    return f"/?q={quote(query, safe='')}&from={first}"


async def _form(exchange: Exchange) -> dict[str, str]:
    """Read a form's fields; raises ``RefusedError`` 413, 400."""
    body = await exchange.read(FORM_LIMIT_BYTES)
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=8).items()}
    except ValueError:
        raise RefusedError("that is no form of this page", status=400, reason="bad_arguments") from None
