"""Calls of releases up to 3.x: they work, or say what to write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import procrastinate
from procrastinate import InvalidOption, builtin_tasks
from procrastinate.former.arguments import former_arguments
from procrastinate.testing import InMemoryConnector, run_jobs

REMOVE = "builtin:procrastinate.builtin_tasks.remove_old_jobs"


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> procrastinate.App:
    """The only app of the process."""
    monkeypatch.setattr(builtin_tasks, "_APPS", type(builtin_tasks._APPS)())
    return procrastinate.App(connector=InMemoryConnector())


@former_arguments(old="new", gone={"never": "do without"})
def call(*, new: int = 0) -> int:
    return new


def test_a_former_argument_is_taken_with_a_warning() -> None:
    former: Any = call
    with pytest.warns(DeprecationWarning, match=r"call\(old=\.\.\.\) is called new= now") as seen:
        assert former(old=1) == 1
    assert seen[0].filename == __file__
    with pytest.raises(InvalidOption, match="old is the former name of new"):
        former(old=1, new=2)
    with pytest.raises(InvalidOption, match=r"no never= any more, .*: do without$"):
        former(never=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        former(other=1)


async def test_ids_of_jobs_were_called_job_id(app: procrastinate.App) -> None:
    manager: Any = app.job_manager
    job_id = app.configure_task("task").defer()

    with pytest.warns(DeprecationWarning, match="is called id= now"):
        assert manager.get_job_status(job_id=job_id) == "todo"
    with pytest.warns(DeprecationWarning, match="is called id= now"):
        assert await manager.get_job_status_async(job_id=job_id) == "todo"
    with pytest.warns(DeprecationWarning, match="is called id= now"):
        assert await manager.cancel_job_by_id_async(job_id=job_id)
    later = datetime(2040, 1, 1, tzinfo=UTC)
    assert manager.retry_job_by_id(job_id, later, 7, "other", "lock")
    job = manager.get_job(job_id)
    assert (job.status, job.scheduled_at, job.priority) == ("todo", later, 7)
    assert (job.queue, job.lock) == ("other", "lock")


async def test_the_recipe_for_stalled_jobs_does_no_harm(app: procrastinate.App) -> None:
    manager = app.job_manager
    running = app.configure_task("task").defer()
    with pytest.warns(DeprecationWarning, match="need not be awaited"):
        stalled: Any = await manager.get_stalled_jobs()  # type: ignore[misc]
    assert stalled == []
    with pytest.warns(DeprecationWarning, match=r"retry_job_by_id_async\(job\.id\)"):
        assert await manager.retry_job(manager.get_job(running))
    with pytest.raises(InvalidOption, match="nb_seconds"):
        manager.get_stalled_jobs(nb_seconds=30)  # type: ignore[call-arg]


def test_the_ages_of_old_jobs_are_timedeltas(app: procrastinate.App) -> None:
    with pytest.raises(InvalidOption, match=r"older_than=timedelta\(hours=72\)"):
        app.job_manager.delete_old_jobs(nb_hours=72)  # type: ignore[call-arg]


def test_old_jobs_are_removed_under_every_name_of_the_task(app: procrastinate.App) -> None:
    app.task(name="old", retry=False)(lambda: 1 / 0).defer()
    run_jobs(app, raise_errors=False)
    assert [job.status for job in app.job_manager.list_jobs()] == ["failed"]
    app.connector.clock.move(hours=2)  # type: ignore[attr-defined]
    for name in ("procrastinate.builtin_tasks.remove_old_jobs", REMOVE):
        assert app.tasks[name].name == REMOVE
        assert app.configure_task(name, allow_unknown=False).options.queue == "builtin"
    deferrer = app.configure_task("procrastinate.builtin_tasks.remove_old_jobs")
    deferrer.defer(max_hours=1, remove_error=True)
    run_jobs(app)
    assert [job.task_name for job in app.job_manager.list_jobs()] == [REMOVE]
    assert app.job_manager.list_jobs()[0].status == "succeeded"


async def test_the_builtin_task_is_deferred_by_the_only_app(app: procrastinate.App) -> None:
    same_tasks = app.with_connector(InMemoryConnector())
    builtin_tasks.remove_old_jobs.defer(max_hours=72)
    await builtin_tasks.remove_old_jobs.defer_async(max_hours=72)
    builtin_tasks.remove_old_jobs.configure(priority=3).defer(max_hours=72)

    assert [(job.task_name, job.priority) for job in app.job_manager.list_jobs()] == [
        (REMOVE, 0),
        (REMOVE, 0),
        (REMOVE, 3),
    ]
    other = procrastinate.App(connector=InMemoryConnector())
    with pytest.raises(procrastinate.ConfigurationError, match=r"3 apps .* app\.configure_task"):
        builtin_tasks.remove_old_jobs.defer(max_hours=72)
    assert other.job_manager.list_jobs() == same_tasks.job_manager.list_jobs() == []


def test_the_builtin_task_is_called_by_plain_functions_and_awaited_by_coroutines(
    app: procrastinate.App,
) -> None:
    @app.task(name="plain", pass_context=True)
    def plain(context: procrastinate.JobContext) -> None:
        assert builtin_tasks.remove_old_jobs(context, max_hours=1) is None

    @app.task(name="awaiting", pass_context=True)
    async def awaiting(context: procrastinate.JobContext) -> None:
        assert await builtin_tasks.remove_old_jobs(context, max_hours=0) is None

    plain.defer()
    run_jobs(app)
    assert [job.status for job in app.job_manager.list_jobs()] == ["succeeded"]
    app.connector.clock.move(minutes=1)  # type: ignore[attr-defined]
    awaiting.defer()
    run_jobs(app)
    assert [(job.task_name, job.status) for job in app.job_manager.list_jobs()] == [
        ("awaiting", "succeeded")
    ]


def test_a_strategy_of_the_former_kind_is_refused_where_it_is_defined() -> None:
    with pytest.raises(InvalidOption, match=r"get_schedule_in\(\) would never .* job\.attempts"):

        class Former(procrastinate.BaseRetryStrategy):
            def get_schedule_in(self, *, exception: BaseException, attempts: int) -> int:
                return 1

    with pytest.raises(InvalidOption, match="get_retry_decision"):

        class Derived(procrastinate.RetryStrategy):
            def get_schedule_in(self, *, exception: BaseException, attempts: int) -> int:
                return 1


def test_a_strategy_of_both_kinds_is_taken() -> None:
    class Both(procrastinate.BaseRetryStrategy):
        def get_schedule_in(self, *, exception: BaseException, attempts: int) -> int:
            raise AssertionError("is for releases before 2.9")

        def get_retry_decision(
            self, *, exception: BaseException, job: procrastinate.Job
        ) -> procrastinate.RetryDecision | None:
            return procrastinate.RetryDecision(retry_in={"seconds": 1})

    app = procrastinate.App(connector=InMemoryConnector())
    assert isinstance(app.task(name="task", retry=Both())(lambda: None).retry_strategy, Both)


def test_middleware_has_one_name(app: procrastinate.App) -> None:
    def look(call_next: Any, context: Any, worker: Any) -> Any:
        return call_next()

    with pytest.warns(DeprecationWarning, match="middleware= now"):
        task: Any = app.task(name="task", task_middleware=[look])  # type: ignore[call-overload]
    assert task(lambda: None).definition.middleware == (look,)
    with pytest.warns(DeprecationWarning, match="`worker_middleware` is now called `middleware`"):
        app.worker(worker_middleware=[])  # type: ignore[call-arg]
    with pytest.raises(InvalidOption, match="both middleware= now"):
        app.worker(task_middleware=[look])  # type: ignore[call-arg]
