"""What a type checker knows of observers. Never run, only checked."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, assert_type

import procrastinate
from procrastinate import App, Job, NewJob, Observer, Status
from procrastinate.observing import Deferred, Ended, Raised, Recovered, WorkerStarted


class Mine(Observer):
    def on_deferred(self, event: Deferred) -> None:
        assert_type(event.ids, Sequence[int])
        assert_type(event.jobs[0].meta, dict[str, Any] | None)
        event.ids = []  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]

    def on_ended(self, event: Ended) -> None:
        for attempt in event.attempts:
            assert_type(attempt.job, Job)
            assert_type(attempt.status, Status)
            assert_type(attempt.duration, float | None)
            assert_type(attempt.error, Mapping[str, Any] | None)

    def on_raised(self, event: Raised) -> None:
        assert_type(event.exception, BaseException)

    def on_recovered(self, event: Recovered) -> None:
        assert_type([each.task_name for each in event.jobs], list[str])

    def on_worker_started(self, event: WorkerStarted) -> None:
        assert_type(event.queues, Sequence[str] | None)

    @contextmanager
    def around_defer(self, jobs: Sequence[NewJob]) -> Generator[None]:
        jobs[0].meta = {"a": 1}
        yield

    @contextmanager
    def around_attempt(self, job: Job) -> Generator[None]:
        assert_type(job.meta, dict[str, Any] | None)
        yield


app = App(connector=procrastinate.AiopgConnector(), observers=[Mine(), "prometheus"])
assert_type(app.observers, tuple[Observer, ...])
App(connector=procrastinate.AiopgConnector(), observers=[Mine])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
app.run_worker(log_jobs="all")
app.run_worker(log_jobs="some")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
