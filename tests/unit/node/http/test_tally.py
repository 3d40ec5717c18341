from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from farcast.node.http.tally import REASON_LIMIT, HttpMetrics


def test_counts_are_exported_by_carrier_class_and_reason() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    quic = metrics.carrier("quic")
    quic.answered(200)
    quic.answered(206)
    quic.answered(999)
    quic.sent_bytes += 7
    quic.connections = lambda: 3
    metrics.refused("unknown_host")
    text = generate_latest(registry).decode()
    assert 'farcast_node_http_requests_total{carrier="quic",status_class="2xx"} 2.0' in text
    assert 'farcast_node_http_requests_total{carrier="quic",status_class="5xx"} 1.0' in text
    assert 'farcast_node_http_sent_bytes_total{carrier="quic"} 7.0' in text
    assert 'farcast_node_http_connections{carrier="quic"} 3.0' in text
    assert 'farcast_node_http_refusals_total{reason="unknown_host"} 1.0' in text
    assert metrics.carrier("quic") is quic


def test_reasons_are_bounded() -> None:
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    for at in range(REASON_LIMIT * 2):
        metrics.refused(f"reason{at}")
    text = generate_latest(registry).decode()
    assert text.count("farcast_node_http_refusals_total{") == REASON_LIMIT + 1
    assert f'farcast_node_http_refusals_total{{reason="other"}} {REASON_LIMIT}.0' in text
