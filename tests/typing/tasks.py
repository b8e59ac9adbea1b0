"""What a type checker knows of tasks: deferring is typed by the task's own function.

Never run, only checked. A line that must be an error says so to both checkers, each of which
complains if it finds none there.
"""

from __future__ import annotations

import datetime
from typing import assert_type

import sqlalchemy

import procrastinate
from procrastinate import App, Blueprint, JobContext, Statement

app = App(connector=procrastinate.Psycopg2Connector(host="somehost"))
blueprint = Blueprint()


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(queue="downloads", retry=3, aliases=["old.fetch"])
async def fetch(url: str) -> bytes:
    return url.encode()


@blueprint.task(name="tidy", pass_context=True)
def tidy(context: JobContext, folder: str) -> None:
    assert_type(context.should_abort(), bool)


def a_task_stays_the_function_that_it_was() -> None:
    assert_type(add(1, b=2), int)
    add("one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def a_coroutine_function_stays_one() -> None:
    assert_type(await fetch("http://example.org"), bytes)


def deferring_takes_the_arguments_of_the_function() -> None:
    assert_type(add.defer(a=1, b=2), int)
    assert_type(add.defer(a=1), int)
    add.defer(a="one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.defer(a=1, c=2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    add.defer()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def deferring_asynchronously_does_too() -> None:
    assert_type(await fetch.defer_async(url="http://example.org"), int)
    await fetch.defer_async(uri="x")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def the_context_is_not_an_argument_of_the_job() -> None:
    assert_type(tidy.defer(folder="/tmp"), int)
    tidy.defer(context=1, folder="/tmp")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def a_batch_gives_one_id_for_each_job() -> None:
    assert_type(add.batch_defer({"a": 1}, {"a": 2, "b": 3}), list[int])


async def a_batch_does_so_asynchronously() -> None:
    assert_type(await add.batch_defer_async({"a": 1}), list[int])


def configured_tasks_are_deferred_too() -> None:
    soon = add.configure(
        queue="other",
        priority=5,
        lock="a",
        queueing_lock="b",
        schedule_in=datetime.timedelta(seconds=5),
    )
    assert_type(soon.defer(a=1, b=2), int)
    soon.defer(a="one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    soon.defer(c=1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    add.configure(prority=5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    assert_type(add.configure(task_kwargs={"a": 1}).defer(b=2), int)


def a_job_is_a_statement_for_other_drivers() -> None:
    statement = add.configure(queue="other").statement(a=1)
    assert_type(statement, Statement)
    sql, params = statement.pyformat
    assert_type(sql, str)
    assert_type(params["task_name"], str | int | datetime.datetime | None)
    assert_type(statement.numeric_dollar[0], str)
    add.configure().statement(a="one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def a_job_goes_with_the_caller_s_transaction() -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg2://")
    with engine.begin() as connection:
        assert_type(add.configure(connection=connection).defer(a=1), int)
        add.configure(conection=connection)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


def tasks_are_configured_through_an_app() -> None:
    assert_type(app.configure_task("known").defer(a=1), int)
    assert_type(app.configure_task(add, queue="other").defer(a=1), int)
    app.configure_task(add).defer(a="x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(app.configure_task(add, task_kwargs={"a": 1}).defer(), int)


def a_periodic_task_stays_the_task_that_it_was() -> None:
    @app.periodic(cron="* * * * *", periodic_id="a", timezone="UTC", max_delay=5, queue="q")
    @app.periodic(cron="0 * * * *", task_kwargs={"name": "x"}, lock=None)
    @app.task
    def report(timestamp: int, name: str = "") -> str:
        return name

    assert_type(report(timestamp=1), str)
    assert_type(report.defer(timestamp=1, name="a"), int)
    report.defer(timestamp="now")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def periodic_options_are_known() -> None:
    app.periodic(cron=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    app.periodic(cron="* * * * *", every=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    app.periodic(cron="* * * * *", priority="x")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
