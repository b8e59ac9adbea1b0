"""What a type checker knows of results: what a function returns, without the coroutine around it.

Never run, only checked.
"""

from __future__ import annotations

import datetime
from typing import Any, assert_type

import procrastinate
from procrastinate import App, Blueprint, Job, JobContext

app = App(connector=procrastinate.AiopgConnector(host="somehost"))
blueprint = Blueprint()


@app.task(result=True)
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(result="strict", queue="downloads")
async def fetch(url: str) -> bytes:
    return url.encode()


@blueprint.task(pass_context=True, result=True)
def tidy(context: JobContext, folder: str) -> list[str]:
    return [folder]


@blueprint.task(pass_context=True, result=True)
async def tidy_async(context: JobContext, folder: str) -> list[str]:
    return [folder]


def keeping_results_is_an_option_of_two_values() -> None:
    app.task(result="sometimes")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


def a_wait_gives_what_the_function_returns() -> None:
    assert_type(add.wait_for(1), int)
    assert_type(add.wait_for(1, timeout=5), int)
    assert_type(add.wait_for(1, timeout=datetime.timedelta(seconds=5), allow_in_worker=True), int)
    assert_type(fetch.wait_for(1, timeout=None), bytes)
    assert_type(tidy.wait_for(1), list[str])
    assert_type(tidy_async.wait_for(1), list[str])
    add.wait_for("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    add.wait_for(1, timeout="soon")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def a_coroutine_gets_the_same() -> None:
    assert_type(await add.wait_for_async(1), int)
    assert_type(await fetch.wait_for_async(1, timeout=5), bytes)
    assert_type(await tidy.wait_for_async(1), list[str])
    assert_type(await tidy_async.wait_for_async(1), list[str])


def a_call_takes_the_arguments_of_the_function_and_gives_what_it_returns() -> None:
    assert_type(add.call(a=1, b=2), int)
    assert_type(add.call(1), int)
    assert_type(fetch.call(url="http://example.org"), bytes)
    assert_type(tidy.call(folder="/tmp"), list[str])
    assert_type(tidy_async.call(folder="/tmp"), list[str])
    add.call(a="one")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    add.call(c=1)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


def a_call_with_options_takes_any_arguments() -> None:
    assert_type(add.call(a=1, timeout=5), int)
    assert_type(add.call(a=1, allow_in_worker=True), int)
    assert_type(fetch.call(url="x", timeout=5, allow_in_worker=True), bytes)
    add.call(a=1, timeout="soon")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


async def a_call_of_a_coroutine_gives_the_same() -> None:
    assert_type(await add.call_async(a=1), int)
    assert_type(await fetch.call_async(url="http://example.org"), bytes)
    assert_type(await fetch.call_async(url="http://example.org", timeout=5), bytes)
    assert_type(await tidy_async.call_async(folder="/tmp", allow_in_worker=True), list[str])
    await fetch.call_async(uri="x")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]


async def configured_tasks_are_called_too() -> None:
    assert_type(add.configure(queue="other").call(a=1), int)
    assert_type(add.configure(task_kwargs={"a": 1}).call(b=2), int)
    assert_type(await fetch.configure(priority=1).call_async(url="x"), bytes)
    assert_type(await fetch.configure(task_kwargs={"url": "x"}).call_async(timeout=5), bytes)
    assert_type(tidy.configure(lock="a").call(folder="/tmp", timeout=5), list[str])
    add.configure(queue="other").call(a="one")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


async def tasks_are_called_through_an_app() -> None:
    assert_type(app.configure_task(add, queue="other").call(a=1), int)
    assert_type(await app.configure_task(fetch).call_async(url="x", timeout=5), bytes)
    assert_type(app.configure_task(fetch, task_kwargs={"url": "x"}).call(), bytes)
    assert_type(app.configure_task("known").call(a=1, timeout=5), Any)


async def an_app_does_not_know_the_task_of_a_job() -> None:
    assert_type(app.wait_for(1, timeout=5), Any)
    assert_type(await app.wait_for_async(1, allow_in_worker=True), Any)
    assert_type(app.job_manager.get_result(1), Any)
    assert_type(await app.job_manager.get_result_async(1), Any)
    app.job_manager.get_result(1, connection=object())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def an_end_is_a_job() -> None:
    assert_type(app.job_manager.wait_until_ended(1, timeout=5), Job)
    assert_type(await app.job_manager.wait_until_ended_async(1, timeout=5), Job)


def an_error_has_the_job_and_its_last_error() -> None:
    try:
        add.call(a=1)
    except procrastinate.JobUnsuccessful as exc:
        assert_type(exc.job, Job)
        assert_type(exc.error, dict[str, Any] | None)
