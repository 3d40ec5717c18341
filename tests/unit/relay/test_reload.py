from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from farcast.node.settings import Settings
from farcast.relay.reload import Reload, differing, taken

FILE = "settings.toml"


@pytest.fixture
def reloaded(tmp_path: Path) -> tuple[Reload, list[Settings], CollectorRegistry]:
    found, registry = list[Settings](), CollectorRegistry()
    reload = Reload(tmp_path, Settings.load(tmp_path, {}), found.append, registry)
    return reload, found, registry


async def test_what_can_change_does_and_the_rest_is_said_to_wait(
    tmp_path: Path,
    reloaded: tuple[Reload, list[Settings], CollectorRegistry],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reload, found, _ = reloaded
    text = '[contract]\nvolume_bytes = "1 TB"\n[store]\nquota_bytes = "50 GB"\n[listen]\nport = 8000\n'
    (tmp_path / FILE).write_text(text + '[admin]\ntoken = "abcdefghijklmnopqrst"\n')
    with caplog.at_level(logging.INFO):
        assert await reload.reload()
    assert found[0].contract.volume_bytes == 10**12
    assert found[0].store.quota_bytes == 50 * 10**9
    assert found[0].listen.port == 7433
    line = caplog.messages[-1]
    assert "from now on store.quota_bytes = 50000000000, contract.volume_bytes = 1000000000000" in line
    assert "from the next start on listen.port = 8000" in line
    assert "abcdefghij" not in caplog.text
    (tmp_path / FILE).write_text(text)
    with caplog.at_level(logging.INFO):
        assert await reload.reload()
    assert "nothing to change while running; from the next start on listen.port = 8000" in caplog.messages[-1]


@pytest.mark.parametrize(
    "text", ["[contract]\nrate_up_bps = 'x'", "[contract", "[contract]\nnone = 1", "[cont]"]
)
async def test_a_bad_file_changes_nothing_and_is_named(
    tmp_path: Path,
    reloaded: tuple[Reload, list[Settings], CollectorRegistry],
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    reload, found, registry = reloaded
    (tmp_path / FILE).write_text(text)
    assert not await reload.reload()
    assert found == []
    assert f"the old ones stay: {tmp_path / FILE}" in caplog.messages[-1]
    assert registry.get_sample_value("farcast_relay_settings_reloads_total", {"result": "refused"}) == 1
    (tmp_path / FILE).write_text("")
    assert await reload.reload()


def test_nothing_differs_from_itself() -> None:
    settings = Settings.load(None, {})
    assert differing(settings, settings, live=True) == differing(settings, settings, live=False) == []
    assert taken(settings, settings) == settings
