"""Prometheus metrics of procrastinate: of a program's workers, and of the database.

`PrometheusObserver` counts what the workers of this process do. `DatabaseCollector` asks the
database what waits. The names of all metrics are in `procrastinate_prometheus.names`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procrastinate_prometheus.database import DatabaseCollector
    from procrastinate_prometheus.observer import PrometheusObserver

__all__ = ["DatabaseCollector", "PrometheusObserver"]

#: Where they are. They are imported when they are asked for: the list of commands imports this
#: package too.
_LATER = {
    "DatabaseCollector": "database",
    "PrometheusObserver": "observer",
}

if not TYPE_CHECKING:  # type checkers would take every name for a known one

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
