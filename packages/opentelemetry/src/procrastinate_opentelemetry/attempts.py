"""The span of one attempt at a job: from taking a slot until its task's code has ended.

Rules

1. What `Attempt.__enter__` does is undone by `Attempt.__exit__` only if the first has returned. So
   it attaches its context last, and a propagator or a meter that raises is reported at the end.
2. What a task raises does not say what becomes of its job. An attempt that raised is `Undecided`
   until the worker says so. Then its span ends, with the time at which the code ended.
3. The context that the worker runs in is no parent, because it lasts as long as the worker. If it
   has a span, that is a link.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, TypeAlias

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace import Status as SpanStatus

from procrastinate import Job, Status
from procrastinate_opentelemetry import carrying, conventions
from procrastinate_opentelemetry.instruments import Instruments

_Error: TypeAlias = Mapping[str, Any]

#: For each part of an entry in `Job.errors`, the attribute of the event ``exception``.
_ABOUT_EXCEPTION = {
    "type": "exception.type",
    "message": "exception.message",
    "traceback": "exception.stacktrace",
}


class Undecided:
    """Attempts that raised, and whose jobs' fate is not known yet."""

    def __init__(self) -> None:
        self._by_id: dict[int, Attempt] = {}

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def add(self, job_id: int, attempt: Attempt) -> None:
        """Wait for the fate of an attempt's job."""
        before = self._by_id.pop(job_id, None)  # of an attempt that its worker gave up
        self._by_id[job_id] = attempt
        if before is not None:
            before.finish(None, None)

    def decided(self, job_id: int, status: Status | None, error: _Error | None) -> None:
        """Finish the attempt at a job, if it raised and is not finished."""
        attempt = self._by_id.pop(job_id, None)
        if attempt is not None:
            attempt.finish(status, error)

    def give_up(self, worker_id: int) -> None:
        """Finish a worker's attempts, because no event will say what became of their jobs."""
        for job_id, attempt in list(self._by_id.items()):
            if attempt.job.worker == worker_id:
                self.decided(job_id, None, None)


class Attempt:
    """An attempt's code, as a block. Without a ``tracer`` it is measured only."""

    def __init__(
        self,
        job: Job,
        instruments: Instruments,
        tracer: Tracer | None,
        undecided: Undecided,
        *,
        parent: bool,
    ) -> None:
        self.job = job
        self._instruments = instruments
        self._tracer = tracer
        self._undecided = undecided
        self._parent = parent
        self._span: Span | None = None
        self._token: Token[contexts.Context] | None = None
        self._broken: BaseException | None = None

    def __enter__(self) -> None:
        if self._tracer is not None:
            self._begin(self._tracer)
        try:
            self._instruments.consumed.add(1, self._about())
        except Exception as broken:  # of the meter's
            self._broken = broken
        self._began = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seconds = time.perf_counter() - self._began
        try:
            if raised is None:  # before the context is left: examples of a metric name its trace
                self._instruments.process_duration.record(self._seconds, self._about())
        finally:
            if self._token is not None:
                contexts.detach(self._token)
            self._ended = time.time_ns()
            if raised is not None:
                self._undecided.add(self.job.id, self)
            elif self._span is not None:
                self._span.end(self._ended)
        if self._broken is not None:
            raise self._broken  # rule 1

    def finish(self, status: Status | None, error: _Error | None) -> None:
        """End the span of an attempt that raised, with what its job becomes, if that is known.

        ``error`` is the entry of `Job.errors`, if there is one.
        """
        failed = status is not Status.ABORTED and (error is not None or status is Status.FAILED)
        error_type = _error_type(error) if failed else None
        about = self._about()
        if error_type is not None:
            about = {**about, conventions.ERROR_TYPE: error_type}
        try:
            self._instruments.process_duration.record(self._seconds, about)
        finally:
            if self._span is not None:
                self._end(self._span, status, error_type, error or {})

    def _about(self) -> conventions.Attributes:
        return conventions.metric_attributes("process", self.job.queue, self.job.task_name)

    def _begin(self, tracer: Tracer) -> None:
        try:
            carried = carrying.carried(self.job.meta)
        except Exception as broken:  # of the propagator's
            self._broken, carried = broken, contexts.Context()
        before = carried if self._parent else trace.set_span_in_context(INVALID_SPAN, carried)
        found = (trace.get_current_span(each).get_span_context() for each in (carried, None))
        self._span = tracer.start_span(
            f"process {self.job.queue}",
            context=before,
            kind=SpanKind.CONSUMER,
            attributes=_attributes(self.job),
            links=[Link(each) for each in found if each.is_valid],
        )
        self._token = contexts.attach(trace.set_span_in_context(self._span, carried))

    def _end(
        self, span: Span, status: Status | None, error_type: str | None, error: _Error
    ) -> None:
        if status is not None:
            span.set_attribute(conventions.STATUS, status.value)
        if error_type is not None:
            span.set_attribute(conventions.ERROR_TYPE, error_type)
            about = {
                _ABOUT_EXCEPTION[name]: error[name] for name in _ABOUT_EXCEPTION if name in error
            }
            span.add_event("exception", about, timestamp=self._ended)
            span.set_status(SpanStatus(StatusCode.ERROR, error.get("message")))
        span.end(self._ended)


def _attributes(job: Job) -> conventions.Attributes:
    about = {
        **conventions.span_attributes("process", job.queue, job.task_name),
        conventions.MESSAGE_ID: str(job.id),
        conventions.ATTEMPT: job.attempts,
    }
    if job.worker is not None:
        about[conventions.CLIENT_ID] = str(job.worker)
    return about


def _error_type(error: _Error | None) -> str:
    return (error or {}).get("type") or conventions.OTHER
