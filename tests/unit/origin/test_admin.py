from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.http.exchange import Hosts, Router
from farcast.node.http.locallistener import LocalListener
from farcast.node.http.tally import HttpMetrics
from farcast.node.report import quiet
from farcast.node.settings import Settings
from farcast.origin.admin import OriginAdmin
from farcast.origin.command import call_running
from farcast.origin.keys import init
from farcast.origin.office import Office
from farcast.protocol.directory import Endpoint
from farcast.protocol.errors import LocalError, RefusedError, UsageError

TOKEN = "token-of-this-home-0123"
NOW_MS = time.time_ns() // 1_000_000


class Running:
    """An origin's office behind the loopback listener of its home, as a running origin has it."""

    def __init__(self, home: Path, office: Office) -> None:
        self.home = home
        self.office = office

    async def call(self, action: str, **arguments: object) -> dict[str, object]:
        """Call as a command does, from another thread."""
        return await asyncio.to_thread(call_running, self.home, action, arguments, quiet)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one origin to copy from, because stretching its passphrase takes long on purpose."""
    home = tmp_path_factory.mktemp("template") / "home"
    init(home, "Acme", [Endpoint("films.example", 7433, False)], "correct horse battery", NOW_MS / 1_000)
    return home


@pytest.fixture
async def running(template: Path, tmp_path: Path) -> AsyncIterator[Running]:
    home = tmp_path / "home"
    shutil.copytree(template, home)
    office = Office(home, Settings.load(home, {}), lambda: NOW_MS)
    router = Router(Hosts(), token=TOKEN)
    OriginAdmin(office).routes(router)
    async with LocalListener(router, HttpMetrics(CollectorRegistry()), port=0) as listener:
        (home / "admin.json").write_text(json.dumps({"url": f"http://127.0.0.1:{listener.port}/{TOKEN}"}))
        yield Running(home, office)
    office.close()


async def test_a_command_has_its_work_done_by_the_running_origin(running: Running) -> None:
    added = await running.call("payee_add", payee="anna")
    assert (added["payee"], added["name"], added["method"]) == ("anna", "anna", "")
    assert [payee.id for payee in running.office.accounts.payees()] == ["anna"]
    assert (await running.call("status"))["name"] == "Acme"


async def test_wrong_use_and_failures_arrive_as_what_they_are(running: Running) -> None:
    with pytest.raises(UsageError, match="a payee id is") as wrong:
        await running.call("payee_add", payee="Not An Id")
    assert wrong.value.reason == "usage"
    with pytest.raises(UsageError, match="no action 'nonsense'"):
        await running.call("nonsense")
    (running.home / "keys" / "root.sealed").unlink()
    with pytest.raises(LocalError, match=r"No such file or directory: .*root\.sealed"):
        await running.call("renew", passphrase="correct horse battery")


async def test_progress_reaches_the_command_before_the_result(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(action: str, arguments: object, report: object) -> dict[str, object]:
        assert callable(report)
        for done in (1, 2, 3):
            report(action, done, 3)
            time.sleep(0.25)
        return {"arguments": arguments}

    monkeypatch.setattr(running.office, "perform", work)
    seen: list[tuple[str, float, float]] = []

    def note(stage: str, done: float, total: float = 1.0) -> None:
        seen.append((stage, done, total))

    found = await asyncio.to_thread(call_running, running.home, "publish", {"media": "x"}, note)
    assert found == {"arguments": {"media": "x"}}
    assert seen == [("publish", 1, 3), ("publish", 2, 3), ("publish", 3, 3)]


async def test_a_second_long_action_is_told_to_wait(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(*_: object) -> dict[str, object]:
        begun.set()
        assert go_on.wait(10)
        return {"done": True}

    monkeypatch.setattr(running.office, "perform", work)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(running.call("publish"))
        assert await asyncio.to_thread(begun.wait, 10)
        with pytest.raises(RefusedError, match="publishing or settling already") as caught:
            await running.call("settle")
        assert caught.value.status == 429
        go_on.set()
    assert first.result() == {"done": True}


async def test_a_bug_in_an_action_ends_the_call_with_a_sentence(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> dict[str, object]:
        raise ZeroDivisionError

    monkeypatch.setattr(running.office, "perform", work)
    with pytest.raises(LocalError, match="ZeroDivisionError"):
        await running.call("status")


async def test_arguments_that_are_no_object_are_refused(running: Running) -> None:
    with pytest.raises(RefusedError, match="no JSON object"):
        await asyncio.to_thread(call_running, running.home, "status", ["not", "named"], quiet)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_home_in_use_by_another_command_or_by_a_dead_origin_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="in use by another command"):
        call_running(tmp_path, "status", {}, quiet)
    (tmp_path / "admin.json").write_text(json.dumps({"url": f"http://127.0.0.1:9/{TOKEN}"}))
    with pytest.raises(LocalError, match="does not answer"):
        call_running(tmp_path, "status", {}, quiet)
