"""The in-memory connector knows what the SQL files know."""

from __future__ import annotations

import re

import pytest

from procrastinate import App, drive
from procrastinate.connector import Query
from procrastinate.drive import Request
from procrastinate.errors import ConnectorException, InvalidData
from procrastinate.model.job import NewJob
from procrastinate.storage import defer, migrating, schema, statements
from procrastinate.storage.rows import ARGS
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector
from procrastinate.testing._engine.claim import CLAIMED_COLUMNS
from procrastinate.testing._engine.store import STATEMENTS


def test_every_named_statement_has_a_function_and_no_function_is_left_over() -> None:
    assert sorted(STATEMENTS) == sorted(statements.load())


@pytest.mark.parametrize("name", ["claim_full_of_many", "claim_unlocked_level_of_one_wary"])
def test_an_empty_claim_has_as_many_columns_as_in_the_sql(name: str) -> None:
    columns = re.search(
        r"returning (job\.id, job\.queue_name,.*?) as meta",
        statements.load()[name].text,
        re.DOTALL,
    )
    assert columns is not None
    one_each = re.sub(r"\bcase\b.*?\bend\b", "job.moment", columns[1], flags=re.DOTALL)
    assert one_each.count("job.") == CLAIMED_COLUMNS


def test_a_statement_of_the_users_own_is_refused_by_name() -> None:
    with (
        InMemoryConnector().sync_connector().session() as executor,
        pytest.raises(ConnectorException, match="not 'mine'") as caught,
    ):
        executor.execute(Query("mine", "select 1"))
    assert caught.value.sqlstate == "0A000"


def test_the_schema_is_always_at_the_latest_version() -> None:
    sql = Statements()
    with InMemoryConnector().sync_connector().session(transaction=True) as executor:
        steps = migrating.migrate()
        assert drive.run_steps(steps, lambda step: drive.run(step.flow, executor, sql)) == []
        assert drive.run(schema.check_schema(), executor, sql).exists is True


@pytest.mark.parametrize(
    "param, value, sqlstate",
    [
        ("queue_name", "nul \0", "22021"),
        ("task_name", "half a pair \ud800", "22021"),
        ("queue_name", "x" * 129, "23514"),
        ("priority", 2**31, "22003"),
        ("args", "{", "22P02"),
        ("args", '{"x": NaN}', "22P02"),
        ("args", '{"x": "\\u0000"}', "22P05"),
        ("args", '{"x": "\\ud800"}', "22P02"),
        ("args", '{"x": 1e200000}', "22003"),
        ("schedule_in_us", 2**62, "22008"),
    ],
)
def test_values_that_postgresql_refuses_are_refused_as_invalid_data(
    param: str, value: object, sqlstate: str
) -> None:
    query = _defer_query(param, value)
    with (
        InMemoryConnector().sync_connector().session() as executor,
        pytest.raises(InvalidData) as caught,
    ):
        executor.execute(query)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize(
    "param, value, constraint",
    [
        ("args", "[]", "procrastinate_jobs_args_check"),
        ("queue_name", "", "procrastinate_jobs_names_check"),
        ("task_name", "", "procrastinate_jobs_names_check"),
    ],
)
def test_check_constraints_are_named(param: str, value: str, constraint: str) -> None:
    query = _defer_query(param, value)
    with (
        InMemoryConnector().sync_connector().session() as executor,
        pytest.raises(ConnectorException) as caught,
    ):
        executor.execute(query)
    assert (caught.value.sqlstate, caught.value.constraint) == ("23514", constraint)


def _defer_query(param: str, value: object) -> Query:
    job = NewJob("task", schedule_in_us=1 if param == "schedule_in_us" else None)
    query = Statements()(next(defer.defer_job(job)))
    return Query(query.name, query.sql, {**query.params, param: value})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "text, stored",
    [
        ('{"bb":1,"a":[null,true,"é\\n"],"a":2}', '{"a": 2, "bb": 1}'),
        ('{"x":1e22}', '{"x": 10000000000000000000000}'),
        ('{"x":1.50,"y":-0.0,"z":1e-3}', '{"x": 1.50, "y": 0.0, "z": 0.001}'),
        ('{"x":{},"y":[]}', '{"x": {}, "y": []}'),
    ],
)
def test_arguments_come_back_as_jsonb_stores_them(text: str, stored: str) -> None:
    sql = Statements()
    with InMemoryConnector().sync_connector().session() as executor:
        job_id = drive.run(defer.defer_job(NewJob("task", args=text)), executor, sql)
        assert executor.execute(sql(Request("get_job", id=job_id)))[0][ARGS] == stored


@pytest.mark.parametrize("queueing_lock", [None, "q"])
def test_a_partition_key_is_accepted_and_all_jobs_are_together(queueing_lock: str | None) -> None:
    app = App(connector=InMemoryConnector())
    task = app.configure_task("task", partition_key="k", lock="l", queueing_lock=queueing_lock)
    with app.open():
        ids = [task.defer()]
        if queueing_lock is None:
            ids += task.batch_defer({}, {})
        assert [(job.id, job.lock) for job in app.job_manager.list_jobs()] == [
            (job_id, "l") for job_id in ids
        ]
