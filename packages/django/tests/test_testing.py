"""What the package has for the tests of a project."""

from __future__ import annotations

import asyncio

import pytest
from django.contrib.auth.models import User
from django.db import connections, transaction

from procrastinate_django import app
from procrastinate_django.models import Job
from procrastinate_django.testing import delete_jobs, jobs_at_once, jobs_in_memory, run_jobs

done: list[int] = []


@app.task(name="testing.note")
def note(n: int) -> None:
    if n < 0:
        raise ValueError(n)
    done.append(n)
    if n > 10:
        note.defer(n=n - 10)


@app.task(name="testing.note_later")
async def note_later(n: int) -> None:
    done.append(n)


@app.task(name="testing.count_users")
def count_users() -> None:
    done.append(User.objects.count())


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def test_jobs_are_kept_in_memory_and_run_when_the_test_says_so() -> None:
    with jobs_in_memory() as jobs:
        note.defer(n=1)
        note_later.defer(n=2)
        assert [job.task_name for job in jobs.jobs] == ["testing.note", "testing.note_later"]
        assert done == []
        assert [job.status for job in run_jobs()] == ["succeeded", "succeeded"]
    assert sorted(done) == [1, 2]


def test_jobs_run_at_once_with_those_that_they_defer() -> None:
    with jobs_at_once() as jobs:
        note.defer(n=21)
        assert done == [21, 11, 1]
        assert {job.status for job in jobs.jobs} == {"succeeded"}


def test_defer_raises_what_the_task_raises() -> None:
    with jobs_at_once(), pytest.raises(ValueError, match="-1"):
        note.defer(n=-1)


def test_a_job_that_is_not_due_waits() -> None:
    with jobs_at_once() as jobs:
        note.configure(schedule_in={"hours": 1}).defer(n=1)
        assert [job.status for job in jobs.jobs] == ["todo"]
    assert done == []


def test_coroutines_defer_at_once_too() -> None:
    async def defer() -> None:
        await note.defer_async(n=1)
        await note_later.defer_async(n=2)

    with jobs_at_once():
        asyncio.run(defer())
    assert done == [1, 2]


@jobs_at_once()
def test_a_block_stands_as_a_decorator() -> None:
    note.defer(n=1)
    assert done == [1]


@pytest.mark.usefixtures("tables")
def test_plain_tasks_see_the_transaction_of_the_test() -> None:
    with transaction.atomic():
        User.objects.create_user("ann")
        with jobs_at_once():
            count_users.defer()
        assert done == [1]
        transaction.set_rollback(True)


@pytest.mark.usefixtures("tables")
def test_the_tables_are_emptied() -> None:
    note.defer(n=1)
    app.queue_manager.pause("mail")
    delete_jobs()
    assert Job.objects.count() == 0
    assert app.queue_manager.list_pauses() == []
    with connections["default"].cursor() as cursor:
        cursor.execute("select count(*) from procrastinate_migrations")
        assert cursor.fetchone()[0] > 0
