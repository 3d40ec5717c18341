"""Two origins that run over one home settle each month once, in whatever order the system lets them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from farcast.origin.money.closing import close_ms
from farcast.tests.unit.origin.countinghouse import CountingHouse, found
from farcast.tests.unit.origin.mint import CLOSE_MS, MONTH

ROUNDS = 2
DAEMON = """
import json, sys, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from farcast.node.settings import Settings
from farcast.origin.money.clerk import Clerk
from farcast.origin.office import Office

home, now_ms = Path(sys.argv[1]), int(sys.argv[2])
office = Office(home, Settings.load(home, {}), lambda: now_ms)
office.bursary.open()
paid = []
registry = CollectorRegistry()
clerk = Clerk(office.bursary, registry, lambda month, at_ms: paid.append(month))
print("ready", flush=True)
sys.stdin.readline()
done = clerk.tick(now_ms, 0)
result = {"result": "done", "kind": "settle"}
posted = registry.get_sample_value("farcast_origin_settlement_tasks_total", result) or 0
print(json.dumps({"tasks": len(done), "posted": posted, "trouble": clerk.trouble}), flush=True)
office.close()
"""


def daemon(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DAEMON, str(home), str(CLOSE_MS)]
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)


def test_two_daemons_at_once_settle_a_month_once(tmp_path: Path) -> None:
    template = tmp_path / "template"
    found(template)
    house = CountingHouse(template)
    film = house.film("film", {"ann": 7_000, "bob": 3_000})
    for number in range(3):
        house.watch(number, film, 5)
    house.office.money.book("revenue", 99_999)
    house.close()
    digests: set[bytes] = set()
    for number in range(ROUNDS):
        home = tmp_path / str(number)
        shutil.copytree(template, home)
        with daemon(home) as first, daemon(home) as second:
            both = [first, second]
            for one in both:
                assert one.stdout is not None
                assert one.stdout.readline() == "ready\n"
            for one in both:
                assert one.stdin is not None
                one.stdin.write("go\n")
                one.stdin.flush()
            told = [json.loads(one.communicate(timeout=60)[0]) for one in both]
        assert [one.returncode for one in both] == [0, 0]
        assert sum(row["posted"] for row in told) == 1, told
        assert [row["trouble"] for row in told] == ["", ""]
        after = CountingHouse(home)
        after.now_ms = close_ms(MONTH)
        ledger = after.office.treasury.ledger
        (settled,) = ledger.settlements()
        digests.add(settled.digest)
        assert ledger.balances("payable:") == {"payable:ann": -66_500, "payable:bob": -28_500}
        ledger.verify_chain()
        assert (home / "reports" / MONTH / "head.bin").is_file()
        after.close()
    assert len(digests) == 1
