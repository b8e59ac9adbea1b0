"""The spans of one defer: from before the insertion until after it.

Rules

1. What `Defer.__enter__` does is undone by `Defer.__exit__` only if the first has returned. So it
   attaches its context last, and a propagator that raises is reported at the end.
2. The ids are told while the block lasts, together with the jobs, which are the same object as at
   its beginning. So `Defer` is found by the identity of that object, in ``going_on``.
3. A batch is one span, whose context all of its jobs carry. With a span per job, each job carries
   that of its own "create" span, and the span of the insertion links to them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import Token
from types import TracebackType

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from procrastinate import AlreadyEnqueued, NewJob
from procrastinate_opentelemetry import carrying, conventions
from procrastinate_opentelemetry.instruments import Instruments


class Defer:
    """The insertion of jobs, as a block. Without a ``tracer`` it is measured only."""

    def __init__(
        self,
        jobs: Sequence[NewJob],
        instruments: Instruments,
        tracer: Tracer | None,
        going_on: dict[int, Defer],
        *,
        span_per_job: bool,
    ) -> None:
        self._jobs = jobs
        self._going_on = going_on
        self._instruments = instruments
        self._tracer = tracer
        self._span_per_job = span_per_job and len(jobs) > 1
        self._creates: list[Span] = []
        self._span: Span | None = None
        self._token: Token[contexts.Context] | None = None
        self._broken: BaseException | None = None

    def __enter__(self) -> None:
        if self._tracer is not None:
            self._begin(self._tracer)
        self._going_on[id(self._jobs)] = self
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._began
        self._going_on.pop(id(self._jobs), None)
        try:
            self._measure(seconds, raised)
        finally:
            if self._token is not None:
                contexts.detach(self._token)
            self._end(raised)
        if self._broken is not None:
            raise self._broken  # rule 1

    def inserted(self, ids: Sequence[int]) -> None:
        """Say on the spans which jobs they have become."""
        spans = self._creates
        if self._span is not None and len(self._jobs) == 1:
            spans = [self._span]
        for span, job_id in zip(spans, ids, strict=False):
            span.set_attribute(conventions.MESSAGE_ID, str(job_id))

    # Spans

    def _begin(self, tracer: Tracer) -> None:
        if self._span_per_job:
            self._creates = [_create_span(tracer, job) for job in self._jobs]
        self._span = span = _send_span(tracer, self._jobs, self._creates)
        context = trace.set_span_in_context(span)
        try:
            self._give(context)
        except Exception as broken:  # of the propagator's
            self._broken = broken
        self._token = contexts.attach(context)

    def _give(self, context: contexts.Context) -> None:
        if self._creates:
            for job, span in zip(self._jobs, self._creates, strict=True):
                carrying.give(job, carrying.carrier_of(trace.set_span_in_context(span, context)))
            return
        carrier = carrying.carrier_of(context)
        for job in self._jobs:
            carrying.give(job, carrier)

    def _end(self, raised: BaseException | None) -> None:
        if self._span is None:
            return
        if isinstance(raised, AlreadyEnqueued):
            self._span.set_attribute(conventions.ALREADY_ENQUEUED, True)
        elif raised is not None:
            _fail(self._span, raised)
        for span in self._creates:
            span.end()
        self._span.end()

    # Metrics

    def _measure(self, seconds: float, raised: BaseException | None) -> None:
        first = self._jobs[0]
        common = conventions.metric_attributes("defer", first.queue, first.task_name)
        if raised is not None and not isinstance(raised, AlreadyEnqueued):
            common = {**common, conventions.ERROR_TYPE: conventions.error_type(raised)}
        operation = {**common, conventions.OPERATION_TYPE: conventions.TYPES["defer"]}
        self._instruments.operation_duration.record(seconds, operation)
        if not isinstance(raised, AlreadyEnqueued):
            self._instruments.sent.add(len(self._jobs), common)


def count(jobs: Sequence[NewJob], instruments: Instruments) -> None:
    """Count jobs that were inserted without a `Defer`: those of periodic tasks."""
    for job in jobs:
        about = conventions.metric_attributes("defer", job.queue, job.task_name)
        instruments.sent.add(1, about)


def _create_span(tracer: Tracer, job: NewJob) -> Span:
    return tracer.start_span(
        f"create {job.queue}",
        kind=SpanKind.PRODUCER,
        attributes=conventions.span_attributes("create", job.queue, job.task_name),
    )


def _send_span(tracer: Tracer, jobs: Sequence[NewJob], creates: Sequence[Span]) -> Span:
    first = jobs[0]  # all jobs of a batch are of one task, for one queue
    attributes = conventions.span_attributes("defer", first.queue, first.task_name)
    if len(jobs) > 1:
        attributes = {**attributes, conventions.MESSAGE_COUNT: len(jobs)}
    return tracer.start_span(
        f"defer {first.queue}",
        kind=SpanKind.CLIENT if creates else SpanKind.PRODUCER,
        attributes=attributes,
        links=[Link(span.get_span_context()) for span in creates],
    )


def _fail(span: Span, raised: BaseException) -> None:
    span.set_attribute(conventions.ERROR_TYPE, conventions.error_type(raised))
    span.record_exception(raised)
    span.set_status(Status(StatusCode.ERROR, str(raised)))
