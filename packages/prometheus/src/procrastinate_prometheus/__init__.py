"""Prometheus metrics of procrastinate: of a program's workers, and of the database.

`PrometheusObserver` counts what the workers of this process do. `DatabaseCollector` asks the
database what waits. The names of all metrics are in `procrastinate_prometheus.names`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from procrastinate import later

if TYPE_CHECKING:
    from procrastinate_prometheus.database import DatabaseCollector
    from procrastinate_prometheus.observer import PrometheusObserver

__all__ = ["DatabaseCollector", "PrometheusObserver"]

if not TYPE_CHECKING:
    # Imported when they are asked for: the list of commands imports this package too.
    __getattr__ = later.imported(
        __name__,
        {
            "DatabaseCollector": "database",
            "PrometheusObserver": "observer",
        },
    )
