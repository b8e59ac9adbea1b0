"""Deferring: what is inserted, what is refused before the database, and transactions."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

import procrastinate
from procrastinate import (
    AlreadyEnqueued,
    AppNotOpen,
    InvalidArguments,
    InvalidOption,
    InvalidTimestamp,
    Status,
    TaskNotFound,
    UnboundTaskError,
)
from procrastinate.app import deferring
from procrastinate.app.deferring import new_job
from procrastinate.model.job import NewJob
from procrastinate.storage.defer import defer_jobs
from procrastinate.storage.statements import Statements
from procrastinate.testing import InMemoryConnector


@pytest.fixture
def memory() -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector())


def add(a: int, b: int = 2) -> None: ...


def test_a_job_carries_the_tasks_options_and_those_of_configure(memory: procrastinate.App) -> None:
    task = memory.task(name="add", queue="q", priority=1, lock="l", queueing_lock="ql")(add)
    first = task.defer(a=1)
    second = task.configure(
        queue="other", priority=9, lock=None, queueing_lock="x", task_kwargs={"a": 5}
    ).defer(b=3)

    one, two = memory.job_manager.get_job(first), memory.job_manager.get_job(second)
    assert (one.task_name, one.queue, one.priority, one.lock, one.queueing_lock) == (
        *("add", "q", 1, "l", "ql"),
    )
    assert (two.queue, two.priority, two.lock, two.queueing_lock) == ("other", 9, None, "x")
    assert (one.task_kwargs, two.task_kwargs) == ({"a": 1}, {"a": 5, "b": 3})
    assert (one.status, one.attempts, one.errors) == (Status.TODO, 0, [])


def test_a_task_stays_the_function(memory: procrastinate.App) -> None:
    @memory.task
    def double(n: int) -> int:
        """Twice as much."""
        return 2 * n

    assert double(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")
    assert double.name.endswith("test_deferring.test_a_task_stays_the_function.<locals>.double")


@pytest.mark.parametrize("how", [["tasks.py"], ["-m", "tasks"]])
def test_a_task_of_a_script_is_named_as_a_worker_would_import_it(
    tmp_path: Path, how: list[str]
) -> None:
    (tmp_path / "tasks.py").write_text(
        "import procrastinate\nfrom procrastinate.testing import InMemoryConnector\n"
        "app = procrastinate.App(connector=InMemoryConnector())\n"
        "@app.task\ndef hello(): ...\nprint(hello.name)\n"
    )
    said = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout

    assert said == "tasks.hello\n"


def test_positional_arguments_are_stored_by_name(memory: procrastinate.App) -> None:
    job_id = memory.task(add).defer(1, b=3)

    assert memory.job_manager.get_job(job_id).task_kwargs == {"a": 1, "b": 3}


def test_a_batch_returns_its_ids_in_the_order_given(sync_app: procrastinate.App) -> None:
    ids = sync_app.task(add).batch_defer(*[{"a": n} for n in range(7000)])

    assert ids == sorted(ids)
    jobs = sync_app.job_manager.list_jobs(limit=10_000)
    assert [(job.id, job.task_kwargs["a"]) for job in jobs] == list(
        zip(ids, range(7000), strict=True)
    )
    assert sync_app.task(name="none")(add).batch_defer() == []


@pytest.mark.parametrize("way", ["one text", "a text for each", "among others"])
@pytest.mark.parametrize("delay", [{}, {"schedule_in": {"seconds": 30}}])
def test_arguments_of_a_batch_are_stored_alike_however_they_travel(
    sync_app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    delay: dict[str, Any],
) -> None:
    if way != "one text":
        monkeypatch.setattr(deferring, "ARRAY_BYTES", 0)
    sent: list[str] = []
    call = Statements.__call__
    monkeypatch.setattr(
        Statements,
        "__call__",
        lambda *args, **more: sent.append(args[1].name) or call(*args, **more),
    )
    values = [{"é": ["\\", '"', 1e22, -0.5]}, None, "a,b]", [[]], 10**30]
    task = sync_app.configure_task("send", queue="mail", priority=3, lock="L", **delay)
    batch = [{"n": n, "value": value} for n, value in enumerate(values)]
    if way == "among others":
        new = [new_job(task.options, kwargs, sync_app.connector) for kwargs in batch]
        *ids, _ = sync_app._gateway.run(defer_jobs([*new, NewJob("other")]))
    else:
        ids = task.batch_defer(*batch)

    jobs = [job for job in sync_app.job_manager.list_jobs() if job.task_name == "send"]
    assert sent[0] == ("defer_jobs" if way == "among others" else "defer_alike")
    assert [(job.id, job.task_kwargs) for job in jobs] == [
        (id, {"n": n, "value": value})
        for n, (id, value) in enumerate(zip(ids, values, strict=True))
    ]
    assert {(job.task_name, job.queue, job.priority, job.lock) for job in jobs} == {
        ("send", "mail", 3, "L")
    }
    moments = {job.scheduled_at for job in jobs}
    assert len(moments) == 1
    assert (moments == {None}) is (not delay)


def test_the_bad_arguments_of_a_batch_are_named_and_nothing_is_deferred(
    sync_app: procrastinate.App,
) -> None:
    task = sync_app.configure_task("send")
    for bad, why in (("\0", "'two' of task send contains a NUL"), (set(), "'two' of task send is")):
        with pytest.raises(InvalidArguments, match=why):
            task.batch_defer({"one": 1}, {"one": 1, "two": bad}, {"one": 1})
    assert list(sync_app.job_manager.list_jobs()) == []


def test_a_batch_with_a_clash_inserts_nothing(sync_app: procrastinate.App) -> None:
    task = sync_app.task(add)
    task.configure(queueing_lock="x").defer(a=1)

    with pytest.raises(AlreadyEnqueued, match="'x'"):
        task.configure(queueing_lock="x").batch_defer({"a": 2}, {"a": 3})
    with pytest.raises(AlreadyEnqueued, match="'x'"):
        task.configure(queueing_lock="x").defer(a=2)
    assert len(sync_app.job_manager.list_jobs()) == 1


def test_times(sync_app: procrastinate.App) -> None:
    task = sync_app.task(add)
    at = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    ids = [
        task.configure(schedule_at=at).defer(a=1),
        task.configure(schedule_in=timedelta(hours=1)).defer(a=1),
        task.configure(schedule_in={"minutes": 90}).defer(a=1),
        task.configure(schedule_in={"hours": -1}).defer(a=1),
    ]
    exact, hour, ninety, past = [sync_app.job_manager.get_job(id) for id in ids]

    assert exact.scheduled_at == at
    for job, delta in ((hour, 60), (ninety, 90), (past, -60)):
        assert job.scheduled_at is not None
        assert job.deferred_at is not None
        waits = job.scheduled_at - job.deferred_at
        assert abs(waits - timedelta(minutes=delta)) < timedelta(seconds=1)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"schedule_at": datetime(2030, 1, 1)}, InvalidTimestamp, "time zone"),
        ({"schedule_at": "tomorrow"}, InvalidTimestamp, "'tomorrow'"),
        ({"schedule_in": 5}, InvalidOption, "schedule_in .* 5"),
        ({"schedule_in": {"fortnights": 1}}, InvalidOption, "fortnights"),
        ({"schedule_in": {"days": 10**9}}, InvalidOption, "schedule_in"),
        ({"schedule_in": {"hours": float("nan")}}, InvalidOption, "schedule_in .* nan"),
        ({"schedule_in": {"days": 900_000}}, InvalidOption, "schedule_in .* 1000 years"),
        ({"schedule_in": {"days": -900_000}}, InvalidOption, "schedule_in .* 1000 years"),
        ({"schedule_at": datetime.max.replace(tzinfo=UTC)}, InvalidTimestamp, "9999-12-31"),
        ({"schedule_at": datetime.min.replace(tzinfo=UTC)}, InvalidTimestamp, "0001-01-01"),
        (
            {"schedule_at": datetime.now(UTC), "schedule_in": {"days": 1}},
            InvalidOption,
            "exclude each other",
        ),
        ({"queue": ""}, InvalidOption, "queue"),
        ({"queue": "q" * 129}, InvalidOption, "queue .* 128"),
        ({"priority": 2**40}, InvalidOption, "priority"),
        ({"lock": "a\0b"}, InvalidOption, "lock .* NUL"),
        ({"queueing_lock": 7}, InvalidOption, "queueing_lock"),
        ({"task_kwargs": [1]}, InvalidArguments, "mapping"),
    ],
)
def test_a_bad_option_is_refused_by_name(
    memory: procrastinate.App, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        memory.task(add).configure(**options)


class Unprintable:
    pass


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "'a'"),
        ({"a": 1, "c": 2}, "'c'"),
        ({"a": Unprintable()}, "'a' .* not JSON"),
        ({"a": float("nan")}, "'a' .* not JSON"),
        ({"a": 1, "b": "nul \0"}, "'b' .* NUL"),
        ({"a": {"deep": ["\0"]}}, "'a' .* NUL"),
        ({"a": 1, "b": "\udcff"}, "'b' .* not JSON"),
    ],
)
def test_bad_arguments_are_refused_by_name_before_the_database(
    memory: procrastinate.App, kwargs: dict[str, Any], says: str
) -> None:
    task = memory.task(add)
    with pytest.raises(InvalidArguments, match=says):
        task.defer(**kwargs)
    with pytest.raises(InvalidArguments, match=says):
        task.batch_defer({"a": 1}, kwargs)
    assert memory.job_manager.list_jobs() == []


def test_an_escaped_nul_that_is_plain_text_is_fine(sync_app: procrastinate.App) -> None:
    job_id = sync_app.task(add).defer(a="\\u0000")  # type: ignore[arg-type]

    assert sync_app.job_manager.get_job(job_id).task_kwargs == {"a": "\\u0000"}


def test_a_megabyte_of_arguments_arrives(sync_app: procrastinate.App) -> None:
    text = "é" * 1_000_000
    job_id = sync_app.task(add).defer(a=text)  # type: ignore[arg-type]

    assert sync_app.job_manager.get_job(job_id).task_kwargs == {"a": text}


def test_what_only_the_database_can_refuse_names_the_task(dsn: str) -> None:
    connector = procrastinate.Psycopg2Connector(dsn=dsn, json_dumps=lambda value: "{broken")
    with (
        procrastinate.App(connector=connector).open() as app,
        pytest.raises(InvalidArguments, match="add"),
    ):
        app.task(name="add")(add).defer(a=1)


def test_an_app_that_is_not_open_says_so(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    task = app.task(add)
    with pytest.raises(AppNotOpen, match=r"app\.open\(\)"):
        task.defer(a=1)
    with app.open():
        task.defer(a=1)
    with pytest.raises(AppNotOpen):
        task.defer(a=1)


async def test_an_app_open_for_synchronous_use_says_what_asynchronous_calls_need(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
    task = app.task(add)
    with app.open():
        assert task.defer(a=1) > 0
        with pytest.raises(AppNotOpen, match="open_async"):
            await task.defer_async(a=1)


async def test_synchronous_calls_work_whatever_half_is_open(app: procrastinate.App) -> None:
    task = app.task(add)

    ids = [await task.defer_async(a=1), task.defer(a=2)]
    assert [job.id for job in app.job_manager.list_jobs()] == ids


async def test_asynchronous_calls_work_on_a_synchronous_connector(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    async with app.open_async():
        job_id = await app.task(add).defer_async(a=1)
        assert (await app.job_manager.get_job_async(job_id)).task_kwargs == {"a": 1}


def test_threads_share_an_app(sync_app: procrastinate.App) -> None:
    task = sync_app.task(add)
    ids: list[int] = []

    def work() -> None:
        ids.extend(task.defer(a=n) for n in range(20))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(ids)) == 320 == len(sync_app.job_manager.list_jobs())


@pytest.mark.parametrize("commits", [True, False])
def test_a_psycopg2_transaction_decides(
    sync_app: procrastinate.App, dsn: str, commits: bool
) -> None:
    task = sync_app.task(add)
    connection = psycopg2.connect(dsn)
    job_id = task.configure(connection=connection, queueing_lock="q").defer(a=1)
    with pytest.raises(AlreadyEnqueued):
        task.configure(connection=connection, queueing_lock="q").defer(a=2)
    ids = task.configure(connection=connection).batch_defer({"a": 1}, {"a": 2})
    assert sync_app.job_manager.get_job(job_id, connection=connection).task_kwargs == {"a": 1}
    assert sync_app.job_manager.list_jobs() == []
    connection.commit() if commits else connection.rollback()
    connection.close()

    expected = [job_id, *ids] if commits else []
    assert [job.id for job in sync_app.job_manager.list_jobs()] == expected


@pytest.mark.parametrize("kind", ["connection", "session"])
def test_an_sqlalchemy_transaction_decides(dsn: str, kind: str) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(dsn)
    )
    app = procrastinate.App(connector=procrastinate.SQLAlchemyPsycopg2Connector())
    task = app.task(add)
    with app.open(engine):
        owner = engine.connect() if kind == "connection" else Session(engine)
        with owner as transaction:
            task.configure(connection=transaction).defer(a=1)
            transaction.rollback()
            task.configure(connection=transaction).defer(a=2)
            assert app.job_manager.list_jobs() == []
            transaction.commit()
        jobs = app.job_manager.list_jobs()
    engine.dispose()

    assert [job.task_kwargs for job in jobs] == [{"a": 2}]


async def test_an_aiopg_transaction_decides(app: procrastinate.App, dsn: str) -> None:
    import aiopg

    task = app.task(add)
    async with aiopg.connect(dsn) as connection:
        for ending, n in (("ROLLBACK", 1), ("COMMIT", 2)):
            async with connection.cursor() as cursor:
                await cursor.execute("BEGIN")
            await task.configure(connection=connection).defer_async(a=n)
            assert await app.job_manager.list_jobs_async() == []
            async with connection.cursor() as cursor:
                await cursor.execute(ending)

    assert [job.task_kwargs for job in await app.job_manager.list_jobs_async()] == [{"a": 2}]


def test_a_connection_of_the_wrong_kind_is_refused(sync_app: procrastinate.App) -> None:
    with pytest.raises(InvalidOption, match="connection"):
        sync_app.task(add).configure(connection=object()).defer(a=1)


def test_an_unknown_name_may_be_deferred_unless_refused(memory: procrastinate.App) -> None:
    job_id = memory.configure_task("elsewhere").defer(anything=1)

    assert memory.job_manager.get_job(job_id).task_name == "elsewhere"
    with pytest.raises(TaskNotFound, match="'elsewhere'"):
        memory.configure_task("elsewhere", allow_unknown=False)


def test_a_blueprints_task_defers_through_the_app_that_took_it_up(
    memory: procrastinate.App,
) -> None:
    inner, outer = procrastinate.Blueprint(), procrastinate.Blueprint()
    task = inner.task(name="add", aliases=["plus"])(add)
    with pytest.raises(UnboundTaskError, match="add_tasks_from"):
        task.defer(a=1)
    outer.add_tasks_from(inner, namespace="in")
    with pytest.raises(UnboundTaskError):
        task.defer(a=1)
    memory.add_tasks_from(outer, namespace="out")

    assert task.name == "out:in:add"
    job = memory.job_manager.get_job(task.defer(a=1))
    assert job.task_name == "out:in:add"
    assert sorted(memory.tasks) == ["out:in:add", "out:in:plus"]
    assert memory.tasks["out:in:plus"].name == "out:in:add"


def test_an_alias_keeps_old_jobs_runnable(memory: procrastinate.App) -> None:
    task = memory.task(name="new")(add)
    memory.add_task_alias(task, "old")

    assert memory.configure_task("old", allow_unknown=False).options.task_name == "new"


def test_a_task_that_came_with_a_blueprint_gets_an_alias_on_the_app(
    memory: procrastinate.App,
) -> None:
    blueprint = procrastinate.Blueprint()
    task = blueprint.task(name="add")(add)
    other = memory.task(name="add")(lambda: None)
    memory.add_tasks_from(blueprint, namespace="in")

    memory.add_task_alias(task, "old")
    memory.add_task_alias(other, "other")

    assert memory.tasks["old"].name == "in:add"
    assert memory.tasks["other"].name == "add"


def test_a_blueprint_passes_a_late_alias_on(memory: procrastinate.App) -> None:
    inner, outer = procrastinate.Blueprint(), procrastinate.Blueprint()
    task = inner.task(name="add")(add)
    outer.add_tasks_from(inner, namespace="in")
    memory.add_tasks_from(outer, namespace="out")

    inner.add_task_alias(task, "old")

    assert memory.tasks["out:in:old"].name == "out:in:add"
    with pytest.raises(procrastinate.TaskAlreadyRegistered, match="'out:in:old'"):
        inner.add_task_alias(task, "old")


def test_an_alias_is_for_a_task_that_the_app_knows(memory: procrastinate.App) -> None:
    blueprint = procrastinate.Blueprint()
    task = blueprint.task(name="add")(add)
    with pytest.raises(TaskNotFound, match="'add'"):
        memory.add_task_alias(task, "old")


def test_a_task_shows_the_defaults_of_its_jobs(memory: procrastinate.App) -> None:
    task = memory.task(
        name="add",
        aliases=["plus"],
        queue="sums",
        priority=3,
        lock="l",
        queueing_lock="q",
        retry=2,
    )(add)

    assert (task.aliases, task.queue, task.priority) == (("plus",), "sums", 3)
    assert (task.lock, task.queueing_lock, task.pass_context) == ("l", "q", False)
    assert task.retry_strategy == procrastinate.RetryStrategy(max_attempts=2)
    assert memory.task(name="other")(add).retry_strategy is None


def test_a_task_is_configured_by_name(memory: procrastinate.App) -> None:
    memory.configure_task(name="add", queue="sums").defer(a=1)

    assert [(job.task_name, job.queue) for job in memory.job_manager.list_jobs()] == [
        ("add", "sums")
    ]
    with pytest.raises(InvalidOption, match="one task"):
        memory.configure_task("add", name="add")  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="task name"):
        memory.configure_task()  # type: ignore[call-overload]


def test_the_tasks_of_an_app_are_looked_up_as_in_a_dict(memory: procrastinate.App) -> None:
    task = memory.task(name="add")(add)

    assert "add" in memory.tasks
    assert "elsewhere" not in memory.tasks
    assert memory.tasks.get("elsewhere") is None
    assert memory.tasks.get("elsewhere", task) is task
    found = memory.tasks.get("add")
    assert found is not None
    assert found.name == "add"


def test_tasks_with_one_name_are_refused(memory: procrastinate.App) -> None:
    memory.task(name="one")(add)
    with pytest.raises(procrastinate.TaskAlreadyRegistered, match=r"'one' .*test_deferring\.add"):
        memory.task(name="one")(lambda: None)


def test_the_job_manager_changes_and_lists_jobs(
    sync_app: procrastinate.App, query: Callable[..., Any]
) -> None:
    task = sync_app.task(add)
    ids = task.batch_defer({"a": 1}, {"a": 2}, {"a": 3})
    manager = sync_app.job_manager

    assert manager.cancel_job_by_id(ids[0])
    assert not manager.cancel_job_by_id(ids[0])
    assert manager.cancel_job_by_id(ids[1], delete_job=True)
    assert not manager.cancel_job_by_id(10**9)
    assert manager.retry_job_by_id(ids[0], priority=3, queue="again")
    with pytest.raises(procrastinate.JobNotFound, match=str(ids[1])):
        manager.get_job(ids[1])
    job = manager.get_job(ids[0])
    assert (job.status, job.priority, job.queue) == (Status.TODO, 3, "again")
    assert [(counts.name, counts.todo) for counts in manager.list_queues()] == [
        ("again", 1),
        ("default", 1),
    ]
    assert [job.id for job in manager.list_jobs(after_id=ids[0], limit=1)] == [ids[2]]
    assert manager.list_jobs(status="succeeded") == []
    with pytest.raises(InvalidOption, match="status"):
        manager.list_jobs(status="finished")
    for filters in ({"queue": 3}, {"task": "a\0"}, {"after_id": "x"}, {"worker_id": "x"}):
        with pytest.raises(InvalidOption, match=next(iter(filters))):
            manager.list_jobs(**filters)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="seconds_since_heartbeat"):
        manager.get_stalled_jobs(seconds_since_heartbeat=float("inf"))
    query(
        "update procrastinate_jobs set status = 'succeeded', finished_at = now() - interval '2 d'"
    )
    assert manager.delete_old_jobs(older_than=timedelta(days=3)) == 0
    assert manager.delete_old_jobs(older_than=timedelta(days=1)) == 2


@pytest.mark.parametrize("method", ["list_queues", "list_tasks", "list_locks"])
def test_the_job_manager_counts_inside_the_callers_transaction(
    sync_app: procrastinate.App, dsn: str, method: str
) -> None:
    task = sync_app.task(name="add", lock="l")(add)
    connection = psycopg2.connect(dsn)
    try:
        task.configure(connection=connection).defer(a=1)
        inside = getattr(sync_app.job_manager, method)(connection=connection)
        assert [each.todo for each in inside] == [1]
        assert getattr(sync_app.job_manager, method)() == []
    finally:
        connection.close()


def test_cancelling_takes_positional_arguments(memory: procrastinate.App) -> None:
    job_id = memory.task(add).defer(a=1)
    assert memory.job_manager.cancel_job_by_id(job_id, False, True)
    assert memory.job_manager.list_jobs() == []


def test_arguments_that_json_loads_refuses_are_an_error_of_ours(dsn: str) -> None:
    connector = procrastinate.Psycopg2Connector(dsn=dsn, json_loads=lambda text: 1 / 0)
    with procrastinate.App(connector=connector).open() as app:
        job_id = app.configure_task("t").defer(a=1)
        with pytest.raises(InvalidArguments, match="json_loads: division by zero"):
            app.job_manager.get_job(job_id)
        assert app.job_manager.get_job_status(job_id) == "todo"


def test_a_list_shows_arguments_that_json_loads_refuses_as_plain_json(dsn: str) -> None:
    """One job that cannot be decoded does not hide a page of others."""

    def refusing_dates(text: str) -> Any:
        value = json.loads(text)
        return {"date": date.fromisoformat(value["date"])} if "date" in value else value

    connector = procrastinate.Psycopg2Connector(dsn=dsn, json_loads=refusing_dates)
    with procrastinate.App(connector=connector).open() as app:
        app.configure_task("t").batch_defer({"date": "2026-01-02"}, {"date": "no date"}, {"a": 1})
        assert [job.task_kwargs for job in app.job_manager.list_jobs()] == [
            {"date": date(2026, 1, 2)},
            {"date": "no date"},
            {"a": 1},
        ]
