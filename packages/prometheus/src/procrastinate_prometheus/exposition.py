"""What a worker's HTTP port answers on ``/metrics``: see `procrastinate.observing.exposing`.

Rules

1. Processes behind one port count in files of one folder, by prometheus_client's multiprocess mode.
   Each has a number, and the next process of that number goes on with its counts, so that no
   counter falls and the files become no more.
2. A program that has set PROMETHEUS_MULTIPROC_DIR itself shows what is counted there.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from procrastinate import Observer
from procrastinate_prometheus.observer import PrometheusObserver

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def observer() -> Observer:
    """Return what counts in prometheus_client's own registry."""
    return PrometheusObserver()


def text(accept: str) -> tuple[str, bytes]:
    """Return the content type and the text of all metrics that this process may show."""
    folder = os.environ.get(FOLDER)
    return _text(REGISTRY, accept) if folder is None else text_of_children(folder, accept)


def text_of_children(folder: str, accept: str) -> tuple[str, bytes]:
    """Return the same for all processes that count in a folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return _text(registry, accept)


def _text(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def count_in(folder: str, number: int) -> None:
    """Let this process count in a folder, under its number (rule 1)."""
    os.environ[FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
        process_identifier=lambda: number
    )


def ended(folder: str, number: int) -> None:
    """Forget the gauges of a process that has ended."""
    mark_process_dead(number, path=folder)  # type: ignore[no-untyped-call]
