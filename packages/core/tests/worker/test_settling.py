"""Writing what became of attempts: in batches, whatever they became, and told as it is."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import psycopg2
import pytest

import procrastinate
from procrastinate import JobContext, Status
from procrastinate.connector import Query, Rows
from procrastinate.connector_tools.sessions import AsyncSession
from procrastinate.errors import ConnectionLost, ConnectorException
from procrastinate.model.claiming.scan_steps import Kind, Scan
from procrastinate.model.endings.outcome import (
    RESULT_REFUSED,
    SUCCEEDED,
    UNSTARTED,
    Finished,
    Outcome,
    Requeued,
)
from procrastinate.model.job import Job
from procrastinate.model.partitions import ONE
from procrastinate.storage import claim, workers
from procrastinate.storage.finish import Ended, Keeps, keeps_none
from procrastinate.worker.database.outages import Outages
from procrastinate.worker.database.places import Places
from procrastinate.worker.writing.echoes import Echoes
from procrastinate.worker.writing.writer import MAX_RESULTS, Writer

pytestmark = pytest.mark.one_partition("its flows are those of one partition")

Run = Callable[..., list[tuple[Any, ...]]]
ENDINGS = {"finish_jobs", "settle_jobs", "delete_finished"}


async def _hands_nothing_over(*_: object) -> None:
    return None


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The statements that asynchronous sessions have run, by name."""
    counter: Counter[str] = Counter()
    execute = AsyncSession.execute

    async def counting(self: AsyncSession[Any], query: Query, /) -> Rows:
        counter[query.name] += 1
        return await execute(self, query)

    monkeypatch.setattr(AsyncSession, "execute", counting)
    return counter


async def test_failures_and_retries_share_batches_as_successes_do(
    app: procrastinate.App, query: Run, counted: Counter[str], working: Any, until: Any
) -> None:
    """1,000 jobs fail once and are retried: 2,000 attempts, and no statement for each."""

    @app.task(name="flaky", retry=1, pass_context=True)
    async def flaky(context: JobContext) -> None:
        if context.job.attempts == 1:
            raise ValueError

    await flaky.batch_defer_async(*[{}] * 1_000)
    counted.clear()
    async with working(app, concurrency=100):
        await until(
            lambda: (
                query("select count(*) from procrastinate_jobs where status = 'succeeded'")
                == [(1_000,)]
            )
        )
    written = sum(count for name, count in counted.items() if name in ENDINGS)
    assert written <= 100, counted
    assert query(
        "select distinct attempts, jsonb_array_length(errors) from procrastinate_jobs"
    ) == [(2, 1)]


# What a writer does, step by step


class Held:
    """Jobs that a worker holds, and a writer for it that is given their outcomes."""

    def __init__(
        self,
        app: procrastinate.App,
        jobs: list[Job],
        worker_id: int,
        delete_jobs: str = "never",
        keeps: Keeps = keeps_none,
    ) -> None:
        self.app, self.jobs, self.worker_id = app, jobs, worker_id
        self.writer = Writer(
            app._gateway,
            worker_id,
            delete_jobs,
            Places(ONE),
            Outages(cast(Any, None), ONE),
            on_written=lambda: None,
            on_requeued=lambda _: None,
            on_released=lambda *_: None,
            hand_over=_hands_nothing_over,
            echoes=Echoes(),
            on_lost=lambda: None,
            keeps=keeps,
        )

    async def write(self, *outcomes: Outcome) -> None:
        for job, outcome in zip(self.jobs, outcomes, strict=True):
            self.writer.add(Ended(job, outcome))
        writing = asyncio.create_task(self.writer.run())
        async with asyncio.timeout(20):
            while len(self.writer):
                await asyncio.sleep(0.005)
        writing.cancel()


async def held(app: procrastinate.App, count: int, **options: Any) -> Held:
    for n in range(count):
        own = {name: each.format(n) for name, each in options.items()}
        await app.configure_task("task", **own).defer_async()
    worker_id = await app._gateway.run_async(workers.register_worker("w"))
    return Held(app, await claimed(app, worker_id), worker_id)


async def claimed(app: procrastinate.App, worker_id: int) -> list[Job]:
    flow = claim.claim(
        Scan(Kind.FULL, 1_000, ("default",), with_locks=True),
        worker_id=worker_id,
        loads=app.connector.json_loads,
    )
    return (await app._gateway.run_async(flow)).jobs


@pytest.fixture
def losing_answers(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Callable[[], Any]]]:
    """Let the answer to the next writes be lost, after which these functions are called."""
    meanwhile: list[Callable[[], Any]] = []
    run_async = app._gateway.run_async

    async def losing(flow: Any, **options: Any) -> Any:
        result = await run_async(flow, **options)
        if flow.__name__ == "settle" and meanwhile:
            happens = meanwhile.pop(0)()
            if happens is not None:
                await happens
            raise ConnectionLost("cut between COMMIT and its answer")
        return result

    monkeypatch.setattr(app._gateway, "run_async", losing)
    yield meanwhile
    assert meanwhile == []


@pytest.mark.parametrize("outcome", [SUCCEEDED, UNSTARTED, Requeued(when=timedelta())])
async def test_a_write_of_which_only_the_answer_was_lost_is_no_loss(
    app: procrastinate.App,
    losing_answers: list[Callable[[], Any]],
    caplog: pytest.LogCaptureFixture,
    outcome: Outcome,
) -> None:
    caplog.set_level(logging.DEBUG, "procrastinate.worker")
    those = await held(app, 1)
    losing_answers.append(lambda: None)
    await those.write(outcome)

    about = [record for record in caplog.records if "attempt 1" in record.getMessage()]
    assert [(record.levelname, record.getMessage()) for record in about] == [
        ("DEBUG", f"job {those.jobs[0].id}, attempt 1: its ending was written already")
    ]
    assert await app.job_manager.get_job_status_async(those.jobs[0].id) is outcome.status


async def test_a_hand_back_whose_answer_was_lost_leaves_the_next_claim_alone(
    app: procrastinate.App,
    losing_answers: list[Callable[[], Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same worker has the same attempt again; it is another lease, and so another job to do."""
    caplog.set_level(logging.DEBUG, "procrastinate.worker")
    those = await held(app, 1)
    losing_answers.append(lambda: claimed(app, those.worker_id))
    await those.write(UNSTARTED)

    job = await app.job_manager.get_job_async(those.jobs[0].id)
    assert (job.status, job.worker, job.attempts) == (Status.DOING, those.worker_id, 1)
    assert "its ending was written already" in caplog.text


async def test_a_job_that_was_taken_away_is_a_loss_and_says_where_it_is(
    app: procrastinate.App, query: Run, caplog: pytest.LogCaptureFixture
) -> None:
    those = await held(app, 3)
    first, second, third = (job.id for job in those.jobs)
    recover = "update procrastinate_jobs set crashes = 1, worker_id = null, status = "
    query(f"{recover} 'todo' where id < {third}")
    query(f"{recover} 'failed', finished_at = now() where id = {third}")
    query(
        f"update procrastinate_jobs set hold = 'schedule', scheduled_at = now() where id = {first}"
    )
    other = await app._gateway.run_async(workers.register_worker("other"))
    assert [job.id for job in await claimed(app, other)] == [second]
    await those.write(SUCCEEDED, UNSTARTED, SUCCEEDED)

    lost = [each for each in caplog.records if getattr(each, "action", "") == "lost_lease"]
    assert {
        (each.levelname, each.getMessage().partition(", attempt 1: ")[::2]) for each in lost
    } == {
        ("WARNING", (f"job {job_id}", f"its ending was not written, because {why}"))
        for job_id, why in [
            (first, "this worker lost the job: it waits in the queue again"),
            (second, f"this worker lost the job: worker {other} runs it now"),
            (third, "this worker lost the job: it has ended as failed"),
        ]
    }


async def test_one_of_500_retries_that_meets_an_open_twin_takes_12_statements_and_holds_up_nothing(
    app: procrastinate.App,
    sync_app: procrastinate.App,
    dsn: str,
    query: Run,
    counted: Counter[str],
    until: Any,
) -> None:
    """All may meet one. The others are written, and what ends meanwhile goes past the search."""
    those = await held(app, 500, queueing_lock="lock {}")
    await app.configure_task("fine").defer_async()
    (fine,) = await claimed(app, those.worker_id)
    users = psycopg2.connect(dsn)
    sync_app.configure_task("task", queueing_lock="lock 321", connection=users).defer()
    counted.clear()

    for job in those.jobs:
        those.writer.add(Ended(job, Requeued(when=timedelta(hours=1))))
    writing = asyncio.create_task(those.writer.run())
    await until(lambda: counted["settle_jobs"] >= 2)
    before = counted["settle_jobs"]
    those.writer.add(Ended(fine, SUCCEEDED))
    await until(lambda: counted["finish_jobs"] == 1)
    assert counted["settle_jobs"] <= before + 2, "it had to wait for the search"
    waiting = "select count(*) from procrastinate_jobs where status = 'todo'"
    await until(lambda: query(waiting) == [(499,)])
    assert counted["settle_jobs"] <= 12, counted
    assert query("select status::text from procrastinate_jobs where id = %s", fine.id) == [
        ("succeeded",)
    ]
    users.commit()
    users.close()
    await until(lambda: len(those.writer) == 0)
    writing.cancel()
    assert query("select queueing_lock from procrastinate_jobs where status = 'cancelled'") == [
        ("lock 321",)
    ]


async def test_an_error_that_cannot_be_stored_spoils_no_other(
    app: procrastinate.App, query: Run, until: Any
) -> None:
    those = await held(app, 20)
    retries = [Requeued(error={"message": "fine", "attempt": 1}) for _ in those.jobs]
    retries[7] = Requeued(error={"message": "\0", "attempt": 1})
    await those.write(*retries)

    messages = query("select errors -> -1 ->> 'message' from procrastinate_jobs order by id")
    expected = ["fine"] * 20
    expected[7] = "the error of this attempt could not be stored"
    assert [message for (message,) in messages] == expected


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53400"])
async def test_a_server_that_is_short_of_something_is_told_of_once_and_gets_every_ending(
    app: procrastinate.App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sqlstate: str,
) -> None:
    caplog.set_level(logging.INFO, "procrastinate.worker")
    those = await held(app, 8)
    run_async, left = app._gateway.run_async, 9

    async def short(flow: Any, **options: Any) -> Any:
        nonlocal left
        if flow.__name__ == "settle" and left:
            left -= 1
            raise ConnectorException("no space", sqlstate=sqlstate)
        return await run_async(flow, **options)

    monkeypatch.setattr(app._gateway, "run_async", short)
    await those.write(*[SUCCEEDED] * 8)

    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "waiting for the database with 8 endings: no space"),
        ("INFO", "the database takes endings again"),
    ]
    statuses = [await app.job_manager.get_job_status_async(job.id) for job in those.jobs]
    assert statuses == [Status.SUCCEEDED] * 8


async def test_a_result_that_is_refused_spoils_no_other(
    app: procrastinate.App, query: Run, until: Any
) -> None:
    """What the worker looks at before is no reason for that; the database has the last word."""
    those = await held(app, 20)
    returned = [Finished(Status.SUCCEEDED, result=str(n)) for n in range(20)]
    returned[7] = Finished(Status.SUCCEEDED, result="{")
    await those.write(*returned)

    rows = query(
        "select status::text, result::text, result_error from procrastinate_jobs order by id"
    )
    expected: list[tuple[Any, ...]] = [("succeeded", str(n), None) for n in range(20)]
    expected[7] = ("succeeded", None, RESULT_REFUSED)
    assert rows == expected


async def test_large_results_are_written_in_several_batches(
    app: procrastinate.App, query: Run, counted: Counter[str], until: Any
) -> None:
    those = await held(app, 5)
    text = f'"{"x" * (MAX_RESULTS // 2)}"'
    await those.write(*[Finished(Status.SUCCEEDED, result=text) for _ in range(5)])

    assert query("select count(*) from procrastinate_jobs where result is not null") == [(5,)]
    assert counted["finish_jobs_with_results"] == 3, counted


# The errors of earlier attempts


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_a_task_reads_its_earlier_errors_when_it_asks(
    any_app: procrastinate.App, kind: str
) -> None:
    seen: list[list[str]] = []

    def work(context: JobContext) -> None:
        if context.job.attempts < 3:
            raise ValueError(f"number {context.job.attempts}")
        seen.append([each["message"] for each in context.job.errors])
        seen.append([each["message"] for each in context.job.errors])

    async def async_work(context: JobContext) -> None:
        work(context)

    task = async_work if kind == "coroutine" else work
    await any_app.task(name="task", retry=2, pass_context=True)(task).defer_async()
    await any_app.run_worker_async(wait=False, install_signal_handlers=False)
    assert seen == [["number 1", "number 2"]] * 2


async def test_a_retry_strategy_and_middleware_see_the_earlier_errors(
    any_app: procrastinate.App,
) -> None:
    seen: list[tuple[str, int]] = []

    class Strategy(procrastinate.BaseRetryStrategy):
        def get_retry_decision(
            self, *, exception: BaseException, job: Job
        ) -> procrastinate.RetryDecision | None:
            seen.append(("strategy", len(job.errors)))
            return procrastinate.RetryDecision() if job.attempts < 3 else None

    async def layer(call_next: Any, context: JobContext, worker: Any) -> Any:
        seen.append(("middleware", len(context.job.errors)))
        return await call_next()

    @any_app.task(name="task", retry=Strategy(), middleware=[layer])
    async def task() -> None:
        raise ValueError

    await task.defer_async()
    await any_app.run_worker_async(wait=False, install_signal_handlers=False)
    assert seen == [(who, n) for n in range(3) for who in ("middleware", "strategy")]


async def test_the_errors_of_a_claimed_job_do_not_stop_the_event_loop_for_long(
    app: procrastinate.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller is told that the database does not answer."""
    import threading

    from procrastinate.worker.running import past_errors

    monkeypatch.setattr(past_errors, "LOOP_WAITS_FOR", 0.05)
    go, told = threading.Event(), []

    def silent(self: Any, flow: Any, **options: Any) -> Any:
        go.wait(20)
        flow.close()
        return []

    @app.task(name="task", retry=1, pass_context=True)
    async def task(context: JobContext) -> None:
        if context.job.attempts == 1:
            raise ValueError
        monkeypatch.setattr(type(app._gateway), "run", silent)
        try:
            _ = context.job.errors
        except procrastinate.ConnectorException as exc:
            told.append(str(exc))

    await task.defer_async()
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    go.set()
    assert told == ["the errors of job 1 could not be read within 0.05 s"]


@pytest.mark.parametrize(
    ("keeps", "left"), [(lambda name: name == "task", ["aborted"]), (keeps_none, [])]
)
async def test_a_job_that_ends_unbegun_stays_if_its_task_keeps_results(
    any_app: procrastinate.App, keeps: Keeps, left: list[str]
) -> None:
    before = await held(any_app, 1)
    await any_app.job_manager.cancel_job_by_id_async(before.jobs[0].id, abort=True)
    those = Held(any_app, before.jobs, before.worker_id, "always", keeps)
    await those.write(UNSTARTED)
    jobs = await any_app.job_manager.list_jobs_async()
    assert [job.status.value for job in jobs] == left
