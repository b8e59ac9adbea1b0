"""Cancelling and retrying by filter: what is chosen, what is left, and who waits for whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from lock_waits import COUNT_WAITING

import procrastinate
from procrastinate.app import changing_jobs
from procrastinate.errors import InvalidOption
from procrastinate.storage import bulk
from procrastinate.testing import InMemoryConnector

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(params=[3, 10_000])
def scanned(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The size of batches, from tiny to large."""
    monkeypatch.setattr(bulk, "SCANNED", request.param)
    monkeypatch.setattr(changing_jobs, "BATCH", max(1, request.param // 2))
    monkeypatch.setattr(bulk, "BATCH", max(1, request.param // 2))
    value: int = request.param
    return value


def statuses(query: Query) -> dict[int, str]:
    return dict(query("select id, status::text from procrastinate_jobs"))


def set_status(query: Query, status: str, ids: list[int]) -> None:
    query(
        "update procrastinate_jobs set status = %s, attempts = 4, finished_at = now()"
        " where id = any(%s)",
        *(status, ids),
    )


@pytest.mark.usefixtures("scanned")
def test_waiting_jobs_are_cancelled_by_filter(sync_app: procrastinate.App, query: Query) -> None:
    mail = sync_app.configure_task("send", queue="mail").batch_defer(*[{}] * 7)
    other = sync_app.configure_task("send", queue="other").batch_defer(*[{}] * 4)
    set_status(query, "succeeded", mail[:2])
    set_status(query, "doing", mail[2:3])
    manager = sync_app.job_manager

    assert manager.cancel_jobs(queue="mail", limit=2) == mail[3:5]
    assert manager.cancel_jobs(queue="mail") == mail[5:]
    assert manager.cancel_jobs(queue="mail", status="doing", abort=True) == mail[2:3]
    assert manager.cancel_jobs(id=[*other[2:], 10**9], delete_job=True) == other[2:]
    assert manager.cancel_jobs(queue="nothing") == manager.cancel_jobs(id=[]) == []
    assert statuses(query) == {
        **dict.fromkeys(mail[:2], "succeeded"),
        mail[2]: "doing",
        **dict.fromkeys(mail[3:], "cancelled"),
        **dict.fromkeys(other[:2], "todo"),
    }


@pytest.mark.usefixtures("scanned")
def test_jobs_that_ended_badly_are_retried_by_filter(
    sync_app: procrastinate.App, query: Query
) -> None:
    task = sync_app.configure_task("send", queue="mail", partition_key="k")
    ids = task.batch_defer(*[{}] * 6)
    for status, job_id in zip(
        ["failed", "cancelled", "aborted", "succeeded", "doing"], ids[:5], strict=True
    ):
        set_status(query, status, [job_id])
    manager = sync_app.job_manager
    at = datetime.now(UTC) + timedelta(hours=1)

    assert manager.retry_jobs(task="send", status="failed", limit=5) == ids[:1]
    assert manager.retry_jobs(queue="mail", retry_at=at, to_queue="x", to_priority=7) == ids[1:3]
    assert statuses(query) == {
        **dict.fromkeys(ids[:3], "todo"),
        ids[3]: "succeeded",
        ids[4]: "doing",
        ids[5]: "todo",
    }
    moved = [manager.get_job(each) for each in ids[1:3]]
    assert [(job.queue, job.priority, job.scheduled_at) for job in moved] == [("x", 7, at)] * 2
    assert manager.retry_jobs(queue="x", status="todo", to_lock="k") == ids[1:3]
    assert [job.lock for job in manager.list_jobs(queue="x")] == ["k", "k"]


@pytest.mark.parametrize("newest_first", [False, True])
def test_lists_can_be_paged_from_both_ends(
    sync_app: procrastinate.App, query: Query, newest_first: bool
) -> None:
    ids = sync_app.configure_task("send").batch_defer(*[{}] * 10)
    set_status(query, "failed", ids[::2])
    set_status(query, "aborted", ids[1:2])
    manager, seen, edge = sync_app.job_manager, [], {}
    while page := manager.list_jobs(
        status=["failed", "aborted", "todo"], newest_first=newest_first, limit=3, **edge
    ):
        seen += [job.id for job in page]
        edge = {"before_id" if newest_first else "after_id": seen[-1]}
    assert seen == sorted(ids, reverse=newest_first)


def test_a_job_whose_twin_waits_is_left_as_it_is(sync_app: procrastinate.App, query: Query) -> None:
    """And of several with one queueing lock, the first by (priority, id) is retried."""
    ids = []
    for priority in (0, 5, 5):
        task = sync_app.configure_task("send", queueing_lock="q", priority=priority)
        ids.append(task.defer())
        set_status(query, "failed", ids[-1:])
    manager = sync_app.job_manager
    assert manager.retry_jobs(status="failed") == [ids[1]]
    assert manager.retry_jobs(status="failed") == []
    assert statuses(query) == {ids[0]: "failed", ids[1]: "todo", ids[2]: "failed"}
    with pytest.raises(procrastinate.AlreadyEnqueued):
        manager.retry_job_by_id(ids[0])


def test_the_caller_s_transaction_goes_on_where_the_twin_of_a_retried_job_waits(
    sync_app: procrastinate.App, dsn: str, query: Query
) -> None:
    task = sync_app.configure_task("send", queueing_lock="q")
    failed = task.defer()
    set_status(query, "failed", [failed])
    twin = task.defer()
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute("create table theirs (n int)")
        with pytest.raises(procrastinate.AlreadyEnqueued):
            sync_app.job_manager.retry_job_by_id(failed, connection=connection)
    connection.close()
    assert query("select * from theirs") == []
    assert statuses(query) == {failed: "failed", twin: "todo"}


def test_a_job_retried_by_hand_has_as_many_attempts_as_a_new_one(
    sync_app: procrastinate.App, query: Query
) -> None:
    ids = sync_app.configure_task("send").batch_defer({}, {}, {})
    set_status(query, "failed", ids[:2])
    assert sync_app.job_manager.retry_jobs(id=ids[0]) == ids[:1]
    assert sync_app.job_manager.retry_job_by_id(ids[1])
    assert sync_app.job_manager.retry_job_by_id(ids[2])
    jobs = sync_app.job_manager.list_jobs()
    assert [job.attempts for job in jobs] == [0, 0, 0]
    query("update procrastinate_jobs set attempts = 3 where id = %s", ids[0])
    sync_app.job_manager.retry_job_by_id(ids[0])
    assert sync_app.job_manager.get_job(ids[0]).attempts == 3, "hurrying forgives nothing"


async def test_a_retry_by_hand_is_followed_by_the_task_s_own_retries(
    app: procrastinate.App,
) -> None:
    @app.task(name="flaky", retry=1, pass_context=True)
    async def flaky(context: procrastinate.JobContext) -> None:
        raise ValueError(context.job.attempts)

    job_id = await flaky.defer_async()
    seen = []
    for _ in range(2):
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        job = await app.job_manager.get_job_async(job_id)
        seen.append((job.status.value, [each["message"] for each in job.errors]))
        await app.job_manager.retry_jobs_async(status="failed")
    assert seen == [("failed", ["1", "2"]), ("failed", ["1", "2", "1", "2"])]


# Others at work


def test_jobs_that_somebody_has_in_hand_are_waited_for_at_the_end(
    sync_app: procrastinate.App, dsn: str, query: Query
) -> None:
    """All others are cancelled, and committed, before."""
    ids = sync_app.configure_task("send").batch_defer(*[{}] * 4)
    holder = psycopg2.connect(dsn)
    holder.cursor().execute("select from procrastinate_jobs where id = %s for update", ids[1:2])
    changed: list[int] = []
    thread = threading.Thread(
        target=lambda: changed.extend(sync_app.job_manager.cancel_jobs(task="send")), daemon=True
    )
    thread.start()
    deadline = time.monotonic() + 10
    while list(statuses(query).values()).count("cancelled") < 3:
        assert time.monotonic() < deadline
    assert statuses(query)[ids[1]] == "todo"
    holder.rollback()
    thread.join(10)
    holder.close()
    assert changed == ids


def test_a_twin_that_is_committed_meanwhile_is_seen(
    sync_app: procrastinate.App, dsn: str, query: Query
) -> None:
    """The batch waits to know, and is done again without that job."""
    task = sync_app.configure_task("send", queueing_lock="q")
    failed = [task.defer()]
    set_status(query, "failed", failed)
    failed += sync_app.configure_task("send").batch_defer({}, {})
    set_status(query, "failed", failed[1:])
    holder = psycopg2.connect(dsn)
    sync_app.configure_task("send", queueing_lock="q", connection=holder).defer()
    changed: list[int] = []
    thread = threading.Thread(
        target=lambda: changed.extend(sync_app.job_manager.retry_jobs(status="failed")),
        daemon=True,
    )
    thread.start()
    deadline = time.monotonic() + 10
    while query(COUNT_WAITING) == [(0,)]:
        assert time.monotonic() < deadline, "nobody waits"
    holder.commit()
    thread.join(10)
    holder.close()
    assert changed == failed[1:]
    assert statuses(query)[failed[0]] == "failed"


def test_changes_by_filter_can_be_part_of_the_caller_s_transaction(
    sync_app: procrastinate.App, dsn: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "SCANNED", 2)
    ids = sync_app.configure_task("send").batch_defer(*[{}] * 5)
    connection = psycopg2.connect(dsn)
    manager = sync_app.job_manager
    assert manager.cancel_jobs(task="send", connection=connection) == ids
    assert manager.retry_jobs(task="send", limit=2, connection=connection) == ids[:2]
    assert set(statuses(query).values()) == {"todo"}
    connection.rollback()
    assert set(statuses(query).values()) == {"todo"}
    manager.cancel_jobs(task="send", connection=connection)
    connection.commit()
    connection.close()
    assert set(statuses(query).values()) == {"cancelled"}


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "at least one filter"),
        ({"queue": None}, "at least one filter"),
        ({"colour": "red"}, "'colour'"),
        ({"id": "3"}, "'3'"),
        ({"id": [True]}, "True"),
        ({"queue": ""}, "queue"),
        ({"queue": "q", "limit": 0}, "limit"),
        ({"queue": "q", "limit": True}, "limit"),
        ({"status": "succeeded"}, "succeeded cannot be"),
        ({"status": "done"}, "'done'"),
        ({"status": 3}, "status must be one of"),
        ({"worker_id": "me"}, "worker_id"),
    ],
)
def test_changes_by_filter_that_cannot_be_are_refused(
    options: dict[str, Any], message: str
) -> None:
    manager = procrastinate.App(connector=InMemoryConnector()).job_manager
    for change in (manager.cancel_jobs, manager.retry_jobs):
        with pytest.raises(InvalidOption, match=message):
            change(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"status": "doing"}, "abort=True"),
        ({"queue": "q", "abort": 1}, "abort"),
        ({"queue": "q", "delete_job": "yes"}, "delete_job"),
    ],
)
def test_cancellations_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    manager = procrastinate.App(connector=InMemoryConnector()).job_manager
    with pytest.raises(InvalidOption, match=message):
        manager.cancel_jobs(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"status": "doing"}, InvalidOption, "doing cannot be retried"),
        ({"queue": "q", "retry_at": datetime(2030, 1, 1)}, procrastinate.InvalidTimestamp, "zone"),
        ({"queue": "q", "to_priority": 2**40}, InvalidOption, "priority"),
        ({"queue": "q", "to_queue": ""}, InvalidOption, "to_queue"),
        ({"queue": "q", "to_lock": 3}, InvalidOption, "to_lock"),
    ],
)
def test_retries_that_cannot_be_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    manager = procrastinate.App(connector=InMemoryConnector()).job_manager
    with pytest.raises(error, match=message):
        manager.retry_jobs(**options)
