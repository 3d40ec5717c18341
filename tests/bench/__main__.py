"""``make bench``: runs the figures and writes ``build/bench.json`` (ratios against real peers).

``python -m tests.bench --only name,...``; without ``--only`` every figure that CI can afford. With
``--gate SHARE`` a figure below that share of its goal is measured once more, and fails the run if it
stays there.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

BENCHES = (
    "publish", "ingest", "http1", "http3", "evict", "hostile", "loss", "memory", "cold", "failover", "viewed",
    "pulses",
    "settle",
    "verify",
    "sim",
    "swarm",
    "discovery",
    "oneway",
)  # fmt: skip
BUILD = Path("build")

Run = Callable[[Sequence[str]], list[dict[str, Any]]]


def main() -> int:
    """Run the benches that hold a named figure; returns 1 where a name is unknown."""
    parser = argparse.ArgumentParser(description="Measure Farcast against real peers.")
    parser.add_argument("--only", default="", help="figures, separated by commas")
    parser.add_argument("--gate", type=float, default=0.0, help="fail below this share of a figure's goal")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    goals: dict[str, float] = {}
    figures: list[dict[str, Any]] = []
    known: set[str] = set()
    below: list[str] = []
    for name in BENCHES:
        bench = import_module(f"tests.bench.{name}")
        names: tuple[str, ...] = bench.FIGURES
        known.update(names)
        goals.update(getattr(bench, "GOALS", {}))
        if only and not set(names) & set(only):
            continue
        run: Run = bench.run
        for measured in run(only):
            figure = measured
            least = arguments.gate * goals.get(figure["name"], 0.0)
            if missed(figure, least):  # a machine is noisy at times, a slow server always
                sys.stdout.write(f"{line(figure)}  (below {least:.2f}: once more)\n")
                figure = run([figure["name"]])[0]
            figures.append(figure)
            if missed(figure, least):
                below.append(f"{figure['name']} is {figure['ratio']:.2f}, under {least:.2f}")
            sys.stdout.write(line(figure) + "\n")
            sys.stdout.flush()
    if unknown := set(only) - known:
        sys.stderr.write(f"no such figure: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}\n")
        return 1
    BUILD.mkdir(exist_ok=True)
    result = {"machine": machine(), "commit": commit(), "figures": figures}
    (BUILD / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    if below:
        sys.stderr.write(f"slower than they may be: {'; '.join(below)}\n")
    return 1 if below else 0


def missed(figure: dict[str, Any], least: float) -> bool:
    """Say whether a measured figure is below ``least``."""
    ratio = figure.get("ratio")
    return ratio is not None and ratio < least


def line(figure: dict[str, Any]) -> str:
    """Return one figure as a line for people."""
    if "skipped" in figure:
        return f"{figure['name']:<16} skipped: {figure['skipped']}"
    extra = "  ".join(
        f"{key} {value:.2f}" for key, value in figure.get("extra", {}).items() if isinstance(value, float)
    )
    if figure["ratio"] is None:
        return f"{figure['name']:<16} {figure['ours']:.4g} {figure['unit']}  {extra}"
    return (
        f"{figure['name']:<16} ratio {figure['ratio']:.2f}  ours {figure['ours']:.4g}  "
        f"{figure['peer_name']} {figure['peer']:.4g} {figure['unit']}  rounds {figure['rounds']}  {extra}"
    )


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    cpu = ""
    for row in Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            cpu = row.partition(":")[2].strip()
            break
    return {"cpu": cpu, "system": platform.platform(), "python": platform.python_version()}


def commit() -> str:
    """Return the commit measured, empty outside a checkout."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
