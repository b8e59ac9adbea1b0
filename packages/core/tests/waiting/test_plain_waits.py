"""Waiting in plain code: in a forked child, interrupted, and on connectors that cannot listen."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

import procrastinate
from procrastinate.errors import (
    AppNotOpen,
    ConnectionLost,
    InvalidData,
    JobNotFound,
)
from procrastinate.model.job import Job
from procrastinate.storage.waits import Look
from procrastinate.waiting import looking
from procrastinate.waiting.hearing import ids_in
from procrastinate.waiting.keeper import LASTING_US
from procrastinate.waiting.looking import looks

Query = Callable[..., list[tuple[Any, ...]]]
End = Callable[..., None]
Rows = Callable[[], list[int]]

LONG = 30.0  # seconds that no wait of these tests takes


@pytest.fixture
def plain_app(dsn: str) -> Iterator[procrastinate.App]:
    """An app on psycopg 3 that is open for plain calls."""
    url = dsn.replace("postgresql://", "psycopg://", 1)
    with procrastinate.App(connector=url).open() as app:
        yield app


def soon(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def when(holds: Callable[[], object], do: Callable[[], object]) -> threading.Thread:
    """Do something in a thread once a condition holds."""
    thread = threading.Thread(target=lambda: (soon(holds), do()))
    thread.start()
    return thread


def test_a_plain_wait_needs_no_event_loop(
    plain_app: procrastinate.App, end: End, waiting: Rows
) -> None:
    job_id = plain_app.configure_task("t").defer()
    ender = when(lambda: waiting() == [job_id], lambda: end(job_id))
    job = plain_app._gateway.waiting_room.until_ended(job_id, timeout=LONG)
    ender.join()
    assert job is not None
    assert job.status == "succeeded"
    soon(lambda: waiting() == [])


def test_an_interrupted_wait_leaves_no_row(plain_app: procrastinate.App, waiting: Rows) -> None:
    job_id = plain_app.configure_task("t").defer()
    main = threading.get_ident()
    interrupter = when(
        lambda: waiting() == [job_id], lambda: signal.pthread_kill(main, signal.SIGINT)
    )
    with pytest.raises(KeyboardInterrupt):
        plain_app._gateway.waiting_room.until_ended(job_id, timeout=LONG)
    interrupter.join()
    soon(lambda: waiting() == [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_waits_by_itself_and_the_parent_waits_on(
    plain_app: procrastinate.App, end: End, waiting: Rows
) -> None:
    ours, childs = plain_app.configure_task("t").batch_defer({}, {})
    room, ended = plain_app._gateway.waiting_room, []
    thread = threading.Thread(
        target=lambda: ended.append(room.until_ended(ours, timeout=LONG)), daemon=True
    )
    thread.start()
    soon(lambda: waiting() == [ours])
    child = os.fork()
    if not child:
        code = 1
        try:
            job = room.until_ended(childs, timeout=LONG)
            code = 7 if job is not None and job.id == childs else 2
        finally:
            os._exit(code)
    soon(lambda: waiting() == [ours, childs])
    end(childs)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert ended == []
    end(ours)
    thread.join(LONG)
    assert [job.id for job in ended if job] == [ours]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_killed_while_it_waits_holds_up_no_other(
    plain_app: procrastinate.App, end: End, waiting: Rows, query: Query
) -> None:
    """Its row stays until it expires: `test_pruning` shows that a worker removes it then."""
    job_id = plain_app.configure_task("t").defer()
    room = plain_app._gateway.waiting_room
    child = os.fork()
    if not child:
        try:
            room.until_ended(job_id, timeout=LONG)
        finally:
            os._exit(1)
    soon(lambda: waiting() == [job_id])
    ((its_waiter,),) = query("select waiter from procrastinate_waits")
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL

    ender = when(lambda: waiting() == [job_id] * 2, lambda: end(job_id))
    job = room.until_ended(job_id, timeout=LONG)
    ender.join()
    assert job is not None
    assert job.status == "succeeded"
    soon(lambda: query("select waiter from procrastinate_waits") == [(its_waiter,)])
    ((left,),) = query("select expires_at - now() from procrastinate_waits")
    assert timedelta() < left <= timedelta(microseconds=LASTING_US)


# Without notifications


@pytest.fixture(params=["psycopg2", "psycopg-sync"])
def looking_app(dsn: str, request: pytest.FixtureRequest) -> Iterator[procrastinate.App]:
    """An app on a synchronous connector."""
    url = dsn.replace("postgresql://", f"{request.param}://", 1)
    with procrastinate.App(connector=url).open() as app:
        yield app


def test_who_cannot_listen_looks(
    looking_app: procrastinate.App,
    end: End,
    waiting: Rows,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[int] = set()
    monkeypatch.setattr(looking, "pause_after", lambda _: seen.add(threading.get_ident()) or 0.02)
    kept, removed = looking_app.configure_task("t").batch_defer({}, {})
    room, ended = looking_app._gateway.waiting_room, []
    threads = [
        threading.Thread(
            target=lambda each=each: ended.append(room.until_ended(each, timeout=LONG))
        )
        for each in (kept, removed)
    ]
    for thread in threads:
        thread.start()
    soon(lambda: len(seen) == 2)
    end(kept)
    threads[0].join()
    query("delete from procrastinate_jobs where id = %s", removed)
    threads[1].join()
    assert [job and (job.id, job.status) for job in ended] == [(kept, "succeeded"), None]
    assert (waiting(), room.is_used) == ([], False)
    with pytest.raises(JobNotFound, match="Commit"):
        room.until_ended(removed, timeout=LONG)
    looking_app.close()
    with pytest.raises(AppNotOpen):
        room.until_ended(kept, timeout=LONG)


async def test_coroutines_look_too(dsn: str, end: End) -> None:
    url = dsn.replace("postgresql://", "psycopg2://", 1)
    async with procrastinate.App(connector=url).open_async() as app:
        job_id = await app.configure_task("t").defer_async()
        room = app._gateway.waiting_room
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            await room.until_ended_async(job_id, timeout=0.05)
        end(job_id)
        assert await room.until_ended_async(job_id, timeout=None)
        with pytest.raises(JobNotFound):
            await room.until_ended_async(job_id + 100, timeout=None)


async def test_who_can_make_no_connection_beside_a_pool_looks(dsn: str, end: End) -> None:
    import asyncpg

    async with asyncpg.create_pool(dsn, min_size=1) as pool:
        app = procrastinate.App(connector=procrastinate.AsyncpgConnector())
        async with app.open_async(pool):
            job_id = await app.configure_task("t").defer_async()
            room = app._gateway.waiting_room
            end(job_id)
            job = await room.until_ended_async(job_id, timeout=LONG)
            assert (job and job.id, room.is_used) == (job_id, False)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_looks_are_made_at_growing_intervals_until_the_timeout() -> None:
    clock = Clock()
    steps = looks(5, 3.0, clock)
    pauses = [next(steps)]
    with pytest.raises(TimeoutError, match="job 5 has not ended within 3 s"):
        while True:
            clock.now += pauses[-1]
            pauses.append(steps.send(Look(is_there=True)))
    assert pauses[:3] == [0.0, 0.02, 0.02]
    assert max(pauses) <= 0.3
    assert sum(pauses) == pytest.approx(3.0)


def test_a_database_that_is_away_is_waited_for_but_not_by_the_only_look() -> None:
    clock, lost, job = Clock(), ConnectionLost("gone"), Job.__new__(Job)
    steps = looks(5, 3.0, clock)
    assert next(steps) == 0.0
    assert steps.send(lost) == 0.02
    with pytest.raises(StopIteration) as stopped:
        steps.send(Look(is_there=True, job=job))
    assert stopped.value.value is job
    for timeout, error in ((0.0, lost), (3.0, InvalidData("no"))):
        steps = looks(5, timeout, clock)
        next(steps)
        with pytest.raises(type(error)):
            steps.send(error)


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ("5", [5]),
        ("5 17 9223372036854775807", [5, 17, 2**63 - 1]),
        ("9223372036854775808 1", [1]),
        ("", []),
        ("5  6", []),
        ("5,6", []),
        ("-5", []),
        ("5\n6", []),
        ("\u0665", []),
        ("1" * 5_000, []),
        ("1 " * 4_000 + "11", []),
    ],
)
def test_a_payload_is_a_list_of_ids_or_nothing(payload: str, ids: list[int]) -> None:
    assert ids_in(payload) == ids
