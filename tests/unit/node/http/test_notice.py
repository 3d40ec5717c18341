from __future__ import annotations

from farcast.node.http.notice import KINDS_KEPT, QUIET_S, Notices


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
