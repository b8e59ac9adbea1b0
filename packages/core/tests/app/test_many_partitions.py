"""The job manager on a database with 64 partitions: all jobs are seen, and may be changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import App
from procrastinate.errors import InvalidOption, JobNotFound
from procrastinate.model.job import Status
from procrastinate.model.monitoring.search import Count
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.storage.partitioning import into_partitions

Query = Callable[..., list[tuple[Any, ...]]]
OLD, NEW = 5, 60
P = Partitions(MANY)

pytestmark = pytest.mark.one_partition("these make the partitions themselves")


@pytest.fixture
def app(dsn: str, sync_app: App) -> App:
    """An app that still takes the database for one with a single partition."""
    before = [sync_app.configure_task("old", queue="a").defer(n=n) for n in range(OLD - 1)]
    before.append(sync_app.configure_task("old", queue="a", lock="l").defer(n=OLD))
    assert sync_app.job_manager.get_job(before[0]).task_name == "old"
    with App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as other:
        other._gateway.run(into_partitions(), transaction=True)
    for n in range(NEW):
        sync_app.configure_task("new", queue="b", lock=f"{n}").defer(n=n)
    sync_app._gateway._settings_until = 0.0  # ten seconds later
    return sync_app


@pytest.fixture
def ids(app: App, query: Query) -> list[int]:
    """The ids of all jobs, which lie in many partitions."""
    rows = query("select id, partition from procrastinate_jobs order by id")
    assert len({partition for _, partition in rows}) > 20
    return [job_id for job_id, _ in rows]


def test_each_job_is_found_by_its_id(app: App, ids: list[int]) -> None:
    found = [app.job_manager.get_job(job_id) for job_id in ids]
    assert [job.id for job in found] == ids
    assert {app.job_manager.get_job_status(job_id) for job_id in ids} == {Status.TODO}
    with pytest.raises(JobNotFound):
        app.job_manager.get_job(ids[-1] + MANY)
    with pytest.raises(JobNotFound):
        app.job_manager.get_job(ids[-1] + 1)


def test_the_lists_are_of_all_partitions(app: App, ids: list[int]) -> None:
    manager = app.job_manager
    assert [job.id for job in manager.list_jobs()] == ids
    assert [job.id for job in manager.list_jobs(status="todo", limit=20)] == ids[:20]
    assert [job.id for job in manager.list_jobs(newest_first=True, limit=3)] == ids[:-4:-1]
    page = manager.list_jobs(after_id=ids[10], before_id=ids[40], queue="b")
    assert [job.id for job in page] == ids[11:40]
    assert [(each.name, each.todo) for each in manager.list_queues()] == [("a", OLD), ("b", NEW)]
    assert [(each.name, each.todo) for each in manager.list_tasks()] == [("new", NEW), ("old", OLD)]
    assert len(manager.list_locks()) == NEW + 1


def test_exact_counts_are_of_all_partitions(app: App, ids: list[int]) -> None:
    assert app.queue_manager.count("ready") == {"a": OLD, "b": NEW}


async def test_and_asynchronously_counted(app: App, ids: list[int]) -> None:
    assert await app.queue_manager.count_async("ready") == {"a": OLD, "b": NEW}


def test_searches_and_glances_are_of_all_partitions(app: App, ids: list[int]) -> None:
    assert app.job_manager.count_jobs(queue="b") == Count(NEW)
    found = {each.name: each.ready for each in app.queue_manager.list_queues()}
    assert found == {"a": Count(OLD), "b": Count(NEW)}


def test_each_job_is_cancelled_and_retried_by_its_id(app: App, ids: list[int]) -> None:
    manager = app.job_manager
    assert all(manager.cancel_job_by_id(job_id) for job_id in ids)
    assert {manager.get_job_status(job_id) for job_id in ids} == {Status.CANCELLED}
    assert all(manager.retry_job_by_id(job_id) for job_id in ids)
    assert {manager.get_job_status(job_id) for job_id in ids} == {Status.TODO}
    assert manager.cancel_job_by_id(ids[-1] + MANY) is False
    assert manager.retry_job_by_id(1_000_000) is False


async def test_and_asynchronously(app: App, ids: list[int]) -> None:
    manager = app.job_manager
    assert (await manager.get_job_async(ids[-1])).id == ids[-1]
    assert [job.id for job in await manager.list_jobs_async(id=ids[2:7])] == ids[2:7]
    assert await manager.cancel_job_by_id_async(ids[0])
    assert await manager.cancel_jobs_async(queue="b") == ids[OLD:]
    assert await manager.retry_jobs_async(id=ids) == [ids[0], *ids[OLD:]]


def test_running_jobs_are_asked_to_end(app: App, ids: list[int], query: Query) -> None:
    query("update procrastinate_jobs set status = 'doing', worker_id = 1")
    assert app.job_manager.cancel_job_by_id(ids[0], abort=True)
    assert app.job_manager.cancel_jobs(abort=True, task="new") == ids[OLD:]
    asked = query("select id from procrastinate_jobs where abort_requested order by id")
    assert asked == [(job_id,) for job_id in [ids[0], *ids[OLD:]]]
    stalled = app.job_manager.get_stalled_jobs(seconds_since_heartbeat=0)
    assert [job.id for job in stalled] == ids


def test_jobs_are_changed_by_filter(app: App, ids: list[int], query: Query) -> None:
    manager = app.job_manager
    assert manager.cancel_jobs(queue="b", limit=7) != []
    assert len(manager.list_jobs(status="cancelled")) == 7
    assert len(manager.cancel_jobs(id=ids, delete_job=True)) == len(ids) - 7
    retried = manager.retry_jobs(status="cancelled", to_queue="c")
    assert query("select id from procrastinate_jobs where queue_name = 'c' order by id") == [
        (job_id,) for job_id in retried
    ]
    assert len(retried) == 7


def test_changes_are_part_of_the_callers_transaction(app: App, ids: list[int], dsn: str) -> None:

    connection = psycopg2.connect(dsn)
    manager = app.job_manager
    app._gateway._settings_until = 0.0
    assert len(manager.list_jobs(connection=connection)) == len(ids)
    assert manager.cancel_jobs(id=ids, connection=connection) == ids
    assert manager.retry_job_by_id(ids[-1], connection=connection)
    assert manager.get_job_status(ids[0], connection=connection) == Status.CANCELLED
    connection.rollback()
    connection.close()
    assert manager.get_job_status(ids[0]) == Status.TODO


def test_a_retry_that_would_move_a_job_is_refused(app: App, ids: list[int]) -> None:
    manager = app.job_manager
    last = manager.get_job(ids[-1])
    here = P.of_key(last.lock or "")
    other = next(f"{n}" for n in range(99) if P.of_key(f"{n}") != here)
    said = rf"partition {here}, and the lock '{other}' belongs to partition {P.of_key(other)}"
    with pytest.raises(InvalidOption, match=said):
        manager.retry_job_by_id(last.id, lock=other)
    with pytest.raises(InvalidOption, match=said):
        manager.retry_jobs(id=[last.id], status="todo", to_lock=other)
    same = next(f"{n}" for n in range(999, 0, -1) if P.of_key(f"{n}") == here)
    assert manager.retry_job_by_id(last.id, lock=same)
    assert manager.get_job(last.id).lock == same


def test_old_jobs_of_all_partitions_are_deleted(app: App, ids: list[int], query: Query) -> None:
    query(
        "update procrastinate_jobs set status = 'succeeded', deferred_at = now() - interval '1 h',"
        " finished_at = now() - interval '1 h'"
    )
    assert app.job_manager.delete_old_jobs(older_than=timedelta(minutes=1)) == len(ids)
    assert query("select count(*) from procrastinate_jobs") == [(0,)]
