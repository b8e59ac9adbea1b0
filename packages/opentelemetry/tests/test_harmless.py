"""Nothing that OpenTelemetry, its plugins or a job's meta do wrong reaches a job."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import procrastinate
from procrastinate import Job, Status
from procrastinate.testing import InMemoryConnector
from procrastinate_opentelemetry import OpenTelemetryObserver

from .conftest import Recording

AsTask = Callable[..., Any]


async def statuses(app: procrastinate.App, as_task: AsTask) -> list[str]:
    """Defer jobs, one of which fails once; return what has become of them."""
    bodies = iter([lambda: None, lambda: 1 / 0, lambda: None, lambda: None])
    task = as_task(app, lambda: next(bodies)(), retry=1)
    async with app.open_async():
        ids = [await task.defer_async(), *await task.batch_defer_async({}, {})]
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        before = trace.get_current_span()
        jobs = [await app.job_manager.get_job_async(each) for each in ids]
    assert before is trace.INVALID_SPAN
    return [each.status.value for each in jobs]


GOOD = ["succeeded"] * 3


class BrokenPropagator(TextMapPropagator):
    @property
    def fields(self) -> set[str]:
        return set()

    def extract(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("extract")

    def inject(self, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("inject")


class Lying(BrokenPropagator):
    """Injects what cannot be stored."""

    def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
        carrier["traceparent"] = object()


@pytest.fixture
def propagator() -> Iterator[Callable[[TextMapPropagator], None]]:
    before = propagate.get_global_textmap()
    yield propagate.set_global_textmap
    propagate.set_global_textmap(before)


@pytest.mark.parametrize("broken", [BrokenPropagator(), Lying()])
async def test_a_broken_propagator(
    broken: TextMapPropagator,
    propagator: Callable[[TextMapPropagator], None],
    recording: Recording,
    as_task: AsTask,
    caplog: pytest.LogCaptureFixture,
) -> None:
    propagator(broken)
    assert await statuses(recording.app(), as_task) == GOOD
    assert len(recording.spans("defer")) == 2
    assert len(recording.spans("process")) == 4
    told = [each for each in caplog.records if each.name == "procrastinate.observers"]
    assert told
    assert len(told) <= 2


class BrokenExporter(SpanExporter):
    def export(self, spans: Any) -> Any:
        raise ZeroDivisionError("export")


class BrokenProcessor(SpanProcessor):
    def __init__(self, *methods: str) -> None:
        for name in methods:
            setattr(self, name, self._fail)

    def _fail(self, *args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("processor")


@pytest.mark.parametrize(
    "processor",
    [
        SimpleSpanProcessor(BrokenExporter()),
        BrokenProcessor("on_start"),
        BrokenProcessor("on_end"),
    ],
)
async def test_broken_exporters_and_processors(
    processor: SpanProcessor, as_task: AsTask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    provider = TracerProvider()
    provider.add_span_processor(processor)
    app = procrastinate.App(
        connector=InMemoryConnector(),
        observers=[OpenTelemetryObserver(tracer_provider=provider)],
    )
    assert await statuses(app, as_task) == GOOD


async def test_a_broken_meter(
    recording: Recording, as_task: AsTask, caplog: pytest.LogCaptureFixture
) -> None:
    observer = recording.observer()
    for name in ("sent", "consumed", "operation_duration", "process_duration"):
        setattr(observer._instruments, name, None)
    app = procrastinate.App(connector=InMemoryConnector(), observers=[observer])
    assert await statuses(app, as_task) == GOOD
    assert len(recording.spans("defer")) == 2
    assert len(recording.spans("process")) == 4
    assert "procrastinate.observers" in {each.name for each in caplog.records}


@pytest.mark.parametrize(
    "meta",
    [
        {"traceparent": 5, "baggage": ["x"], "tracestate": None},
        {"traceparent": "", "baggage": "=;,=,%%%", "tracestate": "=,="},
        {"traceparent": "00-zz-zz-zz"},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-00"},
        {"traceparent": "x" * 10_000, "baggage": "k=" + "v" * 10_000},
        {"\x00": "\ud800"},
        {},
        None,
    ],
)
def test_whatever_a_job_carries_its_attempt_has_a_span(
    meta: dict[str, Any] | None, recording: Recording
) -> None:
    job = Job(1, Status.DOING, "mail", "task", {}, meta=meta)
    with recording.observer().around_attempt(job):
        pass
    (span,) = recording.spans()
    assert (span.name, span.links) == ("process mail", ())


async def test_without_an_sdk_nothing_is_made(as_task: AsTask) -> None:
    app = procrastinate.App(connector=InMemoryConnector(), observers=["opentelemetry"])
    assert isinstance(app.observers[0], OpenTelemetryObserver)
    assert await statuses(app, as_task) == GOOD
    assert {job.meta for job in app.connector.jobs} == {None}  # type: ignore[attr-defined]


async def test_what_is_not_sampled_is_not_exported_but_carried(
    recording: Recording, as_task: AsTask
) -> None:
    recording.traces.sampler = ALWAYS_OFF
    app = recording.app()
    assert await statuses(app, as_task) == GOOD
    assert recording.spans() == []
    carried = {job.meta["traceparent"][-2:] for job in app.connector.jobs}  # type: ignore[attr-defined]
    assert carried <= {"00", "02"}


async def test_an_sdk_that_measures_only(recording: Recording, as_task: AsTask) -> None:
    observer = OpenTelemetryObserver(meter_provider=recording.metrics)
    app = procrastinate.App(connector=InMemoryConnector(), observers=[observer])
    assert await statuses(app, as_task) == GOOD
    points = recording.points()
    assert sum(each.value for each in points["messaging.client.consumed.messages"]) == 4
    assert sum(each.count for each in points["messaging.process.duration"]) == 4
    assert sum(each.value for each in points["messaging.client.sent.messages"]) == 3
