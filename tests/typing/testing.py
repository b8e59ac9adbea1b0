"""What a type checker knows of the API for tests. Never run, only checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

import pytest

from procrastinate import App, Job
from procrastinate.testing import Clock, InMemoryConnector, in_memory, run_jobs, run_jobs_async
from procrastinate_pytest import PutInMemory

app = App(connector=InMemoryConnector())


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


def jobs_are_run() -> None:
    assert_type(run_jobs(app), list[Job])
    run_jobs(app, queues=["a"], limit=3, raise_errors=False, additional_context={"a": 1})
    run_jobs(app, limit="3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    run_jobs()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


async def jobs_are_run_asynchronously() -> None:
    assert_type(await run_jobs_async(app, limit=1), list[Job])


def apps_are_put_in_memory() -> None:
    with in_memory(app, app.with_connector("psycopg2")) as connector:
        assert_type(connector, InMemoryConnector)
        assert_type(connector.jobs, list[Job])
        assert_type(connector.jobs_of(add), list[Job])
        assert_type(connector.jobs_of("add"), list[Job])
        assert_type(connector.clock, Clock)


def clocks_move(clock: Clock) -> None:
    assert_type(clock.move(hours=1, minutes=30), datetime)
    clock.move(timedelta(days=1))
    clock.move(5)
    with clock.frozen(datetime(2030, 1, 1, tzinfo=UTC)) as now:
        assert_type(now, datetime)


@pytest.fixture
def jobs(procrastinate_in_memory: PutInMemory) -> InMemoryConnector:
    return procrastinate_in_memory(app)
