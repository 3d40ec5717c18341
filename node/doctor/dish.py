"""Looks at the Starlink dish that the settings name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ...protocol.errors import RemoteError, UnreachableError, UsageError
from ..dish.dish import Dish
from .finding import Finding, ok, warning
from .patient import Patient

ALERTS_SHOWN = 4


async def check_dish(patient: Patient) -> Finding:
    """Say how the dish stands; one that carries nothing is a warning, since a box works without an uplink."""
    name, address = "dish", patient.settings.metered.dish
    try:
        found = await Dish(address, CollectorRegistry()).ask()
    except UsageError as error:
        return warning(name, str(error), "install that, or set [metered] dish to nothing")
    except UnreachableError as error:
        return warning(
            name,
            str(error),
            "look at its cable and power; behind a router of your own, route that address to it",
        )
    except RemoteError as error:
        return warning(name, str(error), "set [metered] dish to the dish's own address, 192.168.100.1:9200")
    alerts = ", ".join(one.replace("_", " ") for one in found.alerts[:ALERTS_SHOWN])
    sentence = f"{found.sentence()}{f'; it warns: {alerts}' if alerts else ''}"
    if found.connected and not found.obstructed:
        return ok(name, sentence)
    return warning(name, sentence, "look at the dish and its app; what is here plays on")
