"""Django's tasks on our backend: the same on Django's own API and on its backport."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from django.apps import apps
from django.test import override_settings

import procrastinate_django
from procrastinate import InvalidArguments, InvalidOption
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate_django import app, declared, djangos

from . import some_tasks

if djangos.Task.__module__.startswith("django."):
    from django.tasks import task_backends
    from django.tasks.exceptions import InvalidTaskBackend
else:
    from django_tasks import task_backends
    from django_tasks.exceptions import InvalidTaskBackendError as InvalidTaskBackend

READY, SUCCESSFUL, FAILED = (
    getattr(djangos.Status, name) for name in ("READY", "SUCCESSFUL", "FAILED")
)


@pytest.fixture(autouse=True)
def memory() -> Iterator[InMemoryConnector]:
    connector = InMemoryConnector()
    with app.replace_connector(connector):
        yield connector


@pytest.fixture
def signals() -> Iterator[list[Any]]:
    """What is sent: the name of each signal with the status and the attempts of the result."""
    sent: list[Any] = []
    receivers = []
    for name in ("task_enqueued", "task_started", "task_finished"):

        def receive(name: str = name, *, task_result: Any, **_: Any) -> None:
            sent.append((name, task_result.status, task_result.attempts))

        signal = getattr(djangos, name)
        receivers.append((signal, lambda receive=receive, **given: receive(**_without(given))))
        signal.connect(receivers[-1][1])
    yield sent
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def _without(given: dict[str, Any]) -> dict[str, Any]:
    return {"task_result": given["task_result"]}


def run() -> None:
    run_jobs(app, raise_errors=False)


@pytest.mark.parametrize("task", [some_tasks.add, some_tasks.add_later])
def test_a_task_is_enqueued_run_and_has_a_result(task: Any) -> None:
    result = task.enqueue(2, b=3)
    assert (result.status, result.task, result.args, result.kwargs) == (READY, task, [2], {"b": 3})
    assert task.get_result(result.id) == result
    run()
    result.refresh()
    assert (result.status, result.return_value) == (SUCCESSFUL, 5)
    assert (result.attempts, result.errors, result.is_finished) == (1, [], True)
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at


def test_coroutines_enqueue_and_read() -> None:
    async def enqueue() -> Any:
        result = await some_tasks.add.aenqueue(1)
        assert await some_tasks.add.aget_result(result.id) == result
        return result

    result = asyncio.run(enqueue())
    run()
    result.refresh()
    assert result.return_value == 2


def test_a_job_is_what_the_task_says(memory: InMemoryConnector) -> None:
    at = datetime(2040, 1, 1, tzinfo=UTC)
    result = some_tasks.attempt.using(run_after=at, priority=-7).enqueue()
    (job,) = memory.jobs
    assert job.task_name == f"{some_tasks.__name__}.attempt"
    assert (job.queue, job.priority, job.scheduled_at) == ("mail", -7, at)
    read = some_tasks.attempt.get_result(result.id)
    assert (read.task.run_after, read.task.priority, read.task.queue_name) == (at, -7, "mail")
    assert read == result


@override_settings(USE_TZ=False)  # (Not TIME_ZONE: Django leaves that in the process's TZ.)
def test_a_naive_time_is_of_the_projects_zone_without_use_tz(memory: InMemoryConnector) -> None:
    at = datetime(2040, 7, 1, 12)
    result = some_tasks.add.using(run_after=at).enqueue(1)
    assert memory.jobs[0].scheduled_at == datetime(2040, 7, 1, 10, tzinfo=UTC)
    assert some_tasks.add.get_result(result.id).task.run_after == at


def test_a_naive_time_is_refused_with_use_tz() -> None:
    with pytest.raises(djangos.InvalidTask, match="aware"):
        some_tasks.add.using(run_after=datetime(2040, 1, 1))


def test_the_context_says_which_attempt_it_is() -> None:
    result = some_tasks.attempt.enqueue()
    run()
    result.refresh()
    assert result.return_value == [1, result.id, "RUNNING"]


def test_a_failure_keeps_its_class_and_its_traceback() -> None:
    result = some_tasks.fail.enqueue("not found")
    run()
    result.refresh()
    (error,) = result.errors
    assert (result.status, error.exception_class) == (FAILED, LookupError)
    assert error.traceback.endswith("LookupError: not found\n")
    with pytest.raises(ValueError, match="failed"):
        result.return_value  # noqa: B018


def test_a_result_that_is_no_json_is_a_failure() -> None:
    result = some_tasks.no_json.enqueue()
    run()
    result.refresh()
    assert (result.status, result.errors[0].exception_class) == (FAILED, TypeError)


def test_a_result_is_what_json_makes_of_it() -> None:
    result = some_tasks.to_pair.enqueue()
    run()
    result.refresh()
    assert result.return_value == [1, "two"]


def test_signals_say_what_happens(signals: list[Any]) -> None:
    some_tasks.add.enqueue(1)
    run()
    assert signals == [
        ("task_enqueued", READY, 0),
        ("task_started", djangos.Status.RUNNING, 1),
        ("task_finished", SUCCESSFUL, 1),
    ]


def test_a_job_that_is_tried_again_has_not_finished(
    signals: list[Any], memory: InMemoryConnector
) -> None:
    some_tasks.SEEN.clear()
    result = some_tasks.fail_once.enqueue("again")
    assert memory.jobs[0].lock == "one"
    run()
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, "again", 2)
    assert [each.exception_class for each in result.errors] == [LookupError]
    assert len(result.worker_ids) == 2
    assert result.enqueued_at < result.started_at < result.last_attempted_at < result.finished_at
    assert [(name, attempts) for name, _, attempts in signals] == [
        *(("task_enqueued", 0), ("task_started", 1), ("task_started", 2), ("task_finished", 2)),
    ]


def test_a_receiver_that_raises_changes_nothing() -> None:
    def receive(**_: Any) -> None:
        raise RuntimeError("the receiver")

    djangos.task_finished.connect(receive)
    try:
        result = some_tasks.add.enqueue(1)
        run()
    finally:
        djangos.task_finished.disconnect(receive)
    result.refresh()
    assert result.status == SUCCESSFUL


def test_a_job_that_was_cancelled_has_failed() -> None:
    result = some_tasks.add.enqueue(1)
    assert app.job_manager.cancel_job_by_id(int(result.id))
    result.refresh()
    (error,) = result.errors
    assert (result.status, error.exception_class.__name__) == (FAILED, "JobWasCancelled")


@pytest.mark.parametrize("result_id", ["", "x", "-1", "1.5", "٣", "999", str(2**70), "9" * 5000])
def test_an_id_that_is_nobodys_has_no_result(result_id: str) -> None:
    with pytest.raises(djangos.TaskResultDoesNotExist):
        task_backends["default"].get_result(result_id)


def test_the_id_of_another_backend_or_of_another_job_has_no_result() -> None:
    theirs = some_tasks.add.using(backend="other").enqueue(1)
    job_id = app.configure_task("another").defer(args=1)
    for result_id in (theirs.id, str(job_id)):
        with pytest.raises(djangos.TaskResultDoesNotExist, match="no task of the backend"):
            task_backends["default"].get_result(result_id)
    assert task_backends["other"].get_result(theirs.id) == theirs


def test_a_task_that_cannot_be_imported_any_more_has_no_result() -> None:
    job_id = app.configure_task("gone.tasks.add").defer(args=[], kwargs={})
    with pytest.raises(djangos.TaskResultDoesNotExist, match="cannot be imported"):
        task_backends["default"].get_result(str(job_id))


def test_arguments_that_cannot_be_are_refused_at_once(memory: InMemoryConnector) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        some_tasks.add.enqueue(timedelta())
    with pytest.raises(InvalidArguments, match="do not fit"):
        some_tasks.add.enqueue(1, 2, 3)
    with pytest.raises(InvalidArguments):
        some_tasks.fail.enqueue("a\0b")
    assert memory.jobs == []


def test_arguments_without_an_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    for value in (endless, deep):
        with pytest.raises(InvalidArguments, match="too deep for JSON"):
            some_tasks.add.enqueue(value, 1)


@pytest.mark.parametrize(
    "value", [float("nan"), "\ud800", {1: 2}, {1: 1, "1": 2}, [{"a": {None: 1}}], {"a": ({2: 3},)}]
)
def test_arguments_that_do_not_survive_json_are_refused(
    memory: InMemoryConnector, value: Any
) -> None:
    for given in ((value, 1), (1, value)):
        with pytest.raises(InvalidArguments, match="JSON"):
            some_tasks.add.enqueue(*given)
    assert memory.jobs == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queue_name": "other"}, "'other'"),
        ({"queue_name": ""}, None),
        ({"priority": 101}, "between -100 and 100"),
        ({"priority": -101}, "between -100 and 100"),
        ({"priority": 1.5}, "whole number"),
        ({"run_after": datetime(2040, 1, 1)}, "aware"),
        ({"backend": "nowhere"}, "nowhere"),
    ],
)
def test_options_that_cannot_be_are_refused_when_they_are_said(
    options: dict[str, Any], said: str | None
) -> None:
    with pytest.raises((djangos.InvalidTask, InvalidTaskBackend), match=said):
        some_tasks.add.using(**options)


def test_a_task_is_a_function_of_a_module() -> None:
    def inner() -> None: ...

    for function in (inner, lambda: None, functools.partial(inner), "inner"):
        with pytest.raises(djangos.InvalidTask):
            djangos_task(function)


def test_a_path_that_is_too_long_is_refused() -> None:
    def function() -> None: ...

    function.__qualname__ = "f" * 200
    with pytest.raises(djangos.InvalidTask, match="128"):
        djangos_task(function)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"queue": "mail"}, "and not 'queue'"), ({"retry": "often"}, None)],
)
def test_options_of_a_job_that_cannot_be_are_refused(
    options: dict[str, Any], said: str | None
) -> None:
    task = djangos_task(function_of_its_own())
    with pytest.raises(InvalidOption, match=said):
        procrastinate_django.job(**options)(task)
        task.enqueue()


def djangos_task(function: Any) -> Any:
    """Return what Django's ``@task`` makes of a function."""
    return djangos.Task(
        priority=0, func=function, backend="default", queue_name="default", run_after=None
    )


def function_of_its_own() -> Any:
    def function() -> None: ...

    function.__qualname__ = "function_of_its_own"
    return function


def test_options_of_a_job_stand_above_the_task_and_come_in_time() -> None:
    with pytest.raises(InvalidOption, match="stands above Django's @task"):
        procrastinate_django.job(retry=1)(function_of_its_own())
    some_tasks.add.enqueue(1)
    with pytest.raises(InvalidOption, match="comes too late"):
        procrastinate_django.job(retry=1)(some_tasks.add)


def test_a_task_that_workers_may_not_find_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    function = function_of_its_own()
    function.__qualname__ = "late"
    task = djangos_task(function)
    for _ in range(2):
        task.enqueue()
    (record,) = [each for each in caplog.records if each.name == "procrastinate_django.backend"]
    assert f"{function.__module__}.late was made" in record.message
    assert "IMPORT_PATHS" in record.message


def test_a_worker_knows_every_task() -> None:
    declared.register_all(app)
    names = set(app.tasks)
    assert {f"{some_tasks.__name__}.{name}" for name in ("add", "add_later", "no_json")} <= names


def test_the_backend_checks_its_entry() -> None:
    assert task_backends["default"].check() == []
    with mock.patch.object(apps, "is_installed", return_value=False):
        assert [each.id for each in task_backends["default"].check()] == [
            "procrastinate_django.E010"
        ]
