"""The doctor: looks at everything at once, never longer than a few seconds, and says the worst first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from time import time
from typing import NamedTuple

from ...protocol.errors import FarcastError, LocalError
from . import lanprobe, machine
from .apart import apart, resolve
from .dish import check_dish
from .finding import Finding, State, bad, verdict
from .patient import Patient, examine, find_home
from .pullzone import check_pull_zones
from .reach import Origin, check_hints, check_listener, check_running

DEADLINE_S = 5.0
MACHINE: dict[str, Callable[[Patient], Finding]] = {
    "settings": machine.check_settings,
    "keys": machine.check_keys,
    "disk": machine.check_disk,
    "descriptors": machine.check_descriptors,
    "congestion": machine.check_congestion,
    "address": machine.check_address,
    "overlay": machine.check_overlay,
    "ipv6": lanprobe.check_ipv6,
    "lan": lanprobe.check_lan,
    "firewall": lanprobe.check_firewall,
}


class Diagnosis(NamedTuple):
    """One line, and what it rests on, the worst first."""

    verdict: str
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.state is not State.BAD for finding in self.findings)

    def lines(self) -> list[str]:
        """Return the findings for people, each mend below its trouble."""
        lines = list[str]()
        for finding in self.findings:
            lines.append(f"  {finding.state.label:<8} {finding.name:<12} {finding.sentence}")
            if finding.mend:
                lines.append(f"{'':<24}mend: {finding.mend}")
        return lines


async def visit(named: Path | None, environ: Mapping[str, str]) -> tuple[Patient, Diagnosis]:
    """Examine the home that is named, or the one there is, and diagnose it.

    Raises:
        UsageError: ``no_home`` where no box lives there.
        LocalError: its disk does not answer.

    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            patient = await apart(lambda: examine(find_home(named, environ), environ))
    except TimeoutError as error:
        message = f"the disk of the home did not answer within {DEADLINE_S:.0f} s; look at that disk first"
        raise LocalError(message, reason="timeout") from error
    return patient, await diagnose(patient)


async def diagnose(patient: Patient, *, clock: Callable[[], float] = time) -> Diagnosis:
    """Check everything at once; what does not answer within ``DEADLINE_S`` is a finding too."""
    origin = Origin(patient, resolve, clock)
    checks: dict[str, Awaitable[Finding]] = {
        name: apart(partial(check, patient)) for name, check in MACHINE.items()
    }
    checks |= {
        "box": check_running(patient),
        "listener": check_listener(patient),
        "hints": check_hints(patient),
        "origin": origin.check_origin(),
        "udp": origin.check_udp(),
        "clock": origin.check_clock(),
    }
    if patient.keyring is not None and patient.keyring.cdn:
        checks["cdn"] = check_pull_zones(patient)
    if patient.role == "node" and patient.settings.metered.dish:
        checks["dish"] = check_dish(patient)
    try:
        findings = await asyncio.gather(*(_bounded(name, check) for name, check in checks.items()))
    finally:
        await origin.close()
    findings.sort(key=lambda finding: finding.state)
    return Diagnosis(verdict(findings), findings)


async def _bounded(name: str, check: Awaitable[Finding]) -> Finding:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await check
    except TimeoutError:
        return bad(
            name,
            f"this could not be told within {DEADLINE_S:.0f} s",
            "a disk or network that hangs: look there",
        )
    except (FarcastError, OSError) as error:
        return bad(name, f"this could not be looked at: {error}", "mend that and look again")
