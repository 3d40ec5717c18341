import sys

import pytest

from farcast.node.portmap.route import default_gateway

HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the table's numbers are this machine's")


def test_the_default_route_with_the_least_metric_names_the_gateway() -> None:
    table = (
        HEAD
        + "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        + "wlan0\t00000000\tFE01A8C0\t0003\t0\t0\t50\t00000000\t0\t0\t0\n"
        + "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert default_gateway(table) == "192.168.1.254"


@pytest.mark.parametrize(
    "table",
    ["", HEAD, HEAD + "eth0 00000000 0101A8C0\n", HEAD + "eth0\tx\ty\tz\t0\t0\tq\tw\n",
     HEAD + "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"],
)  # fmt: skip
def test_a_table_without_one_names_none(table: str) -> None:
    assert default_gateway(table) is None
