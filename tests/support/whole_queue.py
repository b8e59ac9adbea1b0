"""One use of everything that the queue can do, for tests of what it must not depend on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate import AlreadyEnqueued, JobContext, Status

Rows = list[tuple[Any, ...]]
Run = Callable[..., Rows]

TEXT = "é 雪 🦆 \\ \" ' NULL {} %"


class Tasks:
    """An app and what its tasks have seen."""

    def __init__(self, dsn: str) -> None:
        self.app = app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
        self.ran: list[str | None] = []
        self.began = asyncio.Event()

        @app.task(name="say")
        async def say(text: str | None) -> None:
            self.ran.append(text)

        @app.task(
            name="flaky", retry=procrastinate.RetryStrategy(max_attempts=2), pass_context=True
        )
        def flaky(context: JobContext, text: str) -> None:
            started = context.job.started_at
            assert started is not None
            assert abs(datetime.now(UTC) - started) < timedelta(minutes=1)
            if context.job.attempts == 1:
                raise ValueError(text)

        @app.task(name="bad")
        def bad() -> None:
            raise ValueError(TEXT)

        @app.task(name="endless")
        async def endless() -> None:
            self.began.set()
            await asyncio.Event().wait()

        # Due a minute ago, and then not for a day.
        self.tick = (datetime.now(UTC) - timedelta(minutes=1)).replace(second=0, microsecond=0)

        @app.periodic(cron=f"{self.tick:%M %H} * * *", timezone="UTC")
        @app.task(name="daily", queueing_lock="daily")
        async def daily(timestamp: int) -> None: ...

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[None]:
        running = asyncio.create_task(
            self.app.run_worker_async(install_signal_handlers=False, **options)
        )
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def status_of(self, job_id: int, wanted: Status) -> None:
        async with asyncio.timeout(20):
            while await self.app.job_manager.get_job_status_async(job_id) is not wanted:
                await asyncio.sleep(0.02)


async def everything(query: Run, dsn: str) -> tuple[Rows, list[str | None]]:
    """Use the whole queue, and return what is in the table of jobs then, and what has run.

    ``query`` runs SQL for us as an owner of the tables, the app connects by ``dsn``.
    """
    tasks = Tasks(dsn)
    app, jobs = tasks.app, tasks.app.job_manager
    query(
        "with dead as (insert into procrastinate_workers (name, last_heartbeat)"
        " values ('dead', now() - interval '1 day') returning id)"
        " insert into procrastinate_jobs"
        " (task_name, queue_name, args, status, worker_id, attempts, lease)"
        " select 'say', 'default', '{\"text\": \"recovered\"}', 'doing', id, 1, 1 from dead;"
        "insert into procrastinate_periodic (task_name, periodic_id, done_until)"
        " values ('daily', '', %s) on conflict (task_name, periodic_id, partition)"
        " do update set done_until = excluded.done_until",
        tasks.tick - timedelta(seconds=1),
    )
    async with app.open_async():
        say = app.tasks["say"]
        await say.defer_async(text=TEXT)
        await say.configure(priority=5, lock="NULL").defer_async(text="lock named NULL")
        await say.configure(lock=TEXT).batch_defer_async({"text": "1"}, {"text": "2"})
        await say.configure(schedule_in=timedelta(milliseconds=1)).defer_async(text=None)
        later = await say.configure(schedule_in=timedelta(hours=1)).defer_async(text="later")
        waiting = say.configure(queueing_lock=TEXT, queue="nobody")
        once = await waiting.defer_async(text="once")
        with pytest.raises(AlreadyEnqueued):
            await waiting.defer_async(text="twice")
        with pytest.raises(AlreadyEnqueued):
            await waiting.batch_defer_async({"text": "three times"})
        await app.tasks["flaky"].configure(lock="a").batch_defer_async({"text": TEXT})
        bad = await app.tasks["bad"].configure(lock="a").defer_async()
        by_caller(dsn)
        await app.run_worker_async(wait=False, queues=["default"], concurrency=3)
        await tasks.status_of(bad, Status.FAILED)

        endless = await app.tasks["endless"].defer_async()
        async with tasks.working(abort_job_polling_interval=0.1, queues=["default"]):
            async with asyncio.timeout(20):
                await tasks.began.wait()
            assert await jobs.cancel_job_by_id_async(endless, abort=True)
            await tasks.status_of(endless, Status.ABORTED)

        assert (await jobs.get_job_async(once)).queueing_lock == TEXT
        assert await jobs.cancel_job_by_id_async(later)
        assert await jobs.retry_job_by_id_async(bad)
        assert len(await jobs.cancel_jobs_async(task="bad")) == 1
        assert len(await jobs.retry_jobs_async(status=["cancelled"], task="bad")) == 1
        assert [job.id for job in await jobs.list_jobs_async(lock=TEXT, status=["succeeded"])]
        assert {each.name for each in await jobs.list_queues_async()} == {"default", "nobody"}
        assert {each.name for each in await jobs.list_locks_async()} == {"a", "NULL", TEXT, "c"}
        assert "bad" in {each.name for each in await jobs.list_tasks_async()}
        assert await jobs.get_stalled_jobs_async() == []
        assert await jobs.delete_old_jobs_async(older_than=timedelta(0), statuses=["aborted"]) == 1
    return (
        query(
            "select task_name, args - 'timestamp'::text, queue_name, status::text, hold::text,"
            " priority, lock, queueing_lock, attempts, crashes, errors -> 0 ->> 'message'::text,"
            " started_at between now() - interval '1 minute' and now()"
            " from procrastinate_jobs order by 1, 2, 3, 4, 6, 7"
        ),
        sorted(tasks.ran, key=str),
    )


def by_caller(dsn: str) -> None:
    """Do what can be done in a caller's transaction; it finds its settings as they were."""
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    # Those of plpgsql are there once it is first used.
    settings = "select name, setting from pg_settings where name not like 'plpgsql.%' order by name"
    with app.open(), closing(psycopg2.connect(dsn, client_encoding="UTF8")) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(settings)
            before = cursor.fetchall()
            say = app.configure_task("say", connection=connection)
            say.defer(text="by a caller")
            ids = app.configure_task("say", connection=connection, lock="c").batch_defer(
                {"text": TEXT}, {"text": "cancelled"}
            )
            mixed = app.configure_task("say", connection=connection, queueing_lock="q")
            mixed.batch_defer({"text": "mixed"})
            with pytest.raises(AlreadyEnqueued):
                mixed.defer(text="refused")
            manager = app.job_manager
            assert manager.cancel_job_by_id(ids[1], connection=connection)
            assert manager.retry_job_by_id(ids[1], connection=connection)
            assert manager.cancel_job_by_id(ids[1], connection=connection)
            assert manager.get_job(ids[0], connection=connection).task_kwargs == {"text": TEXT}
            cursor.execute(settings)
            assert cursor.fetchall() == before
        with connection.cursor() as cursor:
            say = app.configure_task("say", connection=connection)
            say.defer(text="rolled back")
            connection.rollback()
