"""The list of a job's errors: bounded, whatever stands in it, and not carried around."""

from __future__ import annotations

import importlib
import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procrastinate
import procrastinate_embedded
from procrastinate import drive, json_codec
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import (
    ABORTED_TYPE,
    LOST_TYPE,
    WHY_LOST,
    Finished,
    Outcome,
    Requeued,
)
from procrastinate.model.job import Job, Status
from procrastinate.storage import claim, finish
from procrastinate.storage.statements import Statements, load
from procrastinate.testing._engine.values import errors_after, jsonb
from procrastinate_psycopg2.sessions import bound

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

Run = Callable[..., list[tuple[Any, ...]]]
sql = Statements()


class Holder:
    """A worker that holds one job, on a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg2.connect(dsn)
        self.connection.autocommit = True
        self.executor = bound(self.connection)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []

    def claim(self) -> Job:
        scan = Scan(Kind.FULL, 1, ("default",), with_locks=True)
        flow = claim.claim(scan, worker_id=1, loads=json_codec.loads)
        (job,) = drive.run(flow, self.executor, sql).jobs
        return job

    def settle(self, job: Job, outcome: Outcome) -> None:
        flow = finish.settle(
            [finish.Ended(job, outcome)], now=0.0, worker_id=1, dumps=json_codec.dumps
        )
        assert set(drive.run(flow, self.executor, sql).changed) == {job.id}

    def wal(self) -> int:
        ((position,),) = self.query(
            "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        )
        return int(position)


@pytest.fixture
def holder(dsn: str) -> Iterator[Holder]:
    holder = Holder(dsn)
    holder.query("select procrastinate_defer_job('task')")
    yield holder
    holder.connection.close()


def failure(attempt: int) -> dict[str, Any]:
    """An entry as it is stored for a task that fails some frames deep."""
    frame = (
        f'  File "/srv/shop/orders.py", line {attempt}, in work\n    raise_something({attempt})\n'
    )
    return {
        "attempt": attempt,
        "at": "2026-01-02T03:04:05+00:00",
        "type": "shop.errors.OutOfStock",
        "message": f"order {attempt} cannot be delivered before the end of the month",
        "traceback": "Traceback (most recent call last):\n" + frame * 15,
    }


@pytest.fixture
def lonely() -> Iterator[Holder]:
    """The same on a server that nobody else writes on, so that all WAL is ours."""
    with procrastinate_embedded.server(durable=False, settings={"autovacuum": "off"}) as server:
        dsn = server.create_database()
        with procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open() as app:
            app.schema_manager.apply_schema()
        holder = Holder(dsn)
        holder.query("select procrastinate_defer_job('task')")
        yield holder
        holder.connection.close()


@pytest.mark.slow
def test_the_thousandth_attempt_writes_hardly_more_than_the_tenth(lonely: Holder) -> None:
    wal: dict[int, list[int]] = {10: [], 1_000: []}
    for attempt in range(1, 1_004):
        job = lonely.claim()
        before = lonely.wal()
        lonely.settle(job, Requeued(error=failure(attempt)))
        for about, written in wal.items():
            if about - 4 <= attempt <= about + 3:
                written.append(lonely.wal() - before)

    tenth, thousandth = (statistics.median(written) for written in wal.values())
    assert thousandth <= 3 * tenth
    ((size, count),) = lonely.query(
        "select pg_column_size(errors), jsonb_array_length(errors) from procrastinate_jobs"
    )
    assert (size < 10_000, count) == (True, 20)


entries = st.fixed_dictionaries(
    {"attempt": st.integers(1, 99)},
    optional={
        "message": st.sampled_from(["x", "é"]),
        "traceback": st.sampled_from(["", "Traceback"]),
        "retry_error": st.just({"type": "TypeError", "traceback": "long"}),
        "omitted": st.integers(0, 9) | st.just("many"),
    },
)
oddities = st.sampled_from(["text", 3, None, [], {}])


@given(st.none() | st.lists(entries | oddities, max_size=60), st.none() | entries, st.booleans())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_memory_keeps_the_errors_that_postgresql_keeps(
    holder: Holder, before: list[Any] | None, error: dict[str, Any] | None, aborted: bool
) -> None:
    """Whatever may stand in the column by hand, and whichever entries are added."""
    job = holder.claim()
    holder.query(
        "update procrastinate_jobs set errors = %s, abort_requested = %s",
        None if before is None else json.dumps(before),
        aborted,
    )
    holder.settle(job, Requeued(error=error))
    ((stored,),) = holder.query("select errors::text from procrastinate_jobs")
    holder.query(
        "update procrastinate_jobs set status = 'todo', worker_id = null, abort_requested = false"
    )

    after = None if stored is None else json.loads(stored)
    added = [] if error is None else [json.dumps(error)]
    if aborted:
        added.append(json.dumps(after[-1]))
        assert after[-1]["type"] == ABORTED_TYPE
    listed = None if before is None else tuple(jsonb(json.dumps(each)) for each in before)
    expected = errors_after(listed, *added)
    assert after == (None if expected is None else [json.loads(each) for each in expected])
    assert after is None or not added or len(after) <= 20


@pytest.mark.parametrize("odd", ["{}", '"text"', "3", "null", "[]", "[[]]"])
def test_a_job_ends_whatever_was_made_of_its_errors_by_hand(holder: Holder, odd: str) -> None:
    """Before there was a check of it."""
    holder.query("alter table procrastinate_jobs drop constraint procrastinate_jobs_row_check")
    job = holder.claim()
    holder.query("update procrastinate_jobs set errors = %s", odd)
    holder.settle(job, Finished(Status.FAILED, failure(1)))
    ((status, last),) = holder.query(
        "select status::text, errors -> -1 ->> 'type' from procrastinate_jobs"
    )
    assert (status, last) == ("failed", "shop.errors.OutOfStock")


def test_no_claim_carries_the_errors() -> None:
    claims = [each for each in load().values() if each.name.startswith("claim")]
    assert claims
    assert [each.name for each in claims if "errors" in each.text] == []


@pytest.mark.parametrize("name", [ABORTED_TYPE, LOST_TYPE])
def test_the_types_that_statements_enter_exist(name: str) -> None:
    module, _, qualname = name.rpartition(".")
    kind = getattr(importlib.import_module(module), qualname)
    assert issubclass(kind, procrastinate.ProcrastinateException)


def test_there_is_a_reason_for_each_way_in_which_a_lost_job_ends() -> None:
    assert set(WHY_LOST) == {Status.FAILED, Status.ABORTED, Status.CANCELLED}


def test_no_statement_holds_prose_for_people() -> None:
    """It is in `model.outcome`, where what the worker says is too."""
    names = ("settle_jobs", "recover_jobs")
    texts = [load()[name].text for name in names]
    assert [
        word for word in ("worker died", "abortion", "WorkerLost") for text in texts if word in text
    ] == []
