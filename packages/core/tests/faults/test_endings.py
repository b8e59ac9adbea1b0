"""What a job leaves behind: blame for a crash, what is stored and logged, and a free slot."""

from __future__ import annotations

import io
import logging
import pkgutil
import time
from collections.abc import Callable
from typing import Any

import pytest
from lock_waits import COUNT_WAITING

import procrastinate
from procrastinate.testing import InMemoryConnector

Place = Any  # of conftest.py, which cannot be imported by name
Defer = Callable[..., int]
Query = Callable[..., list[tuple[Any, ...]]]

MEGABYTE = 2**20


@pytest.mark.slow
def test_a_job_that_kills_its_process_takes_no_other_with_it(place: Place, defer: Defer) -> None:
    deadly = defer("deadly")
    for _ in range(5):
        defer("noted", seconds=0.6)
    options = {"concurrency": 10, "update_heartbeat_interval": 0.3, "stalled_worker_timeout": 1.0}
    place.start("one", **options)
    place.start("two", **options)

    def all_have_ended() -> bool:
        for name, worker in list(place.workers.items()):
            if worker.process.poll() is not None:
                del place.workers[name]
                place.start(f"{name}+", **options)
        return place.query(
            "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        ) == [(0,)]

    place.until(all_have_ended, 100.0)
    assert place.status(deadly) == "failed"
    rest = "select distinct status::text from procrastinate_jobs where id <> %s"
    assert place.query(rest, deadly) == [("succeeded",)]


def test_nothing_that_a_job_raises_keeps_its_slot(place: Place, defer: Defer) -> None:
    worker = place.start("attacked", concurrency=5)
    jobs = {
        name: defer(f"nasty.{name}")
        for name in (
            "shows_mirrors",
            "is_its_own_argument",
            "cannot_be_printed",
            "breaks_the_log",
            "has_a_broken_strategy",
        )
    }

    def ended() -> list[str]:
        return [name for name, job_id in jobs.items() if place.status(job_id) == "failed"]

    place.until(lambda: len(ended()) == len(jobs) or worker.process.poll() is not None)
    assert ended() == list(jobs)
    assert worker.ends_within(20.0) == 0


async def test_the_log_of_a_failure_is_short_however_long_its_text_is() -> None:
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="verbose", retry=1)
    async def verbose() -> None:
        raise ValueError("x" * 5 * MEGABYTE)

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    logging.getLogger("procrastinate").addHandler(handler)
    try:
        async with app.open_async():
            await verbose.defer_async()
            await app.run_worker_async(wait=False, install_signal_handlers=False)
    finally:
        logging.getLogger("procrastinate").removeHandler(handler)
    assert "verbose" in log.getvalue()
    assert len(log.getvalue()) < 0.1 * MEGABYTE


async def test_what_is_stored_of_errors_does_not_grow_with_the_attempts(
    app: procrastinate.App, query: Query
) -> None:
    @app.task(name="hopeless", retry=60)
    async def hopeless() -> None:
        raise ValueError("x" * 1_000)

    await hopeless.defer_async()
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    ((attempts, entries, size),) = query(
        "select attempts, jsonb_array_length(errors), octet_length(errors::text)"
        " from procrastinate_jobs"
    )
    assert attempts == 61
    assert entries <= 20
    assert size < 50_000


async def test_no_claim_of_a_worker_can_be_taken_for_an_earlier_one(
    app: procrastinate.App, query: Query
) -> None:
    """Else a write for the earlier one, sent again because its answer was lost, ends the later."""

    @app.task(name="short")
    async def short() -> None: ...

    @app.task(name="long")
    def long() -> None:
        time.sleep(1.2)

    query("create table claims (job_id bigint, worker_id bigint, fence bigint)")
    query(
        "create function note() returns trigger language plpgsql as $$ begin"
        " insert into claims values (new.id, new.worker_id,"
        " coalesce((to_jsonb(new) ->> 'lease')::bigint, new.attempts)); return null; end $$"
    )
    query(
        "create trigger note after update of status on procrastinate_jobs for each row"
        " when (new.status = 'doing') execute function note()"
    )
    in_order = {"partition_key": "one"}  # the short ones behind a long one are those handed back
    await short.configure(**in_order).batch_defer_async(*[{}] * 300)
    for _ in range(3):
        await long.configure(**in_order).defer_async()
        await short.configure(**in_order).batch_defer_async(*[{}] * 3)
    await app.run_worker_async(wait=False, install_signal_handlers=False)
    again = query("select job_id from claims group by job_id having count(*) > 1")
    same = query("select job_id, worker_id, fence from claims group by 1, 2, 3 having count(*) > 1")
    assert again, "no job was handed back, so that nothing is shown"
    assert same == []


@pytest.mark.parametrize(
    ("task", "arguments", "status"),
    [("fails_late", {}, "aborted"), ("noted", {"seconds": 0.5}, "succeeded")],
)
def test_an_abort_that_comes_before_the_ending_is_written_decides_unless_the_job_succeeded(
    place: Place, defer: Defer, task: str, arguments: dict[str, Any], status: str
) -> None:
    place.start("ending")
    job_id = defer(task, **arguments)
    place.until(lambda: place.runs(job_id))
    ask = f"update procrastinate_jobs set abort_requested = true where id = {job_id}"
    with place.transaction(ask):
        place.until(lambda: place.query(COUNT_WAITING)[0][0])
    place.until(lambda: place.status(job_id) != "doing")
    assert place.status(job_id) == status


def test_the_type_of_a_stored_error_names_a_class(place: Place) -> None:
    ((job_id,),) = place.query(
        "insert into procrastinate_jobs"
        " (task_name, queue_name, status, attempts, worker_id, abort_requested)"
        " values ('noop', 'default', 'doing', 1, 1000000, true) returning id"
    )
    place.start("recovering", update_heartbeat_interval=0.3, stalled_worker_timeout=1.0)
    place.until(lambda: place.status(job_id) == "aborted")
    ((name,),) = place.query("select errors -> -1 ->> 'type' from procrastinate_jobs")
    assert issubclass(pkgutil.resolve_name(name), BaseException)
