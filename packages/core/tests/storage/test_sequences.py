"""New jobs get new ids, or the reason is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.storage.sequences import check_sequences

Query = Callable[..., list[tuple[Any, ...]]]


def draws(query: Query, *, table: str = "jobs") -> str:
    """Return the name of what draws ids."""
    ((name,),) = query(
        "select relname::text from pg_class where relkind = 'S' and relname ~"
        " ('^procrastinate_' || %s) and relnamespace = current_schema()::regnamespace",
        table,
    )
    return str(name)


def test_rows_that_came_without_their_sequence_are_told_with_what_undoes_it(
    sync_app: procrastinate.App, query: Query
) -> None:
    """As a logical replica has them: its sequences are where they began."""
    check, run = check_sequences, sync_app._gateway.run
    task = sync_app.configure_task("task")
    before = task.batch_defer(*[{}] * 200)
    query("insert into procrastinate_workers (name) values ('one'), ('two')")
    run(check())
    query("update procrastinate_jobs set status = 'doing', worker_id = 7 where id = %s", before[0])
    for table, last in (("jobs", ""), ("workers", "7 is taken")):
        query(f"select setval('{draws(query, table=table)}', 1, false)")
        with pytest.raises(errors.SchemaError, match=f"gives 1, and .*{last}") as caught:
            run(check())
        for statement in re.findall(r"`(.*?)`", str(caught.value)):
            query(statement)
    run(check())
    assert task.defer() > max(before)


@pytest.mark.one_partition("with many, an id may be new although its number is not")
def test_a_job_that_is_given_the_id_of_another_says_where_to_look(
    sync_app: procrastinate.App, query: Query
) -> None:
    first = sync_app.configure_task("task").defer()
    query(f"select setval('{draws(query)}', {first}, false)")
    with pytest.raises(errors.UniqueViolation, match="`procrastinate schema --check` says what"):
        sync_app.configure_task("task").defer()


SWALLOW = """
create function swallow() returns trigger language plpgsql as
$$ begin return case when new.args = '{}' then new end; end $$;
create trigger swallow before insert on procrastinate_jobs for each row execute function swallow()
"""


@pytest.mark.parametrize("lock", [None, "a"])
def test_rows_that_a_trigger_swallows_were_not_deferred_and_have_no_twin(
    sync_app: procrastinate.App, query: Query, lock: str | None
) -> None:
    """A batch of which it swallows one is refused as a whole, also one of different jobs."""
    query(SWALLOW)
    task = sync_app.configure_task("task", lock=lock)
    kept_out = "kept a job from being inserted"
    for refused in (lambda: task.defer(x=1), lambda: task.batch_defer({}, {"x": 1})):
        with pytest.raises(errors.ConnectorException, match=kept_out):
            refused()
    jobs = [{"task_name": name, "args": {"x": 1} if name == "b" else {}} for name in "ab"]
    for some in (jobs, [{**job, "lock": lock} for job in jobs]):
        with pytest.raises(psycopg2.Error, match=kept_out):
            query("select * from procrastinate_defer_jobs(%s)", json.dumps(some))
    assert query("select count(*) from procrastinate_jobs") == [(0,)]
    assert len(task.batch_defer({}, {})) == 2
