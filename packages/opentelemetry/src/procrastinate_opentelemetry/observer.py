"""`OpenTelemetryObserver`: what an app is given to be traced and measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from procrastinate import Job, NewJob, Observer
from procrastinate.observing import (
    Attempted,
    Deferred,
    Ended,
    LeaseLost,
    Raised,
    Requeued,
    WorkerStarted,
    WorkerStopped,
)
from procrastinate_opentelemetry import conventions
from procrastinate_opentelemetry.attempts import Attempt, Undecided
from procrastinate_opentelemetry.defers import Defer, count
from procrastinate_opentelemetry.instruments import Instruments

_SCOPE = "procrastinate_opentelemetry"
_NOTHING = nullcontext()


class OpenTelemetryObserver(Observer):
    """Makes spans and metrics of jobs; give it to ``App(observers=[...])``.

    A span ``defer QUEUE`` covers each insertion, a span ``process QUEUE`` each attempt. The trace's
    context travels with the job, in ``Job.meta``. The span of an attempt begins a trace of its own
    and links to the span that deferred the job. With ``parent`` it is also a child of that span, so
    both are one trace, which lasts until the job's last attempt.

    A batch is one span. With ``span_per_job`` each of its jobs also has a span ``create QUEUE``,
    to which its attempts link.

    ``tracer_provider`` and ``meter_provider`` replace the global ones. As long as there is no SDK,
    nothing is recorded.
    """

    def __init__(
        self,
        *,
        parent: bool = False,
        span_per_job: bool = False,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        scope = (_SCOPE, metadata.version("procrastinate-opentelemetry"))
        self._tracer = trace.get_tracer(*scope, tracer_provider, conventions.SCHEMA_URL)
        self._instruments = Instruments(
            metrics.get_meter(*scope, meter_provider, conventions.SCHEMA_URL)
        )
        self._traces = tracer_provider is not None
        self._measures = meter_provider is not None
        self._parent = parent
        self._span_per_job = span_per_job
        self._defers: dict[int, Defer] = {}
        self._undecided = Undecided()

    def around_defer(self, jobs: Sequence[NewJob]) -> AbstractContextManager[object]:
        """Return a block with the span of an insertion, whose context the jobs carry."""
        if not jobs or not self._is_used():
            return _NOTHING
        return Defer(
            *(jobs, self._instruments, self._tracer if self._traces else None, self._defers),
            span_per_job=self._span_per_job,
        )

    def on_deferred(self, event: Deferred) -> None:
        """Say on the span which jobs were inserted."""
        defer = self._defers.get(id(event.jobs))
        if defer is not None:
            defer.inserted(event.ids)
        elif self._measures:  # jobs of periodic tasks
            count(event.jobs, self._instruments)

    def around_attempt(self, job: Job) -> AbstractContextManager[object]:
        """Return a block with the span of an attempt."""
        if not self._is_used():
            return _NOTHING
        tracer = self._tracer if self._traces else None
        return Attempt(job, self._instruments, tracer, self._undecided, parent=self._parent)

    def on_raised(self, event: Raised) -> None:
        """End the span of an attempt that raised."""
        self._undecided.decided(event.job.id, event.status, event.error)

    def on_ended(self, event: Ended) -> None:
        """End spans of attempts of which nothing else was told."""
        self._decided(event.attempts)

    def on_requeued(self, event: Requeued) -> None:
        """End spans of attempts that were interrupted."""
        self._decided(event.attempts)

    def on_lease_lost(self, event: LeaseLost) -> None:
        """End spans of attempts that were taken from this worker."""
        for job in event.jobs:
            self._undecided.decided(job.id, None, None)

    def on_worker_started(self, event: WorkerStarted) -> None:
        """Look whether there is an SDK, for jobs of periodic tasks may come first."""
        self._is_used()

    def on_worker_stopped(self, event: WorkerStopped) -> None:
        """End spans that the worker has left."""
        self._undecided.give_up(event.worker_id)

    def _decided(self, attempts: Sequence[Attempted]) -> None:
        if self._undecided:
            for each in attempts:
                self._undecided.decided(each.job.id, each.status, each.error)

    def _is_used(self) -> bool:
        """Whether there is an SDK by now."""
        if not self._traces:
            self._traces = _is_of_sdk(trace.get_tracer_provider())
        if not self._measures:
            self._measures = _is_of_sdk(metrics.get_meter_provider())
        return self._traces or self._measures


def _is_of_sdk(provider: object) -> bool:
    """Whether a provider may record anything: those of the API itself stand for a missing SDK."""
    return not type(provider).__module__.startswith(
        ("opentelemetry.trace", "opentelemetry.metrics")
    )
