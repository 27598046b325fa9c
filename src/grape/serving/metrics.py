"""Counts and histograms of a server, in the text format that Prometheus reads."""

import threading
from bisect import bisect_left
from collections.abc import Mapping

__all__ = ["BATCH_SIZES", "SECONDS", "Histogram", "ServerMetrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Histogram:
    """Counts of values up to each of some bounds.

    Args:
        bounds: Upper bounds, rising.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._counts)

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Its lines: cumulative counts, sum and count."""
        counted, lines = 0, []
        for bound, count in zip((*self._bounds, None), self._counts, strict=True):
            counted += count
            lines.append(f'{name}_bucket{{le="{"+Inf" if bound is None else f"{bound:g}"}"}} {counted}')
        return [*lines, f"{name}_sum {self.total:.9g}", f"{name}_count {counted}"]


class ServerMetrics:
    """What a server has done since it was started. Requests are counted by how they ended.

    Args:
        labels: Facts of the server that do not change, e.g. the policy's hash.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._lock = threading.Lock()
        self.requests = {"answered": 0, "refused": 0, "failed": 0}
        self.connections = self.connections_total = self.rejected = self.observations = self.answering = 0
        self.request_seconds = Histogram(SECONDS)
        self.policy_seconds = Histogram(SECONDS)
        self.batch_size = Histogram(BATCH_SIZES)

    def request(self, outcome: str, seconds: float) -> None:
        """Count a request that was ``answered``, ``refused`` (it cannot be answered) or ``failed`` (the policy did)."""
        with self._lock:
            self.requests[outcome] += 1
            self.request_seconds.add(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch that the policy decided on."""
        with self._lock:
            self.observations += rows
            self.batch_size.add(rows)
            self.policy_seconds.add(seconds)

    def text(self) -> str:
        """All of it, as ``/metrics`` shows it."""
        with self._lock:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self._labels.items())
            lines = [*_head("info", "gauge", "The policy that is served."), f"grape_serve_info{{{labels}}} 1"]
            lines += _head("requests_total", "counter", "Requests by how they ended.")
            lines += [f'grape_serve_requests_total{{outcome="{name}"}} {n}' for name, n in self.requests.items()]
            for name, kind, value, about in (
                ("connections", "gauge", self.connections, "Open connections."),
                ("answering", "gauge", self.answering, "Requests that wait for their answer."),
                ("connections_total", "counter", self.connections_total, "Connections that were let in."),
                ("rejected_total", "counter", self.rejected, "Connections that were not let in."),
                ("observations_total", "counter", self.observations, "Observations that were decided on."),
            ):
                lines += [*_head(name, kind, about), f"grape_serve_{name} {value}"]
            for name, histogram, about in (
                ("request_seconds", self.request_seconds, "Seconds from a request to its answer."),
                ("policy_seconds", self.policy_seconds, "Seconds that the policy took for a batch."),
                ("batch_size", self.batch_size, "Observations in a batch."),
            ):
                lines += [*_head(name, "histogram", about), *histogram.lines(f"grape_serve_{name}")]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> list[str]:
    return [f"# HELP grape_serve_{name} {about}", f"# TYPE grape_serve_{name} {kind}"]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
