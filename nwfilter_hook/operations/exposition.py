"""
Families of samples as text, by prometheus_client.

In:  what metrics.py reads.
Out: OpenMetrics (https://prometheus.io/docs/specs/om/open_metrics_spec/), or Prometheus' older text format, the one
     that node_exporter's textfile collector reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..base.errors import NwfilterHookError
from ..storage.tallies import BUCKETS_S
from .metrics import Family

OPENMETRICS, PROMETHEUS = "openmetrics", "prometheus"


def load_client() -> Any:
    """prometheus_client. Raises NwfilterHookError if it isn't installed."""
    try:
        import prometheus_client.core
    except ImportError:
        raise NwfilterHookError("metrics need prometheus_client; install python3-prometheus-client") from None
    return prometheus_client


class Collector:
    """What prometheus_client asks at each scrape."""

    def __init__(self, read: Callable[[], Iterable[Family]]) -> None:
        self._core = load_client().core
        self._read = read

    def collect(self) -> Iterator[Any]:
        """Every family in prometheus_client's terms."""
        for family in self._read():
            yield self._metric(family)

    def describe(self) -> list[Any]:
        """Nothing is asked when it is registered."""
        return []

    def _metric(self, family: Family) -> Any:
        core, head = self._core, (family.name, family.help)
        if family.kind == "histogram":
            metric = core.HistogramMetricFamily(*head, labels=family.labels)
            for sample in family.samples:
                assert sample.tally
                total, buckets = 0, []
                for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), sample.tally.buckets):
                    total += count
                    buckets.append((bound, total))
                metric.add_metric(sample.labels, buckets, sample.tally.sum)
            return metric
        kind = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
        metric = kind(*head, labels=family.labels)
        for sample in family.samples:
            metric.add_metric(sample.labels, sample.value)
        return metric


def exposition(families: Iterable[Family], form: str) -> bytes:
    """`families` in one of the two formats. Raises NwfilterHookError: prometheus_client isn't installed."""
    client = load_client()
    registry = client.CollectorRegistry(auto_describe=False)
    found = list(families)
    registry.register(Collector(lambda: found))
    if form == PROMETHEUS:
        return bytes(client.generate_latest(registry))
    from prometheus_client.openmetrics import exposition as openmetrics

    return bytes(openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]
