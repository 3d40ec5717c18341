"""The node's page: what plays, how it comes, what leaves; plain HTML that works without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files

from jinja2 import Environment, PackageLoader, select_autoescape

from ...protocol.errors import RefusedError
from ..http.exchange import Answer, Exchange, Router

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "player.js": "text/javascript; charset=utf-8",
    "vendor/hls.min.js": "text/javascript; charset=utf-8",
}


class Page:
    """Renders the overview and the player; ``status`` and ``titles`` give what is shown."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, object]],
        titles: Callable[[], list[dict[str, object]]],
        token: str,
    ) -> None:
        self._status = status
        self._titles = titles
        self._token = token
        self._templates = Environment(
            loader=PackageLoader("farcast.node.page", "."), autoescape=select_autoescape(["j2", "html"])
        )

    def add_to(self, router: Router) -> None:
        """Add the page's routes below the path token."""
        router.route("GET", "/", self.overview)
        router.route("GET", "/play/{title}", self.player)
        router.route("GET", "/assets/{name...}", self.asset)

    async def overview(self, exchange: Exchange) -> Answer:
        """``GET /{token}/``: verdict, titles, tiers, pulses."""
        del exchange
        return self._render("overview.html.j2", status=self._status(), titles=self._titles())

    async def player(self, exchange: Exchange) -> Answer:
        """``GET /{token}/play/{title}``: the player page."""
        title = exchange.match["title"]
        found = next((row for row in self._titles() if row["title"] == title), None)
        if found is None:
            raise RefusedError(f"no title {title!r} in this catalog", status=404, reason="unknown_title")
        return self._render("player.html.j2", title=found)

    async def asset(self, exchange: Exchange) -> Answer:
        """``GET /{token}/assets/{name}``: style and scripts."""
        name = exchange.match["name"]
        place = files("farcast.node.page").joinpath(name)
        if name not in ASSETS or not place.is_file():
            raise RefusedError("no such asset", status=404, reason="unknown_asset")
        return Answer(200, {**HEADERS, "content-type": ASSETS[name]}, place.read_bytes())

    def _render(self, template: str, **values: object) -> Answer:
        text = self._templates.get_template(template).render(base=f"/{self._token}", **values)
        return Answer(200, {**HEADERS, "content-type": "text/html; charset=utf-8"}, text.encode())
