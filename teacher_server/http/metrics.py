"""What Prometheus reads: a registry of the door's own, with nothing of the process or of other libraries in it.

    stillroom_rows_total{teacher,result}       hit, shared, asked, failed, refused
    stillroom_teacher_tokens_total{teacher}    tokens that the teacher read or wrote
    stillroom_waiting_tokens{teacher}          tokens that it still has to, at most
    stillroom_committed_rows_total{teacher}    rows that were written to the cache
    stillroom_commit_errors_total{teacher}     times that the disk refused them
    stillroom_requests_total{key,route,status}
    stillroom_request_seconds{route}           a histogram

What a desk counts is read from it at the moment of asking.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from teacher_server.http.desk import Desk
from teacher_server.http.exchange import Exchange

SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds of the histogram: from an answer of the cache to one that the teacher writes for minutes."""


class Metrics:
    """The numbers of a door over its desks by name."""

    def __init__(self, desks: Mapping[str, Desk[Any, Any]]) -> None:
        self._registry = CollectorRegistry()
        self._hits: Tally[str] = Tally()
        self._requests = Counter("stillroom_requests", "Requests", ["key", "route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "stillroom_request_seconds",
            "Seconds from a request's first byte to its answer's last",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Desks(desks, self._hits))

    def count(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        self._requests.labels(exchange.key_name, exchange.route, str(exchange.status)).inc()
        self._seconds.labels(exchange.route).observe(exchange.seconds)

    def count_hits(self, teacher: str, rows: int) -> None:
        """Count rows that were answered without a teacher."""
        self._hits[teacher] += rows

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Desks(Collector):
    def __init__(self, desks: Mapping[str, Desk[Any, Any]], hits: Mapping[str, int]) -> None:
        self._desks, self._hits = desks, hits

    def collect(self) -> Iterator[Metric]:
        rows = CounterMetricFamily("stillroom_rows", "Rows that were asked for", labels=["teacher", "result"])
        waiting = GaugeMetricFamily(
            "stillroom_waiting_tokens", "Tokens that the teacher still has to read or write", labels=["teacher"]
        )
        singles = {
            name: CounterMetricFamily(f"stillroom_{name}", said, labels=["teacher"])
            for name, said in (
                ("teacher_tokens", "Tokens that the teacher read or wrote"),
                ("committed_rows", "Rows that were written to the cache"),
                ("commit_errors", "Times that the disk refused rows"),
            )
        }
        for teacher, desk in self._desks.items():
            rows.add_metric([teacher, "hit"], self._hits.get(teacher, 0))
            for result in ("shared", "asked", "failed", "refused"):
                rows.add_metric([teacher, result], getattr(desk.counts, result))
            waiting.add_metric([teacher], desk.waiting_tokens)
            for name, family in singles.items():
                family.add_metric([teacher], getattr(desk.counts, name))
        yield from (rows, waiting, *singles.values())
