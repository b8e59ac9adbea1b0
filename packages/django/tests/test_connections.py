"""Django's connections around jobs: what a job leaves, and what the next one finds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections

from procrastinate import Job
from procrastinate.model.job import Status
from procrastinate_django import ConnectionCare

from .databases import new_alias

JOB = Job(1, Status.DOING, "default", "task", {})


@pytest.fixture
def alias(procrastinate_dsn: str) -> Iterator[str]:
    """The alias of a database whose connections are kept."""
    alias = new_alias(procrastinate_dsn, CONN_MAX_AGE=None)
    yield alias
    connections[alias].close()


def pid_of(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


def end(alias: str, pid: int) -> None:
    """End a connection from the server's side, and wait until it is gone."""
    another = connections[alias].copy()
    try:
        with another.cursor() as cursor:
            cursor.execute("select pg_terminate_backend(%s, 30000)", [pid])
    finally:
        another.close()


def test_a_connection_is_kept_from_job_to_job(alias: str) -> None:
    care = ConnectionCare()
    with care.around_attempt(JOB):
        first = pid_of(alias)
    with care.around_attempt(JOB):
        assert pid_of(alias) == first


def test_a_connection_that_broke_meanwhile_is_made_anew(alias: str) -> None:
    care = ConnectionCare()
    with care.around_attempt(JOB):
        first = pid_of(alias)
    end(alias, first)
    with care.around_attempt(JOB):
        assert pid_of(alias) != first


def test_a_connection_is_closed_after_the_job_if_it_is_not_to_be_kept(
    procrastinate_dsn: str,
) -> None:
    alias = new_alias(procrastinate_dsn)
    with ConnectionCare().around_attempt(JOB):
        pid_of(alias)
    assert connections[alias].connection is None


def test_each_coroutine_has_a_thread_and_connections_of_its_own(alias: str) -> None:
    threads: dict[str, Any] = {}
    both = asyncio.Event()

    def look(name: str) -> None:
        threads[name] = (threading.current_thread(), connections[alias])
        pid_of(alias)

    async def job(name: str) -> None:
        with ConnectionCare().around_attempt(JOB):
            await sync_to_async(look)(name)
            if len(threads) == 2:
                both.set()
            await both.wait()
            assert await sync_to_async(threading.current_thread)() is threads[name][0]

    async def run() -> None:
        await asyncio.gather(job("one"), job("two"))
        assert SyncToAsync.thread_sensitive_context.get(None) is None

    asyncio.run(run())
    (one, of_one), (two, of_two) = threads.values()
    assert one is not two
    for thread, wrapper in ((one, of_one), (two, of_two)):
        thread.join(30)
        assert not thread.is_alive()
        assert wrapper.connection is None


def test_a_coroutine_that_uses_no_database_has_no_thread() -> None:
    async def run() -> int:
        with ConnectionCare().around_attempt(JOB):
            await asyncio.sleep(0)
        return len(SyncToAsync.context_to_thread_executor)

    before = len(SyncToAsync.context_to_thread_executor)
    assert asyncio.run(run()) == before
