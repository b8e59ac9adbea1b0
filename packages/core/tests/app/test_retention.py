"""Old jobs go by status and age, by hand or by the task that every app has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate import builtin_tasks
from procrastinate.errors import InvalidOption
from procrastinate.storage import bulk
from procrastinate.testing import InMemoryConnector

REMOVE = "builtin:procrastinate.builtin_tasks.remove_old_jobs"
DAY = timedelta(days=1)

#: Jobs of each status that ended so many days ago, and one that waits.
OLD_JOBS = """
    insert into procrastinate_jobs
        (task_name, queue_name, status, attempts, deferred_at, finished_at)
    select 'old', case when day > 5 then 'a' else 'b' end, status, 1,
        now() - day * interval '1 day', now() - day * interval '1 day' + interval '1 minute'
    from generate_series(9, 1, -1) as day,
        unnest('{succeeded,failed,cancelled,aborted}'::procrastinate_job_status[]) as status
    order by day desc, status;
    insert into procrastinate_jobs (task_name, queue_name, deferred_at)
    values ('old', 'a', now() - interval '1 year');
"""

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def old_jobs(dsn: str, query: Query) -> Callable[[], dict[str, int]]:
    """The number of old jobs left, by status."""
    query(OLD_JOBS)

    def left() -> dict[str, int]:
        return dict(
            query(
                "select status::text, count(*) from procrastinate_jobs where task_name = 'old'"
                " group by status"
            )
        )

    return left


ALL = {"todo": 1, "succeeded": 9, "failed": 9, "cancelled": 9, "aborted": 9}


@pytest.mark.parametrize("scanned", [1, 3, 10_000])
def test_a_policy_keeps_each_status_for_its_time(
    sync_app: procrastinate.App,
    old_jobs: Callable[[], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    scanned: int,
) -> None:
    """Whatever the size of a batch."""
    monkeypatch.setattr(bulk, "SCANNED", scanned)
    policy = {"succeeded": 3 * DAY, "failed": {"days": 7}, procrastinate.Status.ABORTED: 30 * DAY}
    manager = sync_app.job_manager
    assert manager.apply_retention(policy, queue="nothing") == 0
    assert manager.apply_retention(policy) == 6 + 2
    assert old_jobs() == {**ALL, "succeeded": 3, "failed": 7}
    assert manager.apply_retention(policy) == 0
    assert manager.delete_old_jobs(older_than=DAY, statuses=["cancelled"], queue="b") == 4
    assert old_jobs() == {**ALL, "succeeded": 3, "failed": 7, "cancelled": 5}


def test_the_walk_ends_where_jobs_are_too_young(
    sync_app: procrastinate.App, old_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deferred yesterday cannot have ended last week: it is not read."""
    monkeypatch.setattr(bulk, "SCANNED", 4)
    asked = []
    sync_app.job_manager.apply_retention(
        {"failed": 7 * DAY}, should_stop=lambda: bool(asked.append(None))
    )
    # Three days of four jobs each that may be old enough, and one that is not; five more are left.
    assert len(asked) == 3 + sync_app._gateway.partitions().count


@pytest.mark.one_partition("the first batch is of a partition without jobs")
def test_retention_stops_between_batches_when_it_should(
    sync_app: procrastinate.App, old_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SCANNED", 4)
    answers = iter([False, True])
    deleted = sync_app.job_manager.apply_retention(
        {"failed": timedelta()}, should_stop=lambda: next(answers)
    )
    assert deleted == 1


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "retention policy must be a dict"),
        ([("failed", DAY)], "retention policy must be a dict"),
        ({"todo": DAY}, "todo"),
        ({"finished": DAY}, "'finished'"),
        ({1: DAY}, "status must be one of"),
        ({"failed": 90}, r"age of failed jobs must be a timedelta .* 90"),
        ({"failed": {"day": 90}}, "age of failed jobs"),
        ({"failed": -DAY}, "age of failed jobs must not be negative"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy: Any, message: str) -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    with pytest.raises(InvalidOption, match=message):
        app.job_manager.apply_retention(policy)


# The built-in task


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ({"max_hours": 49}, {**ALL, "succeeded": 2}),
        (
            {"max_hours": 49, "remove_failed": True, "queue": "a"},
            {**ALL, "succeeded": 5, "failed": 5},
        ),
        (
            {"max_hours": 0, "remove_cancelled": True, "remove_aborted": True},
            {"todo": 1, "failed": 9},
        ),
        ({"policy": {"failed": {"days": 7}}, "timestamp": 1}, {**ALL, "failed": 7}),
    ],
)
async def test_remove_old_jobs_is_there_in_every_app(
    app: procrastinate.App, old_jobs: Any, arguments: dict[str, Any], left: dict[str, int]
) -> None:
    job_id = await app.configure_task(REMOVE, allow_unknown=False).defer_async(**arguments)
    await app.run_worker_async(queues=["builtin"], wait=False, install_signal_handlers=False)
    assert await app.job_manager.get_job_status_async(job_id) == "succeeded"
    assert old_jobs() == left


@pytest.mark.parametrize(
    "arguments", [{}, {"max_hours": 1, "policy": {"failed": {"days": 1}}}, {"max_hours": "many"}]
)
async def test_remove_old_jobs_says_what_is_wrong_with_its_arguments(
    app: procrastinate.App, arguments: dict[str, Any]
) -> None:
    job_id = await app.configure_task(REMOVE).defer_async(**arguments)
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    job = await app.job_manager.get_job_async(job_id)
    assert (job.status, job.errors[0]["type"]) == (
        "failed",
        "procrastinate.errors.InvalidOption",
    )


def test_arguments_that_remove_old_jobs_does_not_have_are_refused_at_defer() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    with pytest.raises(procrastinate.InvalidArguments, match="max_days"):
        app.configure_task(REMOVE).defer(max_days=3)


@pytest.mark.one_partition("the first batch is of a partition without jobs")
def test_remove_old_jobs_ends_as_aborted_between_two_batches(
    sync_app: procrastinate.App, old_jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SCANNED", 4)
    context = procrastinate.JobContext(
        app=sync_app,
        worker_name="w",
        job=procrastinate.Job(1, procrastinate.Status.DOING, "builtin", REMOVE, {}),
        task=sync_app.tasks[REMOVE],
        start_timestamp=0.0,
    )
    answers = iter([False, True, True])
    monkeypatch.setattr(procrastinate.JobContext, "should_abort", lambda self: next(answers))
    with pytest.raises(procrastinate.JobAborted, match="1 old jobs were removed"):
        builtin_tasks.remove_old_jobs(context, max_hours=0)
    assert old_jobs() == {**ALL, "succeeded": 8}


def test_built_in_tasks_are_found_but_not_listed() -> None:
    """So that an app's tasks are its own, and an app can be taken up by another."""
    app = procrastinate.App(connector=InMemoryConnector())
    other = procrastinate.App(connector=InMemoryConnector())
    app.add_tasks_from(other, namespace="")
    assert list(app.tasks) == []
    assert app.tasks[REMOVE].definition.queue == "builtin"
    assert app.with_connector(InMemoryConnector()).tasks[REMOVE].name == REMOVE
    with pytest.raises(procrastinate.TaskNotFound):
        procrastinate.Blueprint().tasks[REMOVE]
