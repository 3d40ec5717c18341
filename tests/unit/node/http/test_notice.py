from __future__ import annotations

import logging

import pytest

from farcast.node.http.notice import KINDS_KEPT, QUIET_S, Herald, Notices


def test_one_line_a_minute_for_each_kind_and_side() -> None:
    notices = Notices()
    assert notices.note("slow_head", 0.0, local=False) == "refused a client on the WAN: slow_head"
    assert notices.note("slow_head", 1.0, local=True) == "refused a client on the LAN: slow_head"
    assert notices.note("stalled", 1.0, local=False) is not None
    assert [notices.note("slow_head", at, local=False) for at in range(2, 60)] == [None] * 58
    line = notices.note("slow_head", QUIET_S, local=False)
    assert line == "refused a client on the WAN: slow_head (58 more since the last line)"
    assert notices.note("slow_head", QUIET_S + 1, local=False) is None


def test_no_more_kinds_are_told_than_there_can_be() -> None:
    notices = Notices()
    lines = [notices.note(f"kind{number}", 0.0, local=False) for number in range(2 * KINDS_KEPT)]
    assert sum(line is not None for line in lines) == KINDS_KEPT


def test_the_log_hears_of_every_carrier_and_never_who(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    herald = Herald(lambda peer: peer.startswith("192.168."), clock=lambda: now)
    with caplog.at_level(logging.INFO):
        for peer in ("192.168.1.9", "198.51.100.7", "198.51.100.8"):
            herald("bad_request", peer)
    assert caplog.messages == [
        "refused a client on the LAN: bad_request",
        "refused a client on the WAN: bad_request",
    ]
