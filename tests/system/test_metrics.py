"""What every box tells Prometheus, by Prometheus' own checker and by the house's naming rule."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from farcast.tests.system.served import Served

BOXES = 6
"""Origin, two relays, neighbour, node and the CDN stand-in."""
NAME = re.compile(r"farcast_(cdn|mesh|node|origin|relay|satellite)_[a-z0-9]+(_[a-z0-9]+)*")
PROCESS = ("process_", "python_")
"""What prometheus_client itself says of a process; those names are the field's."""
UNITS = {"seconds", "bytes", "ratio", "cents", "timestamp_seconds"}
LABELS = {
    "by", "carrier", "direction", "found", "from", "kind", "le", "lost", "of", "path", "publisher", "reason",
    "result", "side", "standing", "state", "status_class", "task", "tier", "to", "topic", "way", "what",
    "whose",
}  # fmt: skip
"""Words from short lists; a new one is added here after a look at what its values can be.

A publisher's id is in every catalog, and says nothing of who watches.
"""
PRIVATE = re.compile(
    r"12D3KooW|bafy|bafk|Qm[1-9A-HJ-NP-Za-km-z]{44}|[0-9a-f]{16,}|\d+\.\d+\.\d+\.\d+|\[[0-9a-f:]+\]|:\d{4,5}$"
)

Need = Callable[..., str]


def texts(served: Served) -> dict[str, str]:
    found: dict[str, str] = {}
    for url in served.urls["metrics"]:
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            assert answer.headers["content-type"].startswith("text/plain")
            found[url] = answer.read().decode()
    assert len(found) == BOXES
    return found


@pytest.mark.timeout(240)
def test_promtool_finds_nothing_to_say(served: Served, need: Need) -> None:
    promtool = need("promtool")
    for url, text in texts(served).items():
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), url


@pytest.mark.timeout(240)
def test_every_name_says_package_and_noun_and_every_metric_explains_itself(served: Served) -> None:
    for text in texts(served).values():
        families = list(text_string_to_metric_families(text))
        ours = [family for family in families if not family.name.startswith(PROCESS)]
        assert ours
        for family in ours:
            assert NAME.fullmatch(family.name), family.name
            assert family.documentation.endswith("."), family.name
            assert not [sample.name for sample in family.samples if sample.name.endswith("_created")]


@pytest.mark.timeout(240)
def test_no_label_says_what_was_watched_by_whom_or_from_where(served: Served) -> None:
    for text in texts(served).values():
        for family in text_string_to_metric_families(text):
            if family.name.startswith(PROCESS):
                continue
            for sample in family.samples:
                assert set(sample.labels) <= LABELS, sample
                told = [value for name, value in sample.labels.items() if name != "publisher"]
                assert not [value for value in told if PRIVATE.search(value)], sample
