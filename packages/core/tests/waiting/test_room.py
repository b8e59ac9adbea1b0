"""Waiting for the end of a job: the process's rows, its listener, and what comes in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import (
    AppNotOpen,
    InsufficientPrivilege,
    InvalidOption,
    JobNotFound,
    SchemaError,
)
from procrastinate.model.endings import waits
from procrastinate.storage import workers
from procrastinate.waiting import hearing, keeper
from procrastinate.waiting.keeper import Keeper
from procrastinate.waiting.room import SHORT, WaitingRoom
from procrastinate.waiting.wait import PlainWait

Query = Callable[..., list[tuple[Any, ...]]]
Until = Callable[..., Awaitable[None]]
End = Callable[..., None]
Rows = Callable[[], list[int]]
Wake = Callable[..., None]

LONG = 30.0  # seconds that no wait of these tests takes


#: A test that runs on each driver that can listen.
on_each = pytest.mark.parametrize(
    "app", ["aiopg", "psycopg", "asyncpg", "sqlalchemy-async"], indirect=True
)


@pytest.fixture
async def app(dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[procrastinate.App]:
    """An open app on a driver that can listen: psycopg, unless the test names another."""
    name = getattr(request, "param", "psycopg")
    url = dsn.replace("postgresql://", f"{name}://", 1)
    async with procrastinate.App(connector=url).open_async() as app:
        yield app


@pytest.fixture
def room(app: procrastinate.App) -> WaitingRoom:
    return app._gateway.waiting_room


async def deferred(app: procrastinate.App, count: int = 1) -> list[int]:
    return await app.configure_task("t").batch_defer_async(*[{"n": n} for n in range(count)])


@on_each
async def test_a_wait_ends_with_the_job(
    app: procrastinate.App, room: WaitingRoom, end: End, until: Until, waiting: Rows
) -> None:
    first, second = await deferred(app, 2)
    ends = [
        asyncio.ensure_future(room.until_ended_async(first, timeout=LONG)),
        asyncio.ensure_future(room.until_ended_async(first, timeout=LONG)),
        asyncio.ensure_future(room.until_ended_async(second, timeout=None)),
        asyncio.ensure_future(asyncio.to_thread(room.until_ended, second, timeout=None)),
    ]
    await until(lambda: waiting() == [first, second])
    end(first)
    one, same = await asyncio.gather(*ends[:2])
    assert one is not None
    assert (one, one.id, one.status, one.task_kwargs) == (same, first, "succeeded", {"n": 0})
    assert not ends[2].done()
    end(second, status="failed")
    assert [job.status for job in await asyncio.gather(*ends[2:]) if job] == ["failed"] * 2
    await until(lambda: waiting() == [])


async def test_many_wait_and_leave_no_row(
    app: procrastinate.App, room: WaitingRoom, end: End, until: Until, waiting: Rows
) -> None:
    ids = await deferred(app, 3_000)
    tasks = [asyncio.ensure_future(room.until_ended_async(each, timeout=None)) for each in ids]
    await until(lambda: len(waiting()) == len(ids))
    for start in range(0, len(ids), 300):
        end(*ids[start : start + 300])
    jobs = await asyncio.gather(*tasks)
    assert [job.id for job in jobs if job] == ids
    await until(lambda: waiting() == [])


async def test_a_job_that_ended_before_is_given_at_once(
    app: procrastinate.App, room: WaitingRoom, end: End, until: Until, waiting: Rows
) -> None:
    (job_id,) = await deferred(app)
    end(job_id, status="aborted", quietly=True)
    for timeout in (0, SHORT, LONG):
        job = await room.until_ended_async(job_id, timeout=timeout)
        assert job is not None
        assert (job.id, job.status) == (job_id, "aborted")
    await until(lambda: waiting() == [])


@pytest.mark.parametrize("timeout", [0, LONG])
async def test_a_job_that_does_not_exist_is_not_waited_for(
    app: procrastinate.App, room: WaitingRoom, timeout: float
) -> None:
    for wait in (
        room.until_ended_async(2**40, timeout=timeout),
        asyncio.to_thread(room.until_ended, 2**40, timeout=timeout),
    ):
        with pytest.raises(JobNotFound, match=f"{2**40}.*[Cc]ommit"):
            await wait


async def test_a_job_that_is_removed_meanwhile_gives_none(
    app: procrastinate.App,
    room: WaitingRoom,
    query: Query,
    wake: Wake,
    until: Until,
    waiting: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "POLL_EVERY", 0.3)
    told, untold = await deferred(app, 2)
    ends = [asyncio.ensure_future(room.until_ended_async(told, timeout=LONG))]
    ends.append(asyncio.ensure_future(room.until_ended_async(untold, timeout=LONG)))
    await until(lambda: waiting() == [told, untold])
    await room_has_looked(room, until)
    query("delete from procrastinate_jobs where id = %s", told)
    wake(told)
    assert await ends[0] is None
    query("delete from procrastinate_jobs where id = %s", untold)
    assert await ends[1] is None  # the poll finds it


async def room_has_looked(room: WaitingRoom, until: Until) -> None:
    """Wait until all that are waited for were seen twice."""
    kept = room._keeper._waits  # type: ignore[union-attr]
    await until(lambda: kept._jobs and all(each.was_seen for each in kept._jobs.values()))
    await until(lambda: not kept._again)


async def test_a_retry_in_between_is_waited_through(
    app: procrastinate.App, room: WaitingRoom, end: End, wake: Wake, until: Until, waiting: Rows
) -> None:
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await until(lambda: waiting() == [job_id])
    await room_has_looked(room, until)
    wake(job_id)  # a notification of an end that a retry has overtaken
    await room_has_looked(room, until)
    end(job_id)
    job = await wait
    assert job is not None
    assert job.status == "succeeded"


@pytest.mark.parametrize("timeout", [0, 0.01, 0.4])
async def test_a_timeout_says_of_which_job_and_leaves_no_row(
    app: procrastinate.App,
    room: WaitingRoom,
    until: Until,
    waiting: Rows,
    timeout: float,
) -> None:
    (job_id,) = await deferred(app)
    with pytest.raises(TimeoutError, match=f"job {job_id} has not ended"):
        await room.until_ended_async(job_id, timeout=timeout)
    with pytest.raises(TimeoutError, match=f"job {job_id} has not ended"):
        await asyncio.to_thread(room.until_ended, job_id, timeout=timeout)
    await until(lambda: waiting() == [])


async def test_a_cancelled_wait_leaves_no_row(
    app: procrastinate.App, room: WaitingRoom, until: Until, waiting: Rows
) -> None:
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=None))
    await until(lambda: waiting() == [job_id])
    wait.cancel()
    await until(lambda: waiting() == [])
    assert wait.cancelled()


async def test_whoever_waits_on_a_loop_that_is_closed_is_forgotten(
    app: procrastinate.App,
    room: WaitingRoom,
    until: Until,
    waiting: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "LEARN_EVERY", 0.1)
    (job_id,) = await deferred(app)
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[Any]:
        wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=None))
        await asyncio.sleep(0)
        return wait

    wait = await asyncio.to_thread(loop.run_until_complete, begin())
    await until(lambda: waiting() == [job_id])
    loop.close()
    await until(lambda: waiting() == [])
    assert not wait.done()
    wait._log_destroy_pending = False  # type: ignore[attr-defined]


@on_each
async def test_closing_the_app_ends_its_waits(
    app: procrastinate.App, room: WaitingRoom, until: Until, waiting: Rows, query: Query
) -> None:
    (job_id,) = await deferred(app)
    those = [
        asyncio.ensure_future(room.until_ended_async(job_id, timeout=None)),
        asyncio.ensure_future(asyncio.to_thread(room.until_ended, job_id, timeout=None)),
    ]
    await until(lambda: waiting() == [job_id])
    await app.close_async()
    for wait in those:
        with pytest.raises(AppNotOpen, match="closed"):
            await wait
    assert waiting() == []
    await until(lambda: others(query) == [])
    with pytest.raises(AppNotOpen, match="not open"):
        await room.until_ended_async(job_id, timeout=1)
    with pytest.raises(AppNotOpen, match="not open"):
        room.until_ended(job_id, timeout=1)


async def test_closing_the_app_does_not_wait_for_a_thread_that_others_have_taken(
    app: procrastinate.App, room: WaitingRoom, until: Until, waiting: Rows
) -> None:
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=None))
    await until(lambda: waiting() == [job_id])
    executor, go_on = ThreadPoolExecutor(1), threading.Event()
    executor.submit(go_on.wait, 60)
    asyncio.get_running_loop().set_default_executor(executor)
    closing = asyncio.ensure_future(app.close_async())
    in_time, _ = await asyncio.wait([closing], timeout=20)
    go_on.set()
    await closing

    assert in_time
    with pytest.raises(AppNotOpen, match="closed"):
        await wait


def others(query: Query) -> list[tuple[Any, ...]]:
    """Return the connections to the database, but for the test's own."""
    return query(
        "select pid, query from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
        " and application_name <> 'test'"
    )


@on_each
async def test_the_connections_are_given_back_when_nobody_waits(
    app: procrastinate.App,
    room: WaitingRoom,
    end: End,
    query: Query,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "IDLE_ENDS_AFTER", 0.2)
    ids = await deferred(app, 2)
    before = {row[0] for row in others(query)}
    for job_id in ids:
        wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
        await until(lambda: len({row[0] for row in others(query)} - before) == 2)
        end(job_id)
        assert await wait
        await until(lambda: not {row[0] for row in others(query)} - before)
        await until(lambda: not room.is_used)


@on_each
async def test_killed_connections_are_made_anew(
    app: procrastinate.App, room: WaitingRoom, end: End, query: Query, until: Until, waiting: Rows
) -> None:
    first, second = await deferred(app, 2)
    those = [
        asyncio.ensure_future(room.until_ended_async(each, timeout=LONG))
        for each in (first, second)
    ]
    await until(lambda: waiting() == [first, second])
    await room_has_looked(room, until)
    query("truncate procrastinate_waits")  # as a crash of the server does
    query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and application_name <> 'test'"
    )
    end(first)
    assert await those[0]
    await until(lambda: waiting() == [second])
    end(second)
    assert await those[1]


async def test_what_no_notification_says_the_poll_finds(
    app: procrastinate.App,
    room: WaitingRoom,
    end: End,
    until: Until,
    waiting: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "POLL_EVERY", 0.3)
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await until(lambda: waiting() == [job_id])
    await room_has_looked(room, until)
    end(job_id, quietly=True)
    assert await wait


async def test_another_thread_takes_the_waits_of_one_that_died(
    app: procrastinate.App,
    room: WaitingRoom,
    end: End,
    until: Until,
    waiting: Rows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("procrastinate.waiting.room.REBORN_AFTER", 0.0)
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    plain = asyncio.ensure_future(asyncio.to_thread(room.until_ended, job_id, timeout=LONG))
    await until(lambda: waiting() == [job_id])
    first = room._keeper
    assert first is not None
    assert first._loop is not None

    def die() -> None:
        raise SystemExit

    first._loop.call_soon_threadsafe(die)
    await until(lambda: room._keeper not in (first, None))
    await until(lambda: waiting() == [job_id])
    end(job_id)
    assert await wait == await plain
    assert "another one takes its waits up" in caplog.text


async def test_a_wait_of_a_thread_that_died_ends_if_the_app_was_closed_meanwhile(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procrastinate.waiting.room.REBORN_AFTER", 0.0)
    app = procrastinate.App(connector=dsn.replace("postgresql://", "psycopg://", 1))
    async with app.open_async():
        room = app._gateway.waiting_room
    wait, died = PlainWait(1), Keeper(app._gateway, room._beside, on_end=lambda *_: None)
    room._ended(died, [wait], SystemExit())
    assert isinstance(wait.outcome(0.0), AppNotOpen)
    assert not room.is_used


async def test_if_no_thread_can_be_started_a_wait_looks_by_itself(
    app: procrastinate.App, room: WaitingRoom, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Keeper) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Keeper, "start", refused)
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await asyncio.sleep(0)
    end(job_id, quietly=True)
    assert await wait
    assert not room.is_used


async def test_a_role_that_may_not_write_rows_polls(
    app: procrastinate.App,
    room: WaitingRoom,
    end: End,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refused(*args: Any, **options: Any) -> Any:
        raise InsufficientPrivilege("as asked", sqlstate="42501")
        yield

    monkeypatch.setattr("procrastinate.storage.waits.register_waits", refused)
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await until(lambda: "no row can be written" in caplog.text)
    end(job_id, quietly=True)
    assert await wait


async def test_an_error_that_stays_is_raised(
    app: procrastinate.App, room: WaitingRoom, query: Query
) -> None:
    (job_id,) = await deferred(app)
    query("alter table procrastinate_jobs rename to gone")
    with pytest.raises(SchemaError):
        await room.until_ended_async(job_id, timeout=LONG)
    with pytest.raises(SchemaError):
        await room.until_ended_async(job_id, timeout=0)
    query("alter table gone rename to procrastinate_jobs")


@pytest.mark.parametrize("job_id", ["1", True, -1, 2**63, None])
async def test_what_is_no_id_is_refused(
    app: procrastinate.App, room: WaitingRoom, job_id: Any
) -> None:
    with pytest.raises(InvalidOption, match="id"):
        await room.until_ended_async(job_id, timeout=0)
    with pytest.raises(InvalidOption, match="id"):
        room.until_ended(job_id, timeout=0)


async def test_until_it_hears_itself_a_process_looks_every_second(
    app: procrastinate.App,
    room: WaitingRoom,
    end: End,
    until: Until,
    waiting: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "POLL_EVERY", 3600.0)
    monkeypatch.setattr(hearing, "notify_listener", lambda channel: workers.probe_partition())
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await until(lambda: waiting() == [job_id])
    await room_has_looked(room, until)
    end(job_id, quietly=True)
    assert await wait


async def test_a_connection_that_breaks_at_the_end_leaves_no_row_of_those_who_waited(
    app: procrastinate.App,
    room: WaitingRoom,
    until: Until,
    waiting: Rows,
    removals: Callable[[str], Callable[[], int]],
) -> None:
    (job_id,) = await deferred(app)
    wait = asyncio.ensure_future(room.until_ended_async(job_id, timeout=LONG))
    await until(lambda: waiting() == [job_id])
    removed = removals("procrastinate_waits")
    await app.close_async()
    with pytest.raises(AppNotOpen):
        await wait
    assert (removed(), waiting()) == (2, [])
