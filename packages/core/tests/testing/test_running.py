"""Running what waits, as a user's test does it: on a real worker, without a database."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from datetime import UTC, datetime, timedelta

import pytest

import procrastinate
from procrastinate.errors import ConfigurationError, InvalidOption, TaskNotFound
from procrastinate.model.job import Status
from procrastinate.testing import InMemoryConnector, in_memory, run_jobs, run_jobs_async, running

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Shop:
    """An app with a few tasks, and what they did."""

    def __init__(self) -> None:
        self.connector = InMemoryConnector()
        self.app = procrastinate.App(connector=self.connector)
        self.did: list[object] = []

        @self.app.task(name="say")
        def say(what: object) -> None:
            self.did.append(what)

        @self.app.task(name="say_async", queue="async")
        async def say_async(what: object) -> None:
            await asyncio.sleep(0)
            self.did.append(what)

        @self.app.task(name="count_down")
        def count_down(n: int) -> None:
            self.did.append(n)
            if n:
                count_down.defer(n=n - 1)

        self.say, self.say_async, self.count_down = say, say_async, count_down

    def failing(self, *exceptions: BaseException, retry: object = False) -> procrastinate.App:
        """Add a task ``fail`` that raises these one after the other, and then nothing."""
        left = list(exceptions)

        @self.app.task(name="fail", retry=retry)  # type: ignore[call-overload]
        def fail() -> None:
            if left:
                raise left.pop(0)

        return self.app

    def statuses(self) -> list[str]:
        return [str(job.status) for job in self.connector.jobs]


@pytest.fixture
def shop() -> Shop:
    return Shop()


# --- what is run ---------------------------------------------------------------------------------


def test_what_is_due_is_run_in_its_order_and_returned_as_it_ended(shop: Shop) -> None:
    shop.say.defer(what=1)
    shop.say_async.configure(priority=5).defer(what=2)
    shop.say.configure(schedule_in={"hours": 1}).defer(what=3)
    jobs = run_jobs(shop.app)
    assert shop.did == [2, 1]
    assert [(job.id, job.status, job.attempts) for job in jobs] == [
        (2, Status.SUCCEEDED, 1),
        (1, Status.SUCCEEDED, 1),
    ]
    assert jobs == [shop.connector.jobs[1], shop.connector.jobs[0]]
    assert shop.statuses() == ["succeeded", "succeeded", "todo"]
    assert run_jobs(shop.app) == []


async def test_the_same_in_a_test_that_is_a_coroutine(shop: Shop) -> None:
    shop.say.defer(what=1)
    await shop.say_async.defer_async(what=2)
    assert [job.id for job in await run_jobs_async(shop.app)] == [1, 2]
    assert shop.did == [1, 2]


async def test_a_call_without_await_works_where_a_loop_runs_too(shop: Shop) -> None:
    shop.say.defer(what=1)
    shop.say_async.defer(what=2)
    assert [job.id for job in run_jobs(shop.app)] == [1, 2]
    assert shop.did == [1, 2]


def test_jobs_deferred_meanwhile_are_run_too(shop: Shop) -> None:
    shop.count_down.defer(n=3)
    assert len(run_jobs(shop.app)) == 4
    assert shop.did == [3, 2, 1, 0]


@pytest.mark.parametrize("call_async", [False, True])
def test_a_limit_leaves_the_rest_untouched(shop: Shop, *, call_async: bool) -> None:
    shop.count_down.defer(n=1)
    shop.count_down.defer(n=8)

    def run(limit: int) -> int:
        if call_async:
            return len(asyncio.run(run_jobs_async(shop.app, limit=limit)))
        return len(run_jobs(shop.app, limit=limit))

    assert run(2) == 2
    assert shop.did == [1, 8]
    assert [(job.status, job.attempts) for job in shop.connector.jobs[2:]] == [(Status.TODO, 0)] * 2
    assert run(1) == 1
    assert shop.did == [1, 8, 0]


def test_only_the_queues_asked_for_are_worked_on(shop: Shop) -> None:
    shop.say.defer(what=1)
    shop.say_async.defer(what=2)
    assert [job.queue for job in run_jobs(shop.app, queues=["async"])] == ["async"]
    assert shop.did == [2]


def test_jobs_that_share_a_lock_are_all_run(shop: Shop) -> None:
    for what in range(5):
        shop.say.configure(lock="l").defer(what=what)
    assert len(run_jobs(shop.app)) == 5
    assert shop.did == [0, 1, 2, 3, 4]


def test_moving_a_frozen_clock_makes_scheduled_jobs_due(shop: Shop) -> None:
    with shop.connector.clock.frozen(NOON):
        shop.say.configure(schedule_at=NOON + timedelta(hours=2)).defer(what="at two")
        shop.say.configure(schedule_in={"minutes": 30}).defer(what="at half past")
        assert run_jobs(shop.app) == []
        shop.connector.clock.move(hours=1)
        assert [job.task_kwargs for job in run_jobs(shop.app)] == [{"what": "at half past"}]
        shop.connector.clock.freeze(NOON + timedelta(hours=2))
        assert [job.deferred_at for job in run_jobs(shop.app)] == [NOON]


# --- threads and context -------------------------------------------------------------------------


def test_plain_tasks_run_in_the_tests_own_thread_and_without_a_loop(shop: Shop) -> None:
    @shop.app.task(name="where")
    def where() -> None:
        shop.did.append(threading.current_thread())
        asyncio.run(asyncio.sleep(0))  # which is refused where a loop runs

    where.defer()
    run_jobs(shop.app)
    assert shop.did == [threading.current_thread()]


async def test_in_a_coroutine_plain_tasks_run_in_other_threads(shop: Shop) -> None:
    @shop.app.task(name="where")
    def where() -> None:
        shop.did.append(threading.current_thread() is threading.main_thread())

    @shop.app.task(name="where_async")
    async def where_async() -> None:
        shop.did.append(asyncio.get_running_loop())

    where.defer()
    where_async.defer()
    await run_jobs_async(shop.app)
    assert shop.did == [False, asyncio.get_running_loop()]


def test_tasks_see_the_tests_context_variables(shop: Shop) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @shop.app.task(name="plain")
    def plain() -> None:
        shop.did.append(tenant.get())

    @shop.app.task(name="coroutine")
    async def coroutine() -> None:
        shop.did.append(tenant.get())

    tenant.set("me")
    plain.defer()
    coroutine.defer()
    run_jobs(shop.app)
    assert shop.did == ["me", "me"]


def test_a_task_may_run_what_waits_itself(shop: Shop) -> None:
    @shop.app.task(name="outer")
    def outer() -> None:
        shop.say.defer(what="inner")
        shop.did.append([job.task_name for job in run_jobs(shop.app)])

    outer.defer()
    assert [job.task_name for job in run_jobs(shop.app)] == ["outer"]
    assert shop.did == ["inner", ["say"]]


# --- failures ------------------------------------------------------------------------------------


def test_what_a_task_raised_is_raised_once_all_have_run(shop: Shop) -> None:
    raised = ZeroDivisionError("boom")
    shop.failing(raised).configure_task("fail").defer()
    shop.say.defer(what="afterwards")
    with pytest.raises(ZeroDivisionError) as caught:
        run_jobs(shop.app)
    assert caught.value is raised
    assert raised.__notes__ == ["raised by fail[1](), which is now failed"]
    assert shop.did == ["afterwards"]
    assert shop.statuses() == ["failed", "succeeded"]
    assert [error["type"] for error in shop.connector.jobs[0].errors] == ["ZeroDivisionError"]


async def test_a_coroutine_is_told_what_a_task_raised(shop: Shop) -> None:
    shop.failing(ZeroDivisionError()).configure_task("fail").defer()
    with pytest.raises(ZeroDivisionError):
        await run_jobs_async(shop.app)


def test_failures_are_data_for_those_who_ask(shop: Shop) -> None:
    shop.failing(ZeroDivisionError()).configure_task("fail").defer()
    assert [job.status for job in run_jobs(shop.app, raise_errors=False)] == [Status.FAILED]


def test_a_retry_that_succeeds_at_once_is_no_failure(shop: Shop) -> None:
    shop.failing(ZeroDivisionError(), retry=3).configure_task("fail").defer()
    assert [(job.status, job.attempts) for job in run_jobs(shop.app)] == [(Status.SUCCEEDED, 2)]


def test_a_job_that_waits_for_a_retry_has_failed_so_far(shop: Shop) -> None:
    strategy = procrastinate.RetryStrategy(max_attempts=3, wait=60)
    shop.failing(ZeroDivisionError(), retry=strategy).configure_task("fail").defer()
    with shop.connector.clock.frozen(NOON):
        with pytest.raises(ZeroDivisionError):
            run_jobs(shop.app)
        assert shop.statuses() == ["todo"]
        assert run_jobs(shop.app) == []
        shop.connector.clock.move(seconds=61)
        assert [job.attempts for job in run_jobs(shop.app)] == [2]


def test_an_aborted_job_is_no_failure(shop: Shop) -> None:
    shop.failing(procrastinate.JobAborted("as you like")).configure_task("fail").defer()
    assert [job.status for job in run_jobs(shop.app)] == [Status.ABORTED]


def test_a_job_of_an_unknown_task_fails(shop: Shop) -> None:
    shop.app.configure_task("unheard-of").defer()
    with pytest.raises(TaskNotFound, match="unheard-of"):
        run_jobs(shop.app)


def test_an_interruption_in_a_task_ends_the_run_and_is_never_kept_back(shop: Shop) -> None:
    shop.failing(KeyboardInterrupt()).configure_task("fail").defer()
    shop.count_down.defer(n=100)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(shop.app, raise_errors=False)
    assert len(shop.did) < 100


def test_an_interruption_between_tasks_ends_the_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object) -> None:
        assert started.wait(10)
        raise KeyboardInterrupt

    started, forever = threading.Event(), asyncio.Event()

    @shop.app.task(name="endless")
    async def endless() -> None:
        started.set()
        await forever.wait()

    monkeypatch.setattr(running.CallersThread, "serve", interrupted)
    endless.defer()
    with pytest.raises(KeyboardInterrupt):
        run_jobs(shop.app)
    assert shop.statuses() == ["todo"]  # handed back, as when a worker is told to stop


def test_a_run_leaves_no_thread_behind(shop: Shop) -> None:
    before = set(threading.enumerate())
    shop.say.defer(what=1)
    shop.say_async.defer(what=1)
    run_jobs(shop.app)
    assert set(threading.enumerate()) <= before


# --- options -------------------------------------------------------------------------------------


def test_tasks_find_the_context_that_the_app_gives_its_workers() -> None:
    found: list[object] = []
    app = procrastinate.App(
        connector=InMemoryConnector(),
        worker_defaults={"additional_context": {"a": 1}, "queues": ["other"], "concurrency": 7},
    )

    @app.task(name="look", pass_context=True)
    def look(context: procrastinate.JobContext) -> None:
        found.append(context.additional_context)

    look.defer()
    run_jobs(app)
    look.defer()
    run_jobs(app, additional_context={"b": 2})
    assert found == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"limit": 0}, "limit must be an int of 1 or more, or None, not 0"),
        ({"limit": True}, "limit must be an int of 1 or more, or None, not True"),
        ({"wait": True}, "wait is not for run_jobs: it is always False there"),
        ({"queues": "a"}, "queues must be a list of names, not 'a'"),
        ({"concurency": 3}, "a worker has no option 'concurency'"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(
    shop: Shop, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidOption, match=message):
        run_jobs(shop.app, **options)  # type: ignore[arg-type]


def test_nothing_is_run_where_a_database_may_be() -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector())
    with pytest.raises(ConfigurationError, match="where its Psycopg2Connector leads"):
        run_jobs(app)
    with pytest.raises(InvalidOption, match="app must be an App"):
        run_jobs("app")  # type: ignore[arg-type]


# --- apps put in memory --------------------------------------------------------------------------


@pytest.fixture
def apps() -> tuple[procrastinate.App, procrastinate.App]:
    """Two apps on the same tasks, neither of which could reach a database."""
    app = procrastinate.App(connector=procrastinate.AiopgConnector(host="nowhere"))
    return app, app.with_connector(procrastinate.Psycopg2Connector(host="nowhere"))


def test_apps_put_in_memory_share_their_jobs_for_the_length_of_the_block(
    apps: tuple[procrastinate.App, procrastinate.App],
) -> None:
    app, sync_app = apps
    before = app.connector, sync_app.connector

    @app.task(name="task")
    def task() -> None: ...

    with in_memory(app, sync_app) as connector:
        task.defer()
        sync_app.configure_task("task").defer()
        assert (app.connector, sync_app.connector) == (connector, connector)
        assert [job.id for job in run_jobs(app)] == [1, 2]
    assert (app.connector, sync_app.connector) == before


def test_an_app_put_in_memory_keeps_its_json() -> None:
    original = procrastinate.AiopgConnector(
        json_dumps=lambda value: '{"a": "dumped"}', json_loads=lambda text: {"loaded": text}
    )
    app = procrastinate.App(connector=original)
    with in_memory(app) as connector:
        app.configure_task("task").defer(a=object())
        assert [job.task_kwargs for job in connector.jobs] == [{"loaded": '{"a": "dumped"}'}]


def test_the_jobs_of_a_task_are_told_apart(shop: Shop) -> None:
    shop.say.defer(what=1)
    shop.count_down.defer(n=0)
    shop.say.defer(what=2)
    assert [job.id for job in shop.connector.jobs_of(shop.say)] == [1, 3]
    assert [job.id for job in shop.connector.jobs_of("count_down")] == [2]
    assert shop.connector.jobs_of("unheard-of") == []
