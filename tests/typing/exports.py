"""What a type checker knows of the names in `procrastinate`. Never run, only checked."""

from __future__ import annotations

from typing import assert_type

import procrastinate
from procrastinate_psycopg import PsycopgConnector


def names_that_are_imported_when_they_are_asked_for(
    page: procrastinate.JobPage,
    worker: procrastinate.WorkerInfo,
    schedule: procrastinate.ScheduleInfo,
    throughput: procrastinate.Throughput,
    context: procrastinate.JobContext,
) -> None:
    assert_type(page.jobs[0], procrastinate.Job)
    assert_type(worker.name, str)
    assert_type(schedule.task_name, str)
    assert_type(throughput.succeeded, int)
    assert_type(context.job, procrastinate.Job)
    assert_type(context.abort_reason(), procrastinate.AbortReason | None)
    assert_type(procrastinate.__version__, str)


def the_connectors_of_this_project() -> None:
    assert_type(procrastinate.PsycopgConnector, type[PsycopgConnector])


def a_name_that_is_not_there() -> object:
    return procrastinate.TaskNotFoud  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
