"""Prometheus metrics of procrastinate: of a program's workers, and of the database.

`PrometheusObserver` counts what the workers of this process do. `DatabaseCollector` asks the
database what waits. The names of all metrics are in `procrastinate_prometheus.names`.
"""

from __future__ import annotations

from procrastinate_prometheus.database import DatabaseCollector
from procrastinate_prometheus.observer import PrometheusObserver

__all__ = ["DatabaseCollector", "PrometheusObserver"]
