"""The desk: what an operator's commands and page ask a running relay, and the switches they throw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..node.http.exchange import Answer, Exchange, Router
from ..node.ladder.tiers import address
from .verdict import Standing, verdict

if TYPE_CHECKING:
    from .service import RelayService


class RelayDesk:
    """Answers about one relay; everything here is also what its page shows."""

    def __init__(self, relay: RelayService) -> None:
        self._relay = relay

    def add_to(self, router: Router) -> None:
        """Add the admin calls below the path token."""
        router.route("GET", "/api/status", self._get_status)
        router.route("POST", "/api/pause", self._pause)
        router.route("POST", "/api/resume", self._resume)
        router.route("POST", "/api/leave", self._leave)

    def status(self) -> dict[str, Any]:
        """Return everything an operator wants to know, the verdict first. Blocking."""
        relay = self._relay
        box, enrolment, contract = relay.box, relay.membership.enrolment, relay.contract
        contracted = contract.facts()
        return {
            "verdict": verdict(self._standing(contracted)),
            "role": "relay",
            "peer_id": box.identity.peer_id,
            "origin": relay.trust.hint.name if relay.trust.hint else "",
            "standing": enrolment.standing,
            "reason": enrolment.reason,
            "listed": enrolment.wish,
            "reachability": self._reachability(),
            "nat": relay.membership.outside.sentence,
            "contract": contracted,
            "serving": self._serving(),
            "titles": len(relay.library.titles()),
            "catalog": relay.heads.facts(),
            "store": {
                "bytes": box.store.held_bytes,
                "blocks": box.store.held_blocks,
                "quota_bytes": box.store.quota_bytes,
            },
            "holdings": self._holdings(),
            "failures": {
                "damaged_blocks": self._metric("farcast_node_store_corrupt_blocks_total"),
                "rejected_blocks": self._rejected(),
            },
            "tiers": relay.fetcher.status()["tiers"],
            "pulses_waiting": box.spool.waiting().count,
            "radio": relay.radio.facts if relay.radio else None,
            "earnings": relay.payslip.facts(),
            "hints": relay.hints.facts(),
            "version": _version(),
        }

    def _standing(self, contracted: dict[str, object]) -> Standing:
        relay, enrolment = self._relay, self._relay.membership.enrolment
        return Standing(
            str(contracted["state"]),
            enrolment.standing,
            enrolment.reason,
            enrolment.wish,
            tuple(address(endpoint) for endpoint in relay.endpoints()),
            tuple(enrolment.lost),
            tuple((fault.endpoint, fault.why) for fault in enrolment.faults if fault.lost != "both"),
            bool(relay.replica.checkpoint()),
            str(contracted["wakes"] or "")[:16].replace("T", " "),
            relay.membership.silent_s,
            int(self._metric("farcast_node_store_corrupt_blocks_total")),
            trouble=enrolment.trouble,
            address=relay.membership.outside.trouble,
        )

    def _reachability(self) -> list[dict[str, str]]:
        """Return each published address with what the origin found when it dialled it."""
        enrolment = self._relay.membership.enrolment
        faults = {fault.endpoint: fault.why for fault in enrolment.faults}
        good = "reachable" if enrolment.standing != "unknown" else "not tried yet"
        return [
            {"address": text, "result": faults.get(text, good)}
            for text in (address(endpoint) for endpoint in self._relay.endpoints())
        ]

    def _serving(self) -> dict[str, object]:
        relay = self._relay
        speed = relay.contract.speed()
        return {
            "connections": relay.warden.connections(),
            "up_bps": speed.up_bps,
            "down_bps": speed.down_bps,
        }

    def _holdings(self) -> list[dict[str, Any]]:
        """Return what is held by publisher: titles, bytes, and the contract's budget."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._relay.holdings.rows():
            name = row["publisher"]
            budget = self._relay.carried.budget(name)
            share = found.setdefault(
                name, {"publisher": name, "titles": 0, "bytes": 0, "budget_bytes": budget}
            )
            share["titles"] += bool(row["bytes"])
            share["bytes"] += row["bytes"]
        return list(found.values())

    def _metric(self, name: str) -> float:
        return self._relay.box.registry.get_sample_value(name) or 0.0

    def _rejected(self) -> int:
        tiers: Any = self._relay.fetcher.status()["tiers"]
        return sum(tier["rejected"] for tier in tiers)

    async def _get_status(self, exchange: Exchange) -> Answer:
        del exchange
        return Answer.json(await asyncio.to_thread(self.status))

    async def _pause(self, exchange: Exchange) -> Answer:
        del exchange
        await self._relay.contract.pause()
        return await self._told()

    async def _resume(self, exchange: Exchange) -> Answer:
        del exchange
        await self._relay.contract.resume()
        return await self._told()

    async def _leave(self, exchange: Exchange) -> Answer:
        del exchange
        relay = self._relay
        await relay.membership.leave()
        name = relay.trust.hint.name if relay.trust.hint else ""
        return Answer.json({"name": name, "pulses_waiting": relay.box.spool.waiting().count})

    async def _told(self) -> Answer:
        told = await self._relay.membership.tell()
        facts = self._relay.contract.facts()
        return Answer.json(
            {"state": facts["state"], "connections": self._relay.warden.connections(), "origin_told": told}
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # brings zip files and mail: for who asks

    try:
        return version("farcast")
    except PackageNotFoundError:
        return "unknown"
