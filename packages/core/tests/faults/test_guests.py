"""A worker among others: in somebody else's loop, in a deployment, beside a small pool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import procrastinate

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.parametrize("why", ["no tables", "not open", "a wrong option"])
async def test_a_worker_in_a_task_that_ends_at_once_says_why(
    procrastinate_dsn: str, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    """The task's exception is shown when it is collected, which may be never."""
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=procrastinate_dsn))
    options: dict[str, Any] = {"concurrency": 0} if why == "a wrong option" else {}
    if why != "not open":
        await app.open_async()
    worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False, **options))
    await asyncio.wait([worker], timeout=10)
    assert isinstance(worker.exception(), procrastinate.errors.ProcrastinateException)
    await app.close_async()
    told = [
        each
        for each in caplog.records
        if each.levelno >= logging.ERROR and each.name.startswith("procrastinate")
    ]
    assert len(told) == 1


async def test_an_old_worker_leaves_the_jobs_of_a_new_task_to_a_new_one(
    dsn: str, working: Any, until: Any, query: Query
) -> None:
    old = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
    new = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))

    async def known() -> None: ...

    async def unknown() -> None: ...

    for app in (old, new):
        app.task(name="known")(known)
    new.task(name="new")(unknown)

    def statuses() -> list[tuple[Any, ...]]:
        return query("select task_name, status::text from procrastinate_jobs order by id")

    async with old.open_async(), new.open_async():
        await new.configure_task("new").defer_async()
        await new.configure_task("known").defer_async()
        async with working(old):
            await until(lambda: statuses()[1][1] == "succeeded")
        assert statuses() == [("new", "todo"), ("known", "succeeded")]
        async with working(new):
            await until(lambda: statuses()[0][1] == "succeeded")


async def test_only_the_pool_opens_as_many_connections_as_it_is_told(
    dsn: str, working: Any, until: Any, query: Query
) -> None:
    connector = procrastinate.AiopgConnector(dsn=dsn, minsize=10)
    app = procrastinate.App(connector=connector)

    @app.periodic(cron="* * * * * *")
    @app.task(name="tick")
    async def tick(timestamp: int) -> None: ...

    async with app.open_async(), working(app):
        await until(lambda: query("select 1 from procrastinate_jobs where status = 'succeeded'"))
        ((sessions,),) = query(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )
    assert sessions <= 10 + 4
