"""One row that nobody should have made fails alone: the queue, and who looks at it, go on.

Each is tried twice. With the table's checks it is refused, or harmless; without them, as a row from
before there were any, it is harmless.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import errors
from procrastinate.model.job import Status

Query = Callable[..., list[tuple[Any, ...]]]

EXTREMES = {
    "smallint": ["32767", "-32768", "0", "-1"],
    "integer": ["2147483647", "-2147483648", "-1", "0"],
    "bigint": ["9223372036854775807", "-9223372036854775808", "-1", "0"],
    "timestamp with time zone": [
        *("'infinity'", "'-infinity'", "'4000-01-01 BC'", "'200000-01-01'", "'0001-01-01'"),
        "'9999-12-31 23:59:59.999999'",
    ],
    "text": ["''", "repeat('x', 6400)", "repeat('ä', 600)", "E'a\\nb\\u001b[31m'", r"'%s{}\\'"],
    "boolean": ["true"],
    "jsonb": [
        *("'{}'", "'[]'", "'3'", "'null'", "'[[1]]'", "'[null, 3, \"x\"]'", "'[{}]'"),
        '\'[{"at": 3, "attempt": [], "traceback": 7, "retry_error": 5}]\'',
        """'{"x": 1e100000}'""",
        """('{"x": ' || repeat('9', 5000) || '}')::jsonb""",
        """('{"x": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb""",
        """('[{"x": ' || repeat('9', 5000) || '}]')::jsonb""",
    ],
    "procrastinate_hold": ["'schedule'", "'lock'"],
    "procrastinate_job_status": [
        *("'doing'", "'succeeded'", "'failed'", "'cancelled'", "'aborted'"),
    ],
}
#: Not what a row may become by one mistake, but what makes it another row's.
SKIPPED = frozenset({"partition"})


def bad_values(query: Query) -> Iterator[tuple[str, str]]:
    columns = query(
        "select attname::text, format_type(atttypid, null) from pg_attribute"
        " where attrelid = 'procrastinate_jobs'::regclass and attnum > 0 and not attisdropped"
        " order by attnum"
    )
    for name, sort in columns:
        if name not in SKIPPED:
            for value in EXTREMES[sort]:
                yield name, value


def drop_checks(query: Query) -> None:
    for (name,) in query(
        "select conname::text from pg_constraint"
        " where conrelid = 'procrastinate_jobs'::regclass and contype = 'c'"
    ):
        query(f"alter table procrastinate_jobs drop constraint {name}")


def insert(query: Query, column: str, value: str, also: str = "") -> bool:
    """Insert a job with a value; return whether the table took it."""
    values = {"task_name": "'add'", "queue_name": "'default'", column: value}
    if also:
        values |= dict([also.split("=", 1)])
    try:
        query(
            f"insert into procrastinate_jobs ({', '.join(values)})"
            f" values ({', '.join(values.values())})"
        )
    except (psycopg2.errors.CheckViolation, psycopg2.DataError, psycopg2.OperationalError):
        return False
    return True


@pytest.fixture
def app(app: procrastinate.App) -> procrastinate.App:
    @app.task(name="add", lock="healthy")
    async def add(a: int = 0) -> int:
        return a

    return app


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("with_checks", [True, False])
async def test_a_bad_row_fails_alone(
    app: procrastinate.App, query: Query, with_checks: bool, report: Callable[[str], None]
) -> None:
    """The worker runs what is sound beside it, and everything can be listed."""
    if not with_checks:
        drop_checks(query)
    taken, spoilt = [], []
    for column, value in list(bad_values(query)):
        query("truncate procrastinate_jobs, procrastinate_locks, procrastinate_workers")
        if not insert(query, column, value):
            continue
        taken.append((column, value))
        try:
            await healthy_beside(app, query)
        except Exception as exc:
            spoilt.append(f"{column} = {value[:60]}: {exc!r}")
    report(f"{len(taken)} bad values were taken")
    assert not spoilt, "\n".join(spoilt)
    assert len(taken) > (25 if with_checks else 50)


async def healthy_beside(app: procrastinate.App, query: Query) -> None:
    jobs = app.job_manager
    ids = [
        await app.tasks["add"].configure(lock=lock).defer_async(a=1) for lock in (None, "a", "a")
    ]
    async with asyncio.timeout(20):
        await app.run_worker_async(wait=False, install_signal_handlers=False, concurrency=2)
        found = await jobs.list_jobs_async(id=ids)
        assert {job.status for job in found} == {Status.SUCCEEDED}
        listed = await jobs.list_jobs_async()
        assert [(len(listed),)] == query("select count(*) from procrastinate_jobs where id > 0")
        await jobs.list_jobs_async(newest_first=True)
        for counts in (jobs.list_queues_async, jobs.list_tasks_async, jobs.list_locks_async):
            assert await counts()
        await jobs.get_stalled_jobs_async(seconds_since_heartbeat=0)
        await jobs.cancel_jobs_async(status=["todo"])
        await jobs.retry_jobs_async(status=["failed", "cancelled", "aborted"])
        again = await app.tasks["add"].defer_async(a=1)
        await app.run_worker_async(wait=False, install_signal_handlers=False)
        assert await jobs.get_job_status_async(again) is Status.SUCCEEDED


@pytest.mark.parametrize(
    "column", ["attempts", "lease", "crashes", "args", "errors", "deferred_at"]
)
def test_a_row_from_before_the_checks_is_recovered_with_others(
    sync_app: procrastinate.App, query: Query, column: str
) -> None:
    """Of a dead worker's two jobs one is odd; both are taken from it."""
    from procrastinate import drive
    from procrastinate.storage import workers
    from procrastinate.storage.statements import Statements

    drop_checks(query)
    sort = query(
        "select format_type(atttypid, null) from pg_attribute"
        " where attrelid = 'procrastinate_jobs'::regclass and attname = %s",
        column,
    )[0][0]
    values = [value for value in EXTREMES[sort] if column != "args" or "{" in value]
    for value in values:
        query("truncate procrastinate_jobs")
        for odd in (value, None):
            assert insert(query, column if odd else "priority", odd or "0", also="status='doing'")
        query("update procrastinate_jobs set worker_id = 99")
        connector: Any = sync_app.connector
        with connector.session(transaction=True) as session:
            recovered = drive.run(workers.recover_jobs(timeout_us=0), session, Statements())
        assert len(recovered) == 2, value


@pytest.mark.parametrize("value", ["1e100000", "9" * 5000])
def test_arguments_that_python_cannot_decode_are_shown_with_the_reason(
    sync_app: procrastinate.App, query: Query, value: str
) -> None:
    query("select procrastinate_defer_job('odd', %s::jsonb)", f'{{"x": {value}}}')
    query("select procrastinate_defer_job('sound', '{\"x\": 1}')")
    odd, sound = sync_app.job_manager.list_jobs()
    assert (odd.task_name, dict(odd.task_kwargs), sound.task_kwargs) == ("odd", {}, {"x": 1})
    assert odd.task_kwargs.text.startswith('{"x": ')  # type: ignore[attr-defined]
    assert odd.task_kwargs.reason  # type: ignore[attr-defined]
    with pytest.raises(errors.InvalidArguments, match="cannot be decoded"):
        sync_app.job_manager.get_job(odd.id)


def test_lists_that_are_nested_too_deep_for_some_pythons_are_shown(
    sync_app: procrastinate.App, query: Query
) -> None:
    """Python 3.13 decodes them, and those before it do not."""
    text = '{"x": ' + "[" * 3_000 + "]" * 3_000 + "}"
    query("select procrastinate_defer_job('odd', %s::jsonb)", text)
    (odd,) = sync_app.job_manager.list_jobs()
    try:
        expected = json.loads(text)
    except RecursionError:
        assert odd.task_kwargs.reason  # type: ignore[attr-defined]
        assert odd.task_kwargs.text == text  # type: ignore[attr-defined]
    else:
        assert json.dumps(odd.task_kwargs) == json.dumps(expected)


def test_an_error_does_not_repeat_the_arguments(sync_app: procrastinate.App, query: Query) -> None:
    """Not even in what a traceback shows of its causes."""
    query("alter table procrastinate_jobs add constraint no_cards check (task_name <> 'pay')")
    for attempt in (
        lambda: sync_app.configure_task("pay").defer(card="4000 1234"),
        lambda: sync_app.configure_task("pay").batch_defer({"card": "4000 1234"}),
    ):
        with pytest.raises(procrastinate.InvalidArguments, match="no_cards") as caught:
            attempt()
        exc: BaseException | None = caught.value
        told = []
        while exc is not None:
            told.append(f"{exc} {json.dumps(exc.args, default=str)}")
            exc = exc.__cause__
        assert len(told) > 1
        assert [each for each in told if "4000" in each] == []


#: A task's name that is missing, in each function.
NAMELESS = (
    "select procrastinate_defer_job(null, {card})",
    "select procrastinate_defer_job(null, {card}, lock => 'a')",
    "select procrastinate_defer_job_with_key(null, 'a', {card})",
    "select procrastinate_defer_jobs(jsonb_build_array(jsonb_build_object('args', {card})))",
    (
        "select procrastinate_defer_jobs(jsonb_build_array(jsonb_build_object('args', {card})),"
        " jsonb_build_object('lock', 'a'))"
    ),
    "select procrastinate_defer_alike(jsonb_build_array({card}), jsonb_build_object())",
)


@pytest.mark.usefixtures("sync_app")
def test_a_call_from_sql_takes_null_for_a_default_and_repeats_no_arguments(query: Query) -> None:
    """NOT NULL would show the whole row, here and in the server's log."""
    for call in NAMELESS:
        with pytest.raises(psycopg2.errors.CheckViolation, match="jobs_names_check") as caught:
            query(call.format(card="jsonb_build_object('card', '4000 1234')"))
        assert "4000" not in str(caught.value)
    query("select procrastinate_defer_job('a', queue_name => null, priority => null, args => null)")
    query("select procrastinate_defer_job('a', null, null, null, 'a')")
    rows = query("select queue_name, priority, args from procrastinate_jobs order by id")
    assert rows == [("default", 0, {})] * 2


#: Values of few bytes that would be long texts, and the longest that are none.
SWOLLEN = {
    "numbers of 131,001 digits": "('{\"x\": [' || repeat('1e131000,', 300) || '1]}')::jsonb",
    "digits behind the point": "('{\"x\": [' || repeat('1e-16300,', 500) || '1]}')::jsonb",
    "in a key's value, deep": "jsonb_build_object('a', jsonb_build_object('b', ('[' || "
    "repeat('-1e131000,', 200) || '1]')::jsonb))",
    "a value that is stored compressed": "(select stored from compressed)",
}
SOUND = {
    "a number": "'{\"x\": 1e131000}'::jsonb",
    "the longest floats": "('{\"x\": [' || repeat('1e308,', 10000) || '1]}')::jsonb",
    "a text": "jsonb_build_object('x', repeat('x', 2000000))",
    "control characters": "jsonb_build_object('x', repeat(chr(1), 500000))",
}
#: How roles that may only defer can give a job arguments, or something that is kept with it.
CALLS = {
    "args": "select procrastinate_defer_job('add', {value})",
    "args with a lock": "select procrastinate_defer_job('add', {value}, lock => 'a')",
    "args of a batch": "select procrastinate_defer_jobs(jsonb_build_array(jsonb_build_object("
    "'task_name', 'add', 'args', {value})))",
    "args of a batch with locks": "select procrastinate_defer_jobs(jsonb_build_array("
    "jsonb_build_object('task_name', 'add', 'queueing_lock', 'q', 'args', {value})))",
    "args alike": "select procrastinate_defer_alike(jsonb_build_array({value}),"
    ' \'{{"task_name": "add"}}\')',
    "meta": "select procrastinate_defer_job('add', meta => {value})",
    "meta with a key": "select procrastinate_defer_job_with_key('add', 'a', meta => {value})",
    "meta of a batch": "select procrastinate_defer_jobs(jsonb_build_array(jsonb_build_object("
    "'task_name', 'add', 'meta', {value})))",
    "meta of a batch with locks": "select procrastinate_defer_jobs(jsonb_build_array("
    "jsonb_build_object('task_name', 'add', 'queueing_lock', 'q')),"
    " jsonb_build_object('meta', {value}))",
    "meta alike": "select procrastinate_defer_alike('[{{}}]',"
    " jsonb_build_object('task_name', 'add', 'meta', {value}))",
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_few_bytes_and_a_long_text_is_refused(
    sync_app: procrastinate.App, query: Query, call: str
) -> None:
    """Each claim that met such a job was cut off, and so was each list."""
    query("create table compressed (stored jsonb)")
    query(f"insert into compressed select {SWOLLEN['numbers of 131,001 digits']}")
    assert query("select pg_column_size(stored) < 1000 from compressed") == [(True,)]
    for name, value in SWOLLEN.items():
        with pytest.raises(psycopg2.errors.CheckViolation, match="args_check"):
            query(CALLS[call].format(value=value))
            raise AssertionError(name)
    for value in SOUND.values():
        query(CALLS[call].format(value=value))
        query("delete from procrastinate_jobs")


def random_text(length: int) -> str:
    """A text that the server cannot compress, so that no index can hold it."""
    return f"(select string_agg(md5(n::text), '') from generate_series(1, {length // 32}) as n)"


@pytest.mark.parametrize("column", ["lock", "queue_name"])
async def test_a_scheduled_job_that_no_index_can_hold_keeps_no_other_from_its_time(
    app: procrastinate.App, query: Query, column: str, until: Callable[..., Any]
) -> None:
    """With the checks it cannot be made, not even by the function for other languages."""
    due = "now() - interval '1 hour'"
    defer = f"select procrastinate_defer_job('add', scheduled_at => {due}, {column} => "
    with pytest.raises(psycopg2.errors.CheckViolation):
        query(f"{defer}{random_text(6400)})")
    drop_checks(query)
    values = {"task_name": "'add'", "queue_name": "'default'", column: random_text(6400)}
    query(
        f"insert into procrastinate_jobs ({', '.join(values)}, hold, scheduled_at)"
        f" values ({', '.join(values.values())}, 'schedule', {due})"
    )
    query(
        "insert into procrastinate_jobs (task_name, queue_name, hold, scheduled_at)"
        f" values ('add', 'default', 'schedule', {due})"
    )
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    assert query("select status::text from procrastinate_jobs order by id") == [
        ("todo",),
        ("succeeded",),
    ]
