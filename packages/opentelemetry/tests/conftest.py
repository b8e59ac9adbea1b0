"""Fixtures: an app in memory, and an SDK that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import procrastinate
from procrastinate.testing import InMemoryConnector
from procrastinate_opentelemetry import OpenTelemetryObserver


class Recording:
    """An SDK in memory; it makes apps that record into it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.metrics = MeterProvider([self._reader])

    def observer(self, **options: Any) -> OpenTelemetryObserver:
        providers = {"tracer_provider": self.traces, "meter_provider": self.metrics}
        return OpenTelemetryObserver(**{**providers, **options})

    def app(self, **options: Any) -> procrastinate.App:
        return procrastinate.App(
            connector=InMemoryConnector(), observers=[self.observer(**options)]
        )

    def spans(self, operation: str = "") -> list[ReadableSpan]:
        """Return the spans that have ended, in this order, of one operation or of all."""
        found = self._exporter.get_finished_spans()
        return [each for each in found if each.name.startswith(operation)]

    def points(self) -> dict[str, list[Any]]:
        """Return the data points of each metric."""
        return {each.name: list(each.data.data_points) for each in self._metrics()}

    def metrics_made(self) -> dict[str, tuple[str, str]]:
        """Return the unit and the description of each metric."""
        return {each.name: (each.unit or "", each.description or "") for each in self._metrics()}

    def _metrics(self) -> list[Metric]:
        data = self._reader.get_metrics_data()
        return [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]


@pytest.fixture
def recording() -> Iterator[Recording]:
    recording = Recording()
    yield recording
    recording.traces.shutdown()
    recording.metrics.shutdown()


@pytest.fixture(params=["coroutine", "function"])
def as_task(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return what makes a task of a function: one on the loop, or one in a thread."""

    def as_task(app: procrastinate.App, body: Callable[[], Any], **options: Any) -> Any:
        async def coroutine() -> Any:
            return body()

        options = {"name": "task", "queue": "mail", **options}
        return app.task(**options)(coroutine if request.param == "coroutine" else lambda: body())

    return as_task
