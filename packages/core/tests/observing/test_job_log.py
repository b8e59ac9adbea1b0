"""What is logged about jobs, one by one and summed up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest

import procrastinate
from procrastinate import Job, Status
from procrastinate.model.endings.outcome import SUCCEEDED, Finished
from procrastinate.model.text.failure import describe
from procrastinate.observing.events import Ended, Raised
from procrastinate.observing.job_log import JobLog
from procrastinate.storage import finish
from procrastinate.testing import InMemoryConnector

STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> JobLog:
    caplog.set_level(logging.DEBUG, "procrastinate.jobs")
    return JobLog("w", 7, clock=clock)


def job_of(task_name: str = "task", job_id: int = 1, **about: Any) -> Job:
    return Job(job_id, Status.DOING, "q", task_name, {"n": 1}, attempts=1, worker=7, **about)


def raised(exception: Exception, status: Status, task_name: str = "task") -> Raised:
    from datetime import UTC, datetime

    error = describe(exception, attempt=1, now=datetime(2026, 1, 1, tzinfo=UTC))
    return Raised("w", 7, job_of(task_name), exception, status, 0.25, error)


def ended(count: int, task_name: str = "task") -> Ended:
    jobs = [job_of(task_name, n) for n in range(1, count + 1)]
    return Ended("w", 7, [finish.Ended(job, SUCCEEDED, 1.0, 1.5) for job in jobs])


def extra(record: logging.LogRecord) -> Mapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def test_a_success_has_all_the_fields(log: JobLog, caplog: pytest.LogCaptureFixture) -> None:
    log.on_ended(ended(1))
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("INFO", "procrastinate.jobs")
    assert record.getMessage() == "task[1](n=1) succeeded in 0.500 s"
    assert extra(record) == {
        "action": "job_ended",
        "job_id": 1,
        "task_name": "task",
        "queue": "q",
        "attempt": 1,
        "status": "succeeded",
        "duration": 0.5,
        "worker_name": "w",
        "worker_id": 7,
    }


@pytest.mark.parametrize(
    ("status", "level", "message"),
    [
        (Status.TODO, "WARNING", "task[1](n=1) failed, and will be tried again: ValueError: no"),
        (Status.FAILED, "ERROR", "task[1](n=1) failed: ValueError: no"),
    ],
)
def test_a_failure_has_its_exception_and_traceback(
    log: JobLog, caplog: pytest.LogCaptureFixture, status: Status, level: str, message: str
) -> None:
    exception = ValueError("no")
    log.on_raised(raised(exception, status))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, message)
    assert record.exc_info is not None
    assert record.exc_info[1] is exception
    assert record.exc_text is not None
    assert record.exc_text.strip() == "ValueError: no"
    assert extra(record).items() >= {"status": status.value, "duration": 0.25, "job_id": 1}.items()


def test_an_abortion_has_no_traceback(log: JobLog, caplog: pytest.LogCaptureFixture) -> None:
    log.on_raised(raised(procrastinate.JobAborted("enough"), Status.ABORTED))
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("INFO", None)


def test_texts_of_jobs_cannot_forge_lines(log: JobLog, caplog: pytest.LogCaptureFixture) -> None:
    """No line break and no escape sequence of a name or a message reaches the log as it is."""
    name, text = "task\n2026-01-01 ERROR x", "\x1b[2J\r\u2028no"
    log.on_raised(raised(ValueError(text), Status.FAILED, task_name=name))
    log.on_ended(ended(200, task_name=name))
    log.sum_up(0.0, at_once=True)
    assert len(caplog.records) == 102
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_successes_above_a_hundred_in_a_second_are_summed_up(
    log: JobLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log.on_ended(ended(99))
    log.on_ended(ended(3))
    log.on_ended(ended(1_000, "other"))
    assert len(caplog.records) == 100
    clock.now += 1.0
    log.on_ended(ended(1))
    *_, first, second, single = caplog.records
    assert first.getMessage() == "2 more jobs of task succeeded within 1.0 s"
    assert second.getMessage() == "1,000 more jobs of other succeeded within 1.0 s"
    assert extra(second) == {
        "action": "job_ended",
        "task_name": "other",
        "status": "succeeded",
        "count": 1_000,
        "worker_name": "w",
        "worker_id": 7,
    }
    assert single.getMessage().startswith("task[1]")


def test_equal_failures_are_summed_up_from_the_twentieth_in_a_second(
    log: JobLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(25):
        log.on_raised(raised(ValueError("no"), Status.TODO))
    log.on_raised(raised(KeyError("no"), Status.TODO))
    log.on_raised(raised(ValueError("no"), Status.FAILED))
    assert len(caplog.records) == 19 + 1 + 1
    clock.now += 2.0
    log.sum_up(clock.now)
    record = caplog.records[-1]
    assert record.levelname == "WARNING"
    assert (
        record.getMessage()
        == "6 more jobs of task failed, and will be tried again within 2.0 s: ValueError"
    )
    assert extra(record).items() >= {"count": 6, "status": "todo", "task_name": "task"}.items()


@pytest.mark.parametrize(
    ("status", "of_one", "of_several"),
    [
        (Status.ABORTED, "was aborted", "were aborted"),
        (Status.FAILED, "failed", "failed"),
        (
            Status.TODO,
            "failed, and will be tried again",
            "failed, and will be tried again",
        ),
    ],
)
def test_a_sum_is_a_sentence_for_one_job_and_for_several(
    log: JobLog,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    status: Status,
    of_one: str,
    of_several: str,
) -> None:
    for count in (20, 21):
        for _ in range(count):
            log.on_raised(raised(ValueError("no"), status))
        clock.now += 1.0
        log.sum_up(clock.now)
    sums = [each.getMessage() for each in caplog.records if "more job" in each.getMessage()]
    assert sums == [
        f"1 more job of task {of_one} within 1.0 s: ValueError",
        f"2 more jobs of task {of_several} within 1.0 s: ValueError",
    ]


@pytest.mark.parametrize("status", [Status.TODO, Status.FAILED, Status.ABORTED])
@pytest.mark.parametrize("exception", [ValueError(), ValueError(""), ValueError(" ")])
def test_an_exception_without_a_message_is_told_by_its_type_alone(
    log: JobLog, caplog: pytest.LogCaptureFixture, status: Status, exception: Exception
) -> None:
    log.on_raised(raised(exception, status))
    (record,) = caplog.records
    assert record.getMessage().endswith(": ValueError")


def without_result(count: int, task_name: str = "task") -> Ended:
    jobs = [job_of(task_name, n) for n in range(1, count + 1)]
    outcome = Finished(Status.SUCCEEDED, result_error="a set\nis not JSON")
    return Ended("w", 7, [finish.Ended(job, outcome, 1.0, 1.5, kept=True) for job in jobs])


def test_a_success_without_its_result_is_a_warning_with_all_the_fields(
    log: JobLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.on_ended(without_result(1))
    success, warning = caplog.records
    assert success.levelname == "INFO"
    assert (warning.levelname, warning.name) == ("WARNING", "procrastinate.jobs")
    assert warning.getMessage() == r"task[1](n=1) has succeeded, but a set\nis not JSON"
    assert extra(warning) == {
        "action": "result_not_kept",
        "job_id": 1,
        "task_name": "task",
        "queue": "q",
        "attempt": 1,
        "status": "succeeded",
        "worker_name": "w",
        "worker_id": 7,
    }


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_results_that_are_not_kept_are_summed_up_for_each_task(
    log: JobLog, clock: Clock, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, "procrastinate.jobs")
    log.on_ended(without_result(1_000))
    log.on_ended(without_result(20, "other"))
    clock.now += 1.0
    log.sum_up(clock.now)
    records = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(records) == 19 + 19 + 2
    assert [each.getMessage() for each in records[-2:]] == [
        "981 more jobs of task succeeded without a result within 1.0 s",
        "1 more job of other succeeded without a result within 1.0 s",
    ]
    assert extra(records[-2]) == {
        "action": "result_not_kept",
        "task_name": "task",
        "status": "succeeded",
        "count": 981,
        "worker_name": "w",
        "worker_id": 7,
    }


def test_all_are_said_one_by_one_if_that_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "procrastinate.jobs")
    log = JobLog("w", 7, sampled=False)
    log.on_ended(ended(150))
    for _ in range(25):
        log.on_raised(raised(ValueError("no"), Status.FAILED))
    assert len(caplog.records) == 175
    log.on_ended(without_result(150))
    assert len(caplog.records) == 175 + 2 * 150


def app_in_memory() -> tuple[procrastinate.App, Any]:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="task", queue="q")
    async def task(n: int) -> None:
        if n < 0:
            raise ValueError(n)

    return app, task


def records_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (each.levelname, each.getMessage())
        for each in caplog.records
        if each.name == "procrastinate.jobs" and "succeeded" not in each.getMessage()
    ]


def test_a_defer_is_one_record_at_debug_and_so_is_a_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "procrastinate.jobs")
    app, task = app_in_memory()
    with app.open():
        task.defer(n=1)
        task.configure(queue="r").batch_defer(*({"n": n} for n in range(1_000)))
        task.batch_defer()
    assert records_of(caplog) == [
        ("DEBUG", "deferred task[1]"),
        ("DEBUG", "deferred 1,000 jobs of task"),
    ]
    assert [extra(each) for each in caplog.records] == [
        {"action": "job_deferred", "job_id": 1, "task_name": "task", "queue": "q"},
        {"action": "job_deferred", "count": 1_000, "task_name": "task", "queue": "r"},
    ]


@pytest.mark.parametrize(
    ("log_jobs", "expected"),
    [
        (
            "sampled",
            [
                ("DEBUG", "task[1](n=-1) starts, attempt 1"),
                ("ERROR", "task[1](n=-1) failed: ValueError: -1"),
            ],
        ),
        ("none", []),
    ],
)
async def test_a_worker_logs_what_it_is_told_to(
    caplog: pytest.LogCaptureFixture, log_jobs: Any, expected: list[tuple[str, str]]
) -> None:
    app, task = app_in_memory()
    async with app.open_async():
        await task.defer_async(n=-1)
        caplog.set_level(logging.DEBUG, "procrastinate.jobs")
        await app.run_worker_async(wait=False, log_jobs=log_jobs)
    assert records_of(caplog) == expected


async def test_a_worker_sums_up_at_its_end_what_it_has_not_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "procrastinate.jobs")
    app, task = app_in_memory()
    async with app.open_async():
        await task.batch_defer_async(*({"n": n} for n in range(500)))
        await app.run_worker_async(wait=False, concurrency=50)
    about = [extra(each) for each in caplog.records]
    assert sum(each.get("count", 1) for each in about) == 500
