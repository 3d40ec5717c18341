"""CMCD as players write it, version 1 and 2, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcast.protocol.cmcd import Report, parse_events, parse_report, report_of
from farcast.protocol.errors import RemoteError


def test_a_version_1_query_as_hls_js_sends_it() -> None:
    text = (
        'bl=21300,br=3200,bs,cid="film",d=4004,mtp=25400,nor="..%2F300kbps%2Fseg-00035.m4s",ot=v,pr=1.08,'
        'sf=h,sid="6e2fb550-c457-11e9-bb97-0800200c9a66",st=v,tb=6000'
    )
    assert parse_report(text) == Report(
        sid="6e2fb550-c457-11e9-bb97-0800200c9a66",
        content="film",
        rate=1.08,
        buffer_ms=21_300,
        next_objects=("../300kbps/seg-00035.m4s",),
        ahead_ms=21_300,
    )


def test_version_2_lists_carry_parameters_and_several_objects() -> None:
    report = parse_report(
        'bl=(2100;v 5000;a),br=(857),dl=1900,nor=("seg-2.m4s";r="0-9" "a/seg-2.m4s"),v=2,sid="x"'
    )
    assert report.buffer_ms == 1_900
    assert report.next_objects == ("seg-2.m4s", "a/seg-2.m4s")


def test_event_mode_is_one_report_a_line() -> None:
    body = (
        b'cid="film",e=ps,sid="s1",sn=0,sta=s,ts=1790000000000,v=2\n'
        b'cid="film",e=t,pr=2,pt=12000,sid="s1",sn=1,sta=p,ts=1790000005000,v=2\n\n'
    )
    first, second = parse_events(body)
    assert (first.event, first.state, first.sn, first.ts_ms) == ("ps", "s", 0, 1_790_000_000_000)
    assert (second.rate, second.position_ms, second.state) == (2.0, 12_000, "p")


def test_headers_and_query_say_the_same() -> None:
    headers = {"cmcd-session": 'sid="x",cid="film"', "cmcd-request": "bl=4000", "cmcd-object": "d=2000,ot=v"}
    assert report_of({}, headers) == report_of({"CMCD": 'sid="x",cid="film",bl=4000,d=2000,ot=v'}, {})
    assert report_of({}, {"accept": "*/*"}) is None


def test_values_of_the_wrong_shape_are_left_out() -> None:
    assert parse_report("bl=soon,pr=fast,pt=x,sta=zz,sn=99999999999999999999,ts=1e5") == Report()


def test_a_buffer_below_nothing_sets_no_deadline() -> None:
    report = parse_report("bl=-4000,dl=-1")
    assert (report.buffer_ms, report.ahead_ms) == (None, -4_000)


def test_quotes_inside_strings_are_unescaped() -> None:
    assert parse_report(r'sid="a\"b\\c",com.example-myKey="x,y"').sid == 'a"b\\c'


@pytest.mark.parametrize(
    "text", [",", "=", 'sid="open', "a=b c", "1=2", "a=(b", "a;b", "a,b,,c", "x" * 9_000]
)
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_report(text)


def test_too_many_keys_or_events_are_refused() -> None:
    with pytest.raises(RemoteError):
        parse_report(",".join(f"a{n}=1" for n in range(65)))
    with pytest.raises(RemoteError):
        parse_events(b"sn=1\n" * 201)


@given(st.binary(max_size=400) | st.text('ab=,;()"\\ 0.-:', max_size=200).map(str.encode))
def test_any_bytes_are_a_report_or_a_remote_error(body: bytes) -> None:
    try:
        reports = parse_events(body)
    except RemoteError:
        return
    for report in reports:
        assert report.state == "" or len(report.state) == 1
