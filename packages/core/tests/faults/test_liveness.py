"""A worker's life is seen by others, and by itself, while anything else stands still."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from silence import SilentProxy

Place = Any  # of conftest.py, which cannot be imported by name
Defer = Callable[..., int]


def test_a_worker_whose_open_connections_fall_silent_keeps_its_job(
    place: Place, defer: Defer, proxy: SilentProxy
) -> None:
    place.start("observer", queues=["nothing"])
    silenced = place.start("silenced", proxy.dsn)
    job_id = defer("noted", seconds=6.0)
    place.until(lambda: place.runs(job_id))
    proxy.hush()
    began = time.monotonic()
    while time.monotonic() < began + place.stalled + 2.5:
        assert place.attempts(job_id) == 1
        assert place.status(job_id) == "doing", "another worker has taken it away"
        time.sleep(0.1)
    assert place.beat_age("silenced") < place.stalled
    assert silenced.process.poll() is None


@pytest.mark.slow
def test_it_fetches_and_defers_ticks_again_within_20_seconds(
    place: Place, defer: Defer, proxy: SilentProxy
) -> None:
    place.start("silenced", proxy.dsn, ticks=True, fetch_job_polling_interval=30.0)
    first = defer("noop")
    place.until(lambda: place.status(first) == "succeeded")
    ticks = "select count(*) from procrastinate_jobs where task_name = 'tick'"
    place.until(lambda: place.query(ticks)[0][0])
    proxy.hush()
    job_id = defer("noop")
    ((before,),) = place.query(ticks)
    place.until(lambda: place.query(ticks)[0][0] > before + 1, 25.0)
    place.until(lambda: place.status(job_id) == "succeeded", 25.0)
    # What it heard on the old connection is not heard any more, so it listens on a new one.
    place.until(lambda: _time_to_begin(place, defer) < 2.0, 25.0)


def _time_to_begin(place: Place, defer: Defer) -> float:
    began = time.monotonic()
    job_id = defer("noop")
    place.until(lambda: place.status(job_id) == "succeeded", 35.0)
    return time.monotonic() - began


@pytest.mark.parametrize("held", ["its row", "the table of workers"])
def test_a_worker_that_cannot_beat_claims_no_more_jobs(
    place: Place, defer: Defer, held: str
) -> None:
    worker = place.start("muted")
    statement = {
        "its row": "select from procrastinate_workers for no key update",
        "the table of workers": "lock table procrastinate_workers in exclusive mode",
    }[held]
    with place.transaction(statement):
        place.until(lambda: place.beat_age("muted") > place.stalled)
        job_id = defer("noop")
        time.sleep(1.0)
        assert place.status(job_id) == "todo"
    place.until(lambda: place.status(job_id) == "succeeded")
    assert worker.process.poll() is None


def test_a_worker_beats_while_the_jobs_are_locked_as_by_create_index(place: Place) -> None:
    place.start("beating")
    time.sleep(1.0)
    with place.transaction("lock table procrastinate_jobs in share mode"):
        end = time.monotonic() + place.stalled + 1.5
        while time.monotonic() < end:
            assert place.beat_age("beating") < place.stalled
            time.sleep(0.05)


def test_a_log_handler_that_raises_ends_no_sign_of_life(place: Place) -> None:
    place.start("beating", log_breaks_once=True)
    with place.outage():
        time.sleep(2.0)
    place.until(lambda: place.beat_age("beating") < 0.5)


def test_the_first_worker_back_after_an_outage_takes_no_other_for_dead(
    place: Place, defer: Defer
) -> None:
    late = place.start("late", queues=["long"])
    job_id = defer("noted", queue="long", seconds=7.5)
    place.until(lambda: place.runs(job_id))
    place.start("early", queues=["short"])
    time.sleep(1.0)
    with place.outage():
        late.freeze()  # so that it comes back later than the other one
        time.sleep(place.stalled + 0.5)
    place.until(lambda: place.beat_age("early") < 1.0, 10.0)
    time.sleep(1.0)
    late.thaw()
    place.until(lambda: place.status(job_id) != "doing", 15.0)
    assert (place.status(job_id), place.attempts(job_id)) == ("succeeded", 1)


def test_a_worker_that_was_frozen_while_it_claimed_starts_nothing_that_another_has_done(
    place: Place, defer: Defer
) -> None:
    place.start("observer", queues=["nothing"])
    frozen = place.start("frozen", queues=["mine"])
    job_id = _claimed_by_a_worker_that_freezes(place, defer, frozen)
    place.until(lambda: place.status(job_id) == "todo", 12.0)
    place.start("other", queues=["mine"])
    place.until(lambda: place.status(job_id) == "succeeded")
    assert place.runs(job_id) == 1
    place.workers["other"].ends_within(20.0)
    frozen.thaw()
    time.sleep(1.5)
    assert place.runs(job_id) == 1
    assert frozen.ends_within(20.0) == 0


def _claimed_by_a_worker_that_freezes(place: Place, defer: Defer, worker: Any) -> int:
    """Freeze a worker while its claim waits on the server, and let it get a job then."""
    place.query(
        "create function wait() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(7); return new; end $$"
    )
    place.query(
        "create trigger wait before update of status on procrastinate_jobs for each row"
        " when (new.status = 'doing') execute function wait()"
    )
    waiting = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event = 'advisory'"
    )
    with place.transaction("select pg_advisory_xact_lock(7)"):
        job_id = defer("noted", queue="mine")
        place.until(lambda: place.query(waiting)[0][0])
        worker.freeze()
    place.until(lambda: place.status(job_id) == "doing")
    return job_id


HELPERS = range(6)


def test_no_helper_of_the_event_loop_dies_unseen(place: Place, defer: Defer) -> None:
    """The worker goes on in every respect, or it ends and says so."""
    workers = [place.start(f"{n}", queues=[f"q{n}"], concurrency=2) for n in HELPERS]
    for n in HELPERS:
        defer("strike_helper", queue=f"q{n}", number=n)
    place.until(lambda: place.query("select count(*) from struck") == [(len(HELPERS),)])
    time.sleep(0.3)
    jobs = [defer("noop", queue=f"q{n}") for n in HELPERS]
    time.sleep(6.0)  # a loop that is blocked is logged after 5 s
    wrong = {}
    for n, name in place.query("select number, name from struck"):
        complaint = _unseen_death(place, workers[n], jobs[n])
        if complaint:
            wrong[f"{n}: {name}"] = complaint
    assert wrong == {}


def _unseen_death(place: Place, worker: Any, job_id: int) -> str | None:
    """Say what is wrong with a worker of which one helper is dead; None if nothing is."""
    if worker.process.poll() is not None:
        told = worker.process.returncode == 1 and "MemoryError" in worker.log
        return None if told else f"exit code {worker.process.returncode}, and no reason"
    if place.status(job_id) != "succeeded":
        return "it runs no jobs"
    if "has been blocked" in worker.log:
        return "it says that the loop is blocked"
    return None if worker.ends_within(20.0) == 0 else "it does not stop"


@pytest.mark.slow
def test_sigterm_ends_a_worker_whose_network_swallows_everything(
    place: Place, defer: Defer, proxy: SilentProxy
) -> None:
    worker = place.start("silenced", proxy.dsn)
    first = defer("noop")
    place.until(lambda: place.status(first) == "succeeded")
    proxy.hush(new=True)
    time.sleep(1.0)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ends_within(45.0) is not None


def test_no_payload_of_a_notification_ends_listening(place: Place, defer: Defer) -> None:
    """Which anybody who may connect can send."""
    place.start("listening", fetch_job_polling_interval=60.0, abort_job_polling_interval=60.0)
    for _ in range(2):  # the second one is heard of
        job_id = defer("noop")
        place.until(lambda job_id=job_id: place.status(job_id) == "succeeded", 65.0)
    for channel in ("aborts", "jobs", "schedule"):
        for payload in ("9" * 5_000, "x" * 7_900, "²", "", "-1", "1e9", "\u0667" * 3_000):
            place.query(f"select pg_notify('procrastinate_{channel}', %s)", payload)
    time.sleep(1.5)
    for _ in range(3):
        job_id = defer("noop")
        place.until(lambda job_id=job_id: place.status(job_id) == "succeeded")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_flood_of_notifications_is_not_kept_in_memory(place: Place, defer: Defer) -> None:
    worker = place.start("flooded", fetch_job_polling_interval=60.0)
    first = defer("noop")
    place.until(lambda: place.status(first) == "succeeded")
    before = _memory(worker)
    for part in range(10):
        place.query(
            "select pg_notify('procrastinate_jobs', n || repeat('x', 7700))"
            " from generate_series(%s, %s) as n",
            1_000 * part,
            1_000 * part + 999,
        )
    last = defer("noop")
    place.until(lambda: place.status(last) == "succeeded", 30.0)
    assert _memory(worker) < before + 40 * 2**20  # of 77 MB that were sent


def _memory(worker: Any) -> int:
    """The resident memory of a worker's process, in bytes."""
    with open(f"/proc/{worker.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.one_partition("of many, the sweeper promotes, beside the claims")
def test_a_claim_promotes_a_bounded_number_of_due_jobs(place: Place, defer: Defer) -> None:
    """Else the first of a million that are due together would start after the last promotion."""
    place.query(
        "insert into procrastinate_jobs (task_name, queue_name, hold, scheduled_at)"
        " select 'noop', 'default', 'schedule', now() - interval '1 minute'"
        " from generate_series(1, 5000)"
    )
    place.query("create table steps (at serial, what text)")
    place.query(
        "create function step() returns trigger language plpgsql as $$ begin"
        " insert into steps (what) values (case when new.status = 'doing' then 'claimed'"
        " else 'promoted' end); return null; end $$"
    )
    place.query(
        "create trigger step after update of status, hold on procrastinate_jobs for each row"
        " when (new.status = 'doing' or old.hold is distinct from new.hold)"
        " execute function step()"
    )
    place.start("promoting", concurrency=10)
    place.until(lambda: place.query("select 1 from steps where what = 'claimed' limit 1"), 30.0)
    ((first,),) = place.query("select min(at) from steps where what = 'claimed'")
    assert first <= 2_001
