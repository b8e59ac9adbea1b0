"""What a type checker knows under the paths and names of releases up to 3.x. Never run."""

from __future__ import annotations

from typing import Any, assert_type

import procrastinate
from procrastinate.app import App
from procrastinate.app.task import Task as PresentTask
from procrastinate.blueprints import Blueprint
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.job_context import AbortReason, JobContext
from procrastinate.jobs import DEFAULT_QUEUE, Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision, RetryStrategy
from procrastinate.tasks import Task
from procrastinate.types import JSONDict
from procrastinate.worker import Worker

app = App(connector=procrastinate.PsycopgConnector()).open()


def the_classes_are_the_same() -> None:
    assert_type(app, procrastinate.App)
    assert_type(ConnectorException(), procrastinate.ConnectorException)
    assert_type(AlreadyEnqueued(), procrastinate.AlreadyEnqueued)
    assert_type(Blueprint(), procrastinate.Blueprint)
    assert_type(RetryStrategy(), procrastinate.RetryStrategy)
    assert_type(app.job_manager, JobManager)


def a_name_that_is_gone_is_an_error() -> None:
    from procrastinate.exceptions import NoResult  # type: ignore[attr-defined] # pyright: ignore # noqa: F401

    app.job_manager.fetch_job()  # type: ignore[attr-defined] # pyright: ignore
    app.periodic_registry  # type: ignore[attr-defined] # pyright: ignore # noqa: B018


class Patient(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        return None if job.attempts > 3 else RetryDecision(retry_in={"seconds": 5})


def arguments_keep_their_types(task: Task[..., ..., int], worker: Worker) -> None:
    assert_type(app.configure_task(name="add", queue=DEFAULT_QUEUE).defer(a=1), int)
    assert_type(app.tasks.get("add"), PresentTask[..., ..., Any] | None)
    assert_type(app.job_manager.get_job_status(5), Status)
    assert_type(app.job_manager.get_stalled_jobs(queue="sums"), list[Job])
    assert_type(task.queue, str)
    assert_type(worker.name, str)


async def pairs_stay_pairs(context: JobContext, arguments: JSONDict) -> None:
    assert_type(await app.job_manager.get_job_status_async(5), Status)
    assert_type(context.abort_reason(), AbortReason | None)
    app.job_manager.get_job_status(id="5")  # type: ignore[arg-type] # pyright: ignore
