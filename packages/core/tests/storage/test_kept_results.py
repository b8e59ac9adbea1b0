"""What tasks returned, kept with the endings of their jobs, and read with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import procrastinate
from procrastinate import Status, drive, json_codec
from procrastinate.model.endings.outcome import INTERRUPTED, SUCCEEDED, Finished, Outcome
from procrastinate.model.endings.results import RETURNED_NOTHING
from procrastinate.model.job import Job
from procrastinate.storage import finish, workers
from procrastinate.storage.finish import Ended
from procrastinate.storage.statements import Statements

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

Run = Callable[..., list[tuple[Any, ...]]]
WORKER = 1
FAILED = Finished(Status.FAILED, {"message": "m", "attempt": 1})


def running(app: procrastinate.App, query: Run, count: int) -> list[Job]:
    ids = [app.configure_task("task").defer() for _ in range(count)]
    query(
        "update procrastinate_jobs set status = 'doing', worker_id = %s, attempts = 1, lease = 1",
        WORKER,
    )
    return [Job(n, Status.DOING, "default", "task", {}, attempts=1, lease=1) for n in ids]


def run(app: procrastinate.App, flow: drive.Flow[Any]) -> Any:
    connector: Any = app.connector
    with connector.session(transaction=True) as executor:
        return drive.run(flow, executor, Statements())


def settle(
    app: procrastinate.App,
    *ended: Ended,
    delete_ended: bool = False,
    sent: list[str] | None = None,
) -> None:
    flow = finish.settle(
        ended, now=0.0, worker_id=WORKER, dumps=json_codec.dumps, delete_ended=delete_ended
    )
    run(app, flow if sent is None else noting(flow, sent))


def noting(flow: drive.Flow[Any], sent: list[str]) -> drive.Flow[Any]:
    """Run a flow, and note the names of its statements."""
    rows: Any = None
    while True:
        try:
            request = flow.send(rows)
        except StopIteration as end:
            return end.value
        sent.append(request.name)
        rows = yield request


def returned(text: str) -> Finished:
    return Finished(Status.SUCCEEDED, result=text)


@pytest.mark.parametrize("others", [(), (FAILED, INTERRUPTED)], ids=["alone", "with others"])
def test_a_job_has_the_result_of_its_task_or_the_reason_why_not(
    sync_app: procrastinate.App, query: Run, others: tuple[Outcome, ...]
) -> None:
    without = Finished(Status.SUCCEEDED, result_error="it is too large")
    outcomes = (
        returned('{"a": [1.5, "é", "{,}", null]}'),
        returned("null"),
        without,
        SUCCEEDED,
        *others,
    )
    given = running(sync_app, query, len(outcomes))
    settle(sync_app, *map(Ended, given, outcomes))

    found = [sync_app.job_manager.get_job(job.id) for job in given]
    assert [(job.has_result, job.result, job.result_error) for job in found] == [
        (True, {"a": [1.5, "é", "{,}", None]}, None),
        (True, None, None),
        (False, None, "it is too large"),
        (False, None, None),
        *[(False, None, None)] * len(others),
    ]
    assert sync_app.job_manager.list_jobs() == found


@pytest.mark.parametrize("outcome", [SUCCEEDED, returned("1")], ids=["no result", "a result"])
def test_a_batch_may_hold_others_than_those_that_returned_none(
    sync_app: procrastinate.App, query: Run, outcome: Finished
) -> None:
    """If it holds no others, its statement is told no results."""
    sent: list[str] = []
    given = running(sync_app, query, 4)
    settle(sync_app, *[Ended(job, RETURNED_NOTHING) for job in given[:2]], sent=sent)
    settle(sync_app, Ended(given[2], RETURNED_NOTHING), Ended(given[3], outcome), sent=sent)

    assert sent == ["finish_jobs_that_returned_nothing", "finish_jobs_with_results"]
    assert query("select result::text, result_error from procrastinate_jobs order by id") == [
        *[("null", None)] * 3,
        (outcome.result, None),
    ]


def test_a_retry_by_hand_removes_a_result(sync_app: procrastinate.App, query: Run) -> None:
    given = running(sync_app, query, 2)
    query(
        "update procrastinate_jobs set status = 'failed', result = '1', result_error = 'it is'"
        " where id = any(%s)",
        [job.id for job in given],
    )
    sync_app.job_manager.retry_job_by_id(given[0].id)
    sync_app.job_manager.retry_jobs(id=given[1].id)
    assert (
        query("select status::text, result, result_error from procrastinate_jobs")
        == [("todo", None, None)] * 2
    )


def test_a_result_that_cannot_be_decoded_keeps_no_job_from_being_read(
    sync_app: procrastinate.App, query: Run
) -> None:
    given = running(sync_app, query, 2)
    digits = "1" * 5_000
    settle(sync_app, Ended(given[0], returned(digits)), Ended(given[1], returned("1")))
    listed = sync_app.job_manager.list_jobs()
    one = sync_app.job_manager.get_job(given[0].id)
    for job in (listed[0], one):
        assert (job.has_result, job.result) == (False, None)
        assert job.result_error is not None
        assert "the result was kept, but cannot be decoded: " in job.result_error
        assert "argument" not in job.result_error
    assert listed[1].result == 1


def test_a_json_loads_of_the_users_own_decodes_results_too(dsn: str, query: Run) -> None:
    def loads(text: str) -> Any:
        value = json_codec.loads(text)
        if value == "worse":
            raise LookupError("no such thing")
        return value if isinstance(value, dict) else ("mine", value)

    connector = procrastinate.Psycopg2Connector(dsn=dsn, json_loads=loads)
    with procrastinate.App(connector=connector).open() as app:
        given = running(app, query, 2)
        settle(app, Ended(given[0], returned('"a"')), Ended(given[1], returned('"worse"')))
        good, bad = [app.job_manager.get_job(job.id) for job in given]
    assert good.result == ("mine", "a")
    assert (bad.has_result, bad.result_error) == (
        False,
        "the result was kept, but cannot be decoded: no such thing",
    )


def test_a_job_of_a_task_that_keeps_results_is_not_removed_at_its_end(
    sync_app: procrastinate.App, query: Run
) -> None:
    kept, removed = running(sync_app, query, 2)
    settle(sync_app, Ended(kept, FAILED, kept=True), Ended(removed, FAILED), delete_ended=True)
    assert query("select id from procrastinate_jobs") == [(kept.id,)]


def test_nor_if_its_worker_died(sync_app: procrastinate.App, query: Run) -> None:
    kept, _ = running(sync_app, query, 2)
    query("update procrastinate_jobs set task_name = 'keeps' where id = %s", kept.id)
    run(
        sync_app,
        workers.recover_jobs(
            timeout_us=-3_600_000_000,
            most_crashes=1,
            delete_ended=True,
            keeps=lambda name: name == "keeps",
        ),
    )
    assert query("select id, status::text from procrastinate_jobs") == [(kept.id, "failed")]


def test_nor_if_it_goes_back_and_may_not(sync_app: procrastinate.App, query: Run) -> None:
    kept, removed = running(sync_app, query, 2)
    query("update procrastinate_jobs set abort_requested = true")
    flow = finish.hand_back(
        [replace(kept, task_name="keeps"), removed],
        worker_id=WORKER,
        delete_ended=True,
        keeps=lambda name: name == "keeps",
    )
    run(sync_app, flow)
    assert query("select id, status::text from procrastinate_jobs") == [(kept.id, "aborted")]
