"""The household: titles for the televisions of a viewer's home, on a listener and a token of their own.

No page, admin call, metric or player event is behind that token (docs/adr/0024).
"""

from __future__ import annotations

from .box import Box, stored_token
from .http.exchange import Hosts, Router
from .http.homelistener import HomeListener
from .playback.gateway import Gateway
from .playback.television import Television


class Household:
    """Opens with the box where the viewer has opted in (``[lan] enabled``, ``farcast run --lan``)."""

    def __init__(self, box: Box, television: Television, gateway: Gateway) -> None:
        """Add the listener to ``box``, or nothing where it is off."""
        self._box = box
        self._lan = lan = box.settings.lan
        self._listener: HomeListener | None = None
        self._token = ""
        if not lan.enabled:
            return
        self._token = stored_token(box.home.path / "lan-token")
        router = Router(Hosts(), token=self._token)
        television.add_to(router)
        router.route("GET", "/watch/{title}/{path...}", gateway.watch)
        self._listener = HomeListener(router, box.http_metrics, box.trusted, host=lan.host, port=lan.port)
        box.on_listen(self._listener.start)
        box.on_close(self._listener.close)

    @property
    def url(self) -> str:
        """Where televisions find titles, token included; empty where the listener is off."""
        if self._listener is None:
            return ""
        host = self._lan.host
        if host in ("", "0.0.0.0", "::"):  # noqa: S104 - one of the addresses it stands for
            host = (self._box.trusted.addresses() or ["127.0.0.1"])[0]
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._listener.port}/{self._token}"

    @property
    def everything(self) -> str:
        """The address of the list of every title; empty where the listener is off."""
        return f"{self.url}/all.m3u" if self.url else ""

    def lines(self) -> list[str]:
        """Return what a terminal shows of it: the address, and a QR code of it."""
        if not self.everything:
            return []
        from .page.qrtext import qr_lines

        return [f"Televisions of this household: {self.everything}", *qr_lines(self.everything)]
