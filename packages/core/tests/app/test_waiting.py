"""Waiting for results as a user does, in memory: what is refused, and what is given.

What waits for real workers is in the suite of the connectors.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import (
    AlreadyEnqueued,
    InsufficientPrivilege,
    InvalidArguments,
    InvalidOption,
    JobFailed,
    JobNotFound,
    JobWasAborted,
    JobWasCancelled,
    ResultLost,
    ResultNotKept,
    UnboundTaskError,
)
from procrastinate.model.job import Status
from procrastinate.testing import InMemoryConnector, run_jobs
from procrastinate.testing.connector import InMemorySyncConnector


class Shop:
    """An app in memory whose tasks keep their results, but for one."""

    def __init__(self, connector: InMemoryConnector | None = None) -> None:
        self.connector = connector or InMemoryConnector()
        self.app = app = procrastinate.App(connector=self.connector)

        @app.task(name="add", result=True, aliases=["sum"])
        def add(a: int, b: int = 0) -> int:
            return a + b

        @app.task(name="add_async", result=True)
        async def add_async(a: int, b: int = 0) -> int:
            await asyncio.sleep(0)
            return a + b

        @app.task(name="fail", result=True)
        def fail(message: str) -> None:
            raise ValueError(message)

        @app.task(name="abort", result=True)
        def abort() -> None:
            raise procrastinate.JobAborted("as you like")

        @app.task(name="forget")
        def forget() -> int:
            return 1

        self.add, self.add_async, self.fail, self.abort = add, add_async, fail, abort
        self.forget = forget

    @property
    def count(self) -> int:
        return len(self.connector.jobs)


@pytest.fixture
def shop() -> Shop:
    return Shop()


#: Each way to wait, as a function of the task and the job's id.
Way = Callable[..., Any]


async def _task(task: Any, job_id: int, **options: Any) -> Any:
    return await asyncio.to_thread(task.wait_for, job_id, **options)


async def _task_async(task: Any, job_id: int, **options: Any) -> Any:
    return await task.wait_for_async(job_id, **options)


async def _app(task: Any, job_id: int, **options: Any) -> Any:
    return await asyncio.to_thread(task.owner.wait_for, job_id, **options)


async def _app_async(task: Any, job_id: int, **options: Any) -> Any:
    return await task.owner.wait_for_async(job_id, **options)


WAYS = [_task, _task_async, _app, _app_async]
every_way = pytest.mark.parametrize("way", WAYS)


async def _until_ended(shop: Shop, job_id: int, **options: Any) -> Any:
    return await asyncio.to_thread(shop.app.job_manager.wait_until_ended, job_id, **options)


async def _until_ended_async(shop: Shop, job_id: int, **options: Any) -> Any:
    return await shop.app.job_manager.wait_until_ended_async(job_id, **options)


both = pytest.mark.parametrize("until_ended", [_until_ended, _until_ended_async])


# What is given


@every_way
@pytest.mark.parametrize("name", ["add", "add_async"])
async def test_a_wait_gives_what_the_task_returned(shop: Shop, way: Way, name: str) -> None:
    task = shop.app.tasks[name]
    assert await way(task, task.defer(a=1, b=2)) == 3


def test_a_job_that_has_ended_already_gives_its_result_again_and_again(shop: Shop) -> None:
    job_id = shop.add.defer(a=1, b=2)
    run_jobs(shop.app)
    assert [shop.add.wait_for(job_id, timeout=0) for _ in range(2)] == [3, 3]


def test_a_call_defers_waits_and_returns(shop: Shop) -> None:
    assert shop.add.call(a=1, b=2) == 3
    assert shop.add.call(1, b=3) == 4
    assert shop.add.configure(queue="other", priority=3).call(a=5, timeout=10) == 5
    assert shop.app.configure_task("add").call(a=6) == 6
    assert shop.app.configure_task(shop.add_async, task_kwargs={"a": 7}).call() == 7
    assert [(job.queue, job.priority) for job in shop.connector.jobs[2:3]] == [("other", 3)]


async def test_a_call_of_a_coroutine_does_the_same(shop: Shop) -> None:
    assert await shop.add_async.call_async(a=1, b=2) == 3
    assert await shop.add.configure(priority=3).call_async(a=5, timeout=10) == 5
    calls = [shop.add_async.call_async(a=n, timeout=30) for n in range(5)]
    assert await asyncio.gather(*calls) == list(range(5))


def test_a_task_of_a_blueprint_waits_through_its_app(shop: Shop) -> None:
    blueprint = procrastinate.Blueprint()

    @blueprint.task(name="double", aliases=["twice"], result=True)
    def double(n: int) -> int:
        return 2 * n

    with pytest.raises(UnboundTaskError):
        double.wait_for(1)
    with pytest.raises(UnboundTaskError):
        double.call(n=1)
    shop.app.add_tasks_from(blueprint, namespace="maths")
    assert double.call(n=2) == 4
    assert double.wait_for(shop.app.configure_task("maths:twice").defer(n=3)) == 6
    with pytest.raises(InvalidOption, match="is no job of task maths:double"):
        double.wait_for(shop.add.defer(a=1))


def test_an_alias_is_the_same_task(shop: Shop) -> None:
    shop.app.add_task_alias(shop.add, "plus")
    for name in ("sum", "plus"):
        assert shop.add.wait_for(shop.app.configure_task(name).defer(a=1)) == 1


@both
async def test_the_job_is_given_however_it_ended(shop: Shop, until_ended: Way) -> None:
    ids = [shop.add.defer(a=1), shop.fail.defer(message="no"), shop.forget.defer()]
    jobs = [await until_ended(shop, job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.SUCCEEDED, Status.FAILED, Status.SUCCEEDED]
    assert jobs[0].result == 1


# Ends without a result


@every_way
async def test_a_job_that_fails_raises_its_error(shop: Shop, way: Way) -> None:
    job_id = shop.fail.defer(message="no such page")
    with pytest.raises(JobFailed) as caught:
        await way(shop.fail, job_id)
    assert str(caught.value) == f"job {job_id} of task fail has failed: ValueError: no such page"
    assert caught.value.job == shop.app.job_manager.get_job(job_id)
    assert caught.value.error is not None
    assert caught.value.error["message"] == "no such page"


def test_a_job_that_was_aborted_or_cancelled_says_so(shop: Shop) -> None:
    with pytest.raises(JobWasAborted, match=r"of task abort was aborted: .*as you like"):
        shop.abort.call()
    job_id = shop.add.defer(a=1)
    shop.app.job_manager.cancel_job_by_id(job_id)
    with pytest.raises(JobWasCancelled, match=f"job {job_id} of task add was cancelled"):
        shop.add.wait_for(job_id)


def test_a_task_that_keeps_nothing_is_refused_before_anything_is_deferred(shop: Shop) -> None:
    for refused in (shop.forget.call, lambda: shop.forget.wait_for(1)):
        with pytest.raises(ResultNotKept, match=r"task forget keeps no results.*result=True"):
            refused()
    assert shop.count == 0
    with pytest.raises(ResultNotKept, match=r"of task forget has succeeded.*result=True"):
        shop.app.wait_for(shop.forget.defer())


def test_a_job_that_is_not_there_is_an_error_that_says_what_may_be_missing(shop: Shop) -> None:
    with pytest.raises(JobNotFound, match=r"there is no job 99.*Commit first"):
        shop.app.wait_for(99)
    with shop.connector.transaction() as connection:
        job_id = shop.add.configure(connection=connection).defer(a=1)
        with pytest.raises(JobNotFound, match=f"there is no job {job_id}"):
            shop.add.wait_for(job_id)
    assert shop.add.wait_for(job_id) == 1


def test_a_job_that_is_removed_meanwhile_is_lost(shop: Shop) -> None:
    @shop.app.task(name="remove", priority=1)
    def remove(id: int) -> None:
        shop.app.job_manager.cancel_job_by_id(id, delete_job=True)

    job_id = shop.add.defer(a=1)
    remove.defer(id=job_id)
    with pytest.raises(ResultLost, match=f"job {job_id} was removed while it was waited for"):
        shop.add.wait_for(job_id)


@every_way
async def test_a_job_of_another_task_is_refused_by_a_task_and_not_by_an_app(
    shop: Shop, way: Way
) -> None:
    job_id = shop.fail.defer(message="no")
    kind, message = (
        (InvalidOption, f"job {job_id} of task fail is no job of task add: .*app.wait_for")
        if way in (_task, _task_async)
        else (JobFailed, "no")
    )
    with pytest.raises(kind, match=message):
        await way(shop.add, job_id)


def test_a_result_that_cannot_be_decoded_is_an_error_and_never_something_else() -> None:
    def loads(text: str) -> Any:
        if text == '"bad"':
            raise LookupError("no such thing")
        return json.loads(text)

    app = procrastinate.App(connector=InMemoryConnector(json_loads=loads))

    @app.task(name="say", result=True)
    def say(what: str) -> str:
        return what

    job_id = say.defer(what="bad")
    for way in (say.wait_for, app.wait_for, app.job_manager.get_result):
        with pytest.raises(ResultNotKept, match=r"cannot be decoded: no such thing"):
            way(job_id)
    assert app.job_manager.wait_until_ended(job_id).status is Status.SUCCEEDED
    [listed] = app.job_manager.list_jobs()
    assert (listed.has_result, listed.result) == (False, None)
    assert say.call(what="good") == "good"


# Results at once


def test_a_result_is_given_without_waiting(shop: Shop) -> None:
    manager = shop.app.job_manager
    done, todo = shop.add.defer(a=1), shop.add.configure(schedule_in={"days": 1}).defer(a=2)
    failed = shop.fail.defer(message="no")
    with pytest.raises(TimeoutError, match=rf"job {done} of task add has not ended: .*todo"):
        manager.get_result(done)
    run_jobs(shop.app, raise_errors=False)
    assert manager.get_result(done) == 1
    for job_id, kind in {todo: TimeoutError, failed: JobFailed, 99: JobNotFound}.items():
        with pytest.raises(kind):
            manager.get_result(job_id)


async def test_a_result_is_given_without_waiting_to_a_coroutine(shop: Shop) -> None:
    job_id = shop.add.defer(a=1)
    with pytest.raises(TimeoutError):
        await shop.app.job_manager.get_result_async(job_id)
    await shop.add.wait_for_async(job_id)
    assert await shop.app.job_manager.get_result_async(job_id) == 1


# Bad input


@pytest.mark.parametrize(
    "timeout", [-1, -0.001, math.nan, -math.inf, True, "5", [], timedelta(seconds=-1), 10**400]
)
async def test_a_timeout_that_cannot_be_is_refused_before_anything_is_done(
    shop: Shop, timeout: Any
) -> None:
    calls: list[Callable[[], Awaitable[Any]]] = [
        *(lambda way=way: way(shop.add, 1, timeout=timeout) for way in WAYS),
        lambda: _until_ended(shop, 1, timeout=timeout),
        lambda: _until_ended_async(shop, 1, timeout=timeout),
        lambda: shop.add_async.call_async(a=1, timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(InvalidOption, match="timeout must be a number of seconds"):
            await call()
    with pytest.raises(InvalidOption, match="timeout must be"):
        shop.add.call(a=1, timeout=timeout)
    assert shop.count == 0


@pytest.mark.parametrize("timeout", [None, math.inf, 60, 60.5, timedelta(minutes=1)])
def test_a_timeout_is_seconds_or_a_timedelta_or_without_limit(shop: Shop, timeout: Any) -> None:
    assert shop.add.call(a=1, timeout=timeout) == 1


@pytest.mark.parametrize("timeout", [0, -0.0, timedelta()])
def test_a_timeout_of_zero_looks_once(shop: Shop, timeout: Any) -> None:
    job_id = shop.add.defer(a=1)
    with pytest.raises(TimeoutError, match=f"job {job_id} has not ended; it stays"):
        shop.add.wait_for(job_id, timeout=timeout)
    assert shop.add.wait_for(job_id) == shop.add.wait_for(job_id, timeout=timeout)


@pytest.mark.parametrize("job_id", ["1", -1, True, None, 2**63, 1.0])
async def test_an_id_that_cannot_be_is_refused(shop: Shop, job_id: Any) -> None:
    for way in WAYS:
        with pytest.raises(InvalidOption, match="a job id must be an int from 0"):
            await way(shop.add, job_id)


def test_allow_in_worker_is_a_flag(shop: Shop) -> None:
    with pytest.raises(InvalidOption, match="allow_in_worker must be True or False"):
        shop.add.call(a=1, allow_in_worker=1)  # type: ignore[call-overload]
    assert shop.count == 0


@pytest.mark.parametrize("name", ["timeout", "allow_in_worker"])
def test_a_task_that_has_a_parameter_of_the_same_name_cannot_be_called(
    shop: Shop, name: str
) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def slow({name}=0): return {name}", namespace)
    slow = shop.app.task(name="slow", result=True)(namespace["slow"])
    for options in ({}, {name: 5}):
        with pytest.raises(InvalidOption) as caught:
            slow.call(**options)
        assert f"task slow has a parameter {name!r} itself" in str(caught.value)
        assert f"`id = task.defer(...)` and then `task.wait_for(id, {name}=...)`" in str(
            caught.value
        )
    assert shop.count == 0
    assert slow.wait_for(slow.defer(**{name: 5}), timeout=30) == 5


def test_a_task_of_any_arguments_leaves_the_names_to_the_call(shop: Shop) -> None:
    @shop.app.task(name="names", result=True)
    def names(**given: Any) -> list[str]:
        return sorted(given)

    assert names.call(a=1, timeout=30, allow_in_worker=False) == ["a"]


async def test_a_call_in_a_transaction_is_refused(shop: Shop) -> None:
    with shop.connector.transaction() as connection:
        configured = shop.add.configure(connection=connection)
        with pytest.raises(InvalidOption, match=r"not committed.*connection=.*wait_for\(id\)"):
            configured.call(a=1)
        with pytest.raises(InvalidOption, match="not committed"):
            await configured.call_async(a=1)
    assert shop.count == 0


class _Joining(InMemorySyncConnector):
    """A connector whose sessions are in a transaction of the application's, as Django's may be."""

    runs_sql = True

    def is_in_transaction(self) -> bool:
        return True


async def test_nothing_is_waited_for_in_a_transaction_without_a_way_beside() -> None:
    app = procrastinate.App(connector=_Joining())

    @app.task(name="add", result=True)
    def add() -> int:
        return 1

    for wait in (add.wait_for, app.wait_for, app.job_manager.wait_until_ended):
        with pytest.raises(InvalidOption, match=r"inside of a transaction.*commit first"):
            wait(1, timeout=0)
    with pytest.raises(InvalidOption, match=r"inside of a transaction.*commit first"):
        await add.wait_for_async(1)
    with pytest.raises(InvalidOption, match="not committed"):
        await add.call_async()


def test_a_call_raises_as_a_defer_does(shop: Shop) -> None:
    with pytest.raises(InvalidArguments, match="missing a required argument"):
        shop.add.call()  # type: ignore[call-overload]
    locked = shop.add.configure(queueing_lock="one")
    job_id = locked.defer(a=1)
    with pytest.raises(AlreadyEnqueued):
        locked.call(a=2)
    assert [job.id for job in shop.connector.jobs] == [job_id]


def test_a_call_of_a_task_that_only_others_know_takes_any_arguments() -> None:
    app = procrastinate.App(connector=InMemoryConnector())
    with pytest.raises(JobFailed, match="TaskNotFound"):
        app.configure_task("elsewhere").call(a=1, timeout=30)


# Inside of a task


def waiting_task(shop: Shop, wait: Callable[..., Any], kind: str) -> Any:
    """Register a task that waits in one of the places where a task's code can be."""

    def plain(**given: Any) -> Any:
        return wait(**given)

    async def on_loop(**given: Any) -> Any:
        return wait(**given)

    async def to_thread(**given: Any) -> Any:
        return await asyncio.to_thread(wait, **given)

    async def in_new_task(**given: Any) -> Any:
        async def waiting() -> Any:
            return wait(**given)

        return await asyncio.create_task(waiting())

    places = {"plain": plain, "loop": on_loop, "to_thread": to_thread, "new task": in_new_task}
    return shop.app.task(name="waiting", queue="own", result=True)(places[kind])


PLACES = ["plain", "loop", "to_thread", "new task"]
WHY = "a slot that waits for a slot"


@pytest.mark.parametrize("place", PLACES)
def test_waiting_for_the_own_worker_is_refused_wherever_the_code_is(shop: Shop, place: str) -> None:
    waiting = waiting_task(shop, lambda id: shop.add.wait_for(id), place)
    job_id = shop.add.defer(a=1)
    with pytest.raises(JobFailed, match=rf"InvalidOption: .*for job {job_id},.*{WHY}"):
        waiting.call(id=job_id)


def test_it_is_refused_too_if_the_job_has_ended(shop: Shop) -> None:
    waiting = waiting_task(shop, lambda id: shop.add.wait_for(id), "plain")
    job_id = shop.add.defer(a=1)
    assert shop.add.wait_for(job_id) == 1
    with pytest.raises(JobFailed, match=WHY):
        waiting.call(id=job_id)


@pytest.mark.parametrize("place", PLACES)
def test_a_call_of_the_own_worker_is_refused_before_it_defers(shop: Shop, place: str) -> None:
    waiting = waiting_task(shop, lambda: shop.add.call(a=1), place)
    with pytest.raises(JobFailed, match=rf"a job of the queue 'default'.*{WHY}"):
        waiting.call()
    assert [job.task_name for job in shop.connector.jobs] == ["waiting"]


def test_every_way_to_wait_is_refused(shop: Shop) -> None:
    manager = shop.app.job_manager
    job_id = shop.add.defer(a=1)
    ways: list[Callable[[], Any]] = [
        lambda: shop.add.wait_for(job_id),
        lambda: asyncio.run(shop.add.wait_for_async(job_id)),
        lambda: shop.app.wait_for(job_id),
        lambda: asyncio.run(shop.app.wait_for_async(job_id)),
        lambda: manager.wait_until_ended(job_id),
        lambda: asyncio.run(manager.wait_until_ended_async(job_id)),
        lambda: shop.add.call(a=1),
        lambda: asyncio.run(shop.add_async.call_async(a=1)),
        lambda: shop.app.configure_task("unknown").call(),
    ]
    messages = []

    @shop.app.task(name="all_ways", priority=1)
    def all_ways() -> None:
        for way in ways:
            try:
                way()
            except InvalidOption as exc:
                messages.append(str(exc))

    all_ways.defer()
    run_jobs(shop.app)
    assert [WHY in message for message in messages] == [True] * len(ways)
    assert shop.count == 2


def test_reading_a_result_is_no_wait(shop: Shop) -> None:
    waiting = waiting_task(shop, lambda id: shop.app.job_manager.get_result(id), "plain")
    job_id = shop.add.defer(a=1)
    shop.add.wait_for(job_id)
    assert waiting.call(id=job_id) == 1


@pytest.mark.parametrize("place", ["plain", "to_thread"])
def test_it_is_permitted_by_name(shop: Shop, place: str) -> None:
    waiting = waiting_task(shop, lambda: shop.add.call(a=1, allow_in_worker=True), place)
    assert waiting.call() == 1


def test_a_queue_that_the_worker_does_not_serve_may_be_waited_for(shop: Shop) -> None:
    def wait(id: int) -> list[int]:
        return [shop.add.configure(queue="other").call(a=1), shop.add.wait_for(id)]

    waiting = waiting_task(shop, wait, "plain")
    job_id = waiting.defer(id=shop.add.configure(queue="other").defer(a=2))
    run_jobs(shop.app, queues=["own"])
    assert waiting.wait_for(job_id, timeout=0) == [1, 2]


def test_a_queue_that_it_does_serve_may_not_and_a_missing_job_is_missing(shop: Shop) -> None:
    waiting = waiting_task(shop, lambda id: shop.add.wait_for(id), "plain")
    there = waiting.defer(id=shop.add.configure(queue="own2", schedule_in={"days": 1}).defer(a=1))
    missing = waiting.defer(id=99)
    run_jobs(shop.app, queues=["own", "own2"], raise_errors=False)
    with pytest.raises(JobFailed, match=rf"a job of the queue 'own2'.*{WHY}"):
        waiting.wait_for(there, timeout=0)
    with pytest.raises(JobFailed, match="JobNotFound: there is no job 99"):
        waiting.wait_for(missing, timeout=0)


class _NoRight(InMemoryConnector):
    def waiting_room(self, app: Any) -> Any:
        raise InsufficientPrivilege("permission denied for table procrastinate_jobs")


async def test_a_call_that_may_defer_and_may_not_wait_names_the_job_that_is_there() -> None:
    shop = Shop(_NoRight())
    said = "job {} is deferred, but the wait for it failed: permission denied for table"
    with pytest.raises(InsufficientPrivilege, match=said.format(1)):
        await asyncio.to_thread(shop.add.call, a=1)
    with pytest.raises(InsufficientPrivilege, match=said.format(2)):
        await shop.add.call_async(a=1)
    assert shop.count == 2


async def test_a_plain_wait_on_an_event_loop_is_refused_before_anything_is_done(
    shop: Shop,
) -> None:
    """It would wait for ever if the loop runs the worker."""
    job_id = shop.add.defer(a=1)
    for wait in (
        lambda: shop.add.wait_for(job_id),
        lambda: shop.add.wait_for(job_id, timeout=5),
        lambda: shop.app.wait_for(job_id),
        lambda: shop.app.job_manager.wait_until_ended(job_id),
        lambda: shop.add.call(a=2),
        lambda: shop.add.configure(queue="other").call(a=2),
    ):
        with pytest.raises(InvalidOption, match="write `await` and the call whose name ends in"):
            wait()
    with pytest.raises(TimeoutError):
        shop.add.wait_for(job_id, timeout=0)  # a look
    assert shop.count == 1
    assert await asyncio.to_thread(shop.add.wait_for, job_id) == 1


async def test_outside_of_tasks_nothing_is_refused_even_beside_a_worker(shop: Shop) -> None:
    async with shop.app.worker(listen_notify=True):
        assert await shop.add.call_async(a=1) == 1


def test_a_result_s_failure_fails_a_task_that_lets_it_escape(shop: Shop) -> None:
    def wait() -> None:
        shop.fail.configure(queue="other").call(message="no")

    waiting = waiting_task(shop, wait, "plain")
    job_id = waiting.defer()
    run_jobs(shop.app, queues=["own"], raise_errors=False)
    with pytest.raises(JobFailed, match=r"JobFailed: job .* of task fail has failed"):
        waiting.wait_for(job_id)
