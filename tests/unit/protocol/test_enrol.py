from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.codec import Message, encode
from farcast.protocol.enrol import (
    DAYS_AHEAD,
    CheckAnswer,
    CheckRequest,
    DeviceAnswer,
    DeviceRequest,
    Fault,
    RelayAnswer,
    RelayRequest,
    TicketAnswer,
    TicketRequest,
    TicketWish,
    open_check_answer,
    open_check_request,
    open_device_answer,
    open_device_request,
    open_relay_answer,
    open_relay_request,
    open_ticket_answer,
    open_ticket_request,
)
from farcast.protocol.errors import RemoteError
from farcast.protocol.ticket import TicketGrant

KEY = bytes(32)
CASES: list[tuple[Message, Callable[[bytes], Message]]] = [
    (DeviceRequest(1, "t" * 32, KEY), open_device_request),
    (DeviceAnswer(1, 3), open_device_answer),
    (TicketRequest(1, [TicketWish(20_000, KEY)]), open_ticket_request),
    (TicketAnswer(1, [TicketGrant(b"ticket", KEY)]), open_ticket_answer),
    (RelayRequest(2, "", b"record", "unlisted"), open_relay_request),
    (CheckRequest(1, KEY, 7433, b"pad"), open_check_request),
    (CheckAnswer(1, "192.0.2.1", "", "silent", 5, 6, b"pad"), open_check_answer),
    (RelayAnswer(2, "pending", "", False, [Fault("a:1", "udp", "silent")]), open_relay_answer),
]


@pytest.mark.parametrize(("message", "open_message"), CASES)
def test_a_body_reads_back_as_written(message: Message, open_message: Callable[[bytes], Message]) -> None:
    assert open_message(encode(message)) == message


@pytest.mark.parametrize("open_message", [opener for _, opener in CASES])
@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_remote_error(
    open_message: Callable[[bytes], Message], data: bytes
) -> None:
    try:
        message = open_message(data)
    except RemoteError:
        return
    assert encode(message) == data


@pytest.mark.parametrize(
    ("message", "open_message"),
    [
        (DeviceRequest(1, "short", KEY), open_device_request),
        (DeviceRequest(1, "t" * 32, KEY[:31]), open_device_request),
        (TicketRequest(1, []), open_ticket_request),
        (TicketRequest(1, [TicketWish(20_000, KEY)] * (DAYS_AHEAD + 2)), open_ticket_request),
        (RelayRequest(2, "no spaces in tokens", b"", "listed"), open_relay_request),
        (RelayRequest(2, "short", b"", "listed"), open_relay_request),
        (RelayAnswer(2, "approved", "", True, [Fault("a:1", "both", "")] * 9), open_relay_answer),
    ],
)
def test_a_body_outside_its_bounds_is_malformed(
    message: Message, open_message: Callable[[bytes], Message]
) -> None:
    with pytest.raises(RemoteError) as caught:
        open_message(encode(message))
    assert caught.value.reason == "malformed"
