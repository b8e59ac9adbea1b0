"""Statements read the rows that they are about, and no others, whatever else is in the table.

`CROWD` jobs of each sort that is none of a statement's business stand around: waiting in another
queue, scheduled for later, finished, parked behind one lock. EXPLAIN counts what a plan read, on
tables that were never analyzed, that were analyzed while empty, and that are analyzed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate.connector import Query
from procrastinate.connector_tools.plans import Permission, Plans
from procrastinate.drive import Request
from procrastinate.model.claiming.levels import BELOW_ALL
from procrastinate.model.partitions import MANY, Partitions
from procrastinate.model.text import json_text
from procrastinate.storage.statements import Statements

pytestmark = pytest.mark.slow  # the plans are PostgreSQL's, whichever Python asks for them

CROWD = 20_000
LIMIT = 10
RUNNING = 40  # jobs, of which a worker that is dead, number 2, holds the first LIMIT
REPORTS = 30  # rows about the progress of jobs
FIRST = 1_000_000  # the id of the first of these

READY_INDEX = "procrastinate_jobs_ready_idx"
SCHEDULED_INDEX = "procrastinate_jobs_scheduled_idx"
LINE_INDEX = "procrastinate_jobs_line_idx"
DOING_INDEX = "procrastinate_jobs_doing_idx"
ENDED_INDEX = "procrastinate_jobs_ended_idx"
QUEUEING_LOCK_INDEX = "procrastinate_jobs_queueing_lock_key"
UNKNOWN_INDEX = "procrastinate_jobs_unknown_idx"
KEY = "procrastinate_jobs_pkey"

CROWDS = f"""
    insert into procrastinate_jobs (task_name, queue_name, priority)
    select 'task', 'other', n % 5 from generate_series(1, {CROWD}) as n;

    insert into procrastinate_jobs (task_name, queue_name, hold, scheduled_at)
    select 'task', 'default', 'schedule', now() + interval '1 day' + n * interval '1 second'
    from generate_series(1, {CROWD}) as n;

    insert into procrastinate_jobs (task_name, queue_name, status, worker_id, finished_at, lock)
    select 'task', 'default', 'succeeded', 1, now(), 'lock ' || n % 100
    from generate_series(1, {CROWD}) as n;

    insert into procrastinate_jobs (task_name, queue_name, hold, lock)
    select 'task', 'default', 'lock', 'long' from generate_series(1, {CROWD}) as n;

    insert into procrastinate_jobs (task_name, queue_name, status, finished_at)
    select 'task', 'default', 'cancelled', now() from generate_series(1, {CROWD}) as n;
"""

#: What the statements are about: running jobs, of which the first holds the lock of the long line,
#: and a tenth of a crowd that is ready, and as much that is due.
THEIRS = f"""
    insert into procrastinate_workers (id, name) values (1, 'alive');

    insert into procrastinate_jobs
        (id, task_name, queue_name, status, lease, worker_id, started_at, lock, queueing_lock)
    select
        {FIRST} + n, 'task', 'default', 'doing', 1, case when n < {LIMIT} then 2 else 1 end, now(),
        case n when 0 then 'long' else 'lock ' || n end, 'queueing lock ' || n
    from generate_series(0, {RUNNING} - 1) as n;

    insert into procrastinate_periodic (task_name, periodic_id, done_until)
    select 'task', id, '2025-12-31' from unnest('{{a, b}}'::text[]) as id;

    insert into procrastinate_locks (lock, job_id)
    select lock, id from procrastinate_jobs where status = 'doing';

    insert into procrastinate_progress (job_id, partition, lease, fraction)
    select {FIRST} + n, 0, 1, 0.5 from generate_series(0, {REPORTS} - 1) as n;

    insert into procrastinate_jobs (id, task_name, queue_name, status, finished_at, queueing_lock)
    select {FIRST} + 100 + n, 'task', 'default', 'failed', now(), 'queueing lock ' || 100 + n
    from generate_series(1, {RUNNING}) as n;

    insert into procrastinate_jobs (task_name, queue_name, priority, lock)
    select 'task', 'default', n % 2, case when n % 3 = 0 then 'long' end
    from generate_series(1, {CROWD} / 10) as n;

    insert into procrastinate_jobs (task_name, queue_name, hold, scheduled_at)
    select 'task', 'default', 'schedule', now() - n * interval '1 second'
    from generate_series(1, {CROWD} / 10) as n;
"""

#: How the tables came to be, and whether the planner knows what is in them.
STATISTICS = {
    "never analyzed": [CROWDS, THEIRS],
    "analyzed when empty": ["analyze", CROWDS, THEIRS],
    "analyzed": [CROWDS, THEIRS, "analyze"],
}


@dataclass(frozen=True, eq=False)
class Case:
    """A statement, which indexes on jobs it may use, and how many of their rows it may read."""

    statement: str
    indexes: set[str]
    rows: int
    params: dict[str, Any] = field(default_factory=dict)


IDS = list(range(FIRST, FIRST + LIMIT))
ONES = [1] * LIMIT
HELD = {
    "ids": IDS,
    "leases": ONES,
    "worker_id": 2,
    "first_id": IDS[0],
    "last_id": IDS[-1],
}
HOUR_US = 3_600_000_000
MARK = 4 * CROWD  # above the crowds and below what is ready
FULL = {"above": BELOW_ALL}
#: One priority of them is without locks; a third of the other has one, the first job as well.
OF_LEVEL = {"priority": 1}
BUSY, IDLE = ["default"], ["empty"]


def of_one(queue: str, **which: Any) -> dict[str, Any]:
    return {"queue_name": queue, "worker_id": 1, "limit": LIMIT, **which}


def of(queues: list[str], **which: Any) -> dict[str, Any]:
    """Parameters of a claim from several queues, which chooses among twice as many jobs."""
    lows = [MARK] * len(queues)
    common = {"queue_names": queues, "lows": lows, "worker_id": 1, "limit": LIMIT}
    return {**common, "scanned": 2 * LIMIT, "each": LIMIT, "share": LIMIT, **which}


def with_locks(queues: list[str], **which: Any) -> dict[str, Any]:
    some = LIMIT + LIMIT // 2
    return of(queues, served=None, **which) | {"scanned": some, "each": some}


def with_locks_of_one(queue: str, **which: Any) -> dict[str, Any]:
    return of_one(queue, served=None, queue_names=[queue], **which)


AGES = {"began_us": ONES, "ended_us": ONES}
NONES = [None] * LIMIT
REPORTED = HELD | {"millionths": ONES, "messages": NONES, "data": NONES, "ages_us": ONES}
RESULTS = {"results": json_text.joined(["{}"] * LIMIT), "result_errors": NONES}
SETTLED = (
    HELD
    | AGES
    | {
        "wanted": ["todo"] * LIMIT,
        "begun": ONES,
        "unknown": ONES,
        "delays_us": ONES,
        **dict.fromkeys(["due_ats", "priorities", "queue_names", "locks"], NONES),
        "errors": ["{}"] * LIMIT,
        "longest_bounce_us": 1,
        "aborted_type": "",
        "why_aborted": "",
    }
)
SCHEDULES = {"task_names": ["task", "task"], "periodic_ids": ["a", "b"]}
THEIR_LOOKS = {
    "crons": ["* * * * *"] * 2,
    "timezones": ["UTC"] * 2,
    "queue_names": ["default"] * 2,
}
TICKS = {
    "ticks": ["2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00"],
    "queue_names": ["default"] * 2,
    "priorities": [0] * 2,
    "locks": ["long"] * 2,
    "queueing_locks": ["queueing lock", None],
    "args": ["{}"] * 2,
}
NO_FILTER = dict.fromkeys(
    [
        *("queue_name", "task_name", "lock", "queueing_lock", "worker_id"),
        *("statuses", "holds", "since", "through", "error"),
    ]
)
ALL_JOBS = {"after_id": 0, **NO_FILTER}
#: A page of a search. One that finds nothing reads as much as it may.
SEARCH = NO_FILTER | {
    "limit": LIMIT,
    "shown": LIMIT,
    "scanned": 3 * LIMIT,
    "before_id": 2**63 - 1,
    "after": "0001-01-03T00:00:00+00:00",
    "after_id": -1,
    "after_lock": "",
    "after_queue": "",
    "after_priority": 2**31 - 1,
}
NOTHING = {"error": "%nothing%"}
PAGE = 2 * LIMIT + 1  # jobs of a page: to find them, to see that there are more, and to show them
ENDED = {"statuses": ["failed", "cancelled", "aborted"]}
OF_LINE = {"lock": "long", "after_lock": "long"}
LIST = ALL_JOBS | {"ids": None, "before_id": None, "limit": LIMIT, "statuses": None}
GRIP = ALL_JOBS | {"limit": LIMIT, "scanned": 3 * LIMIT}
FAILED = {"statuses": ["failed"]}
TO_RETRY = {
    "ids": [FIRST + 100 + n for n in range(1, LIMIT + 1)],
    **dict.fromkeys(["retry_at", "priority", "queue_name", "lock"]),
}
OLD = {"queue_name": None, "scanned": 3 * LIMIT, "ages_us": [-HOUR_US]}
NO_FILTERS = {"queue_name": None, "task_name": None}
UNKNOWN = {
    "patience_us": 0,
    "known_names": ["known"],
    "limit": LIMIT,
    "unknown_type": "",
    "why_unknown": "",
}
LINES = {"locks": ["long", "lock 1", "lock 2"]}

MINUTE = {
    "age_us": 0,
    "hours": [0],
    "queue_names": ["default"],
    "task_names": ["task"],
    **{key: [1] for key in ["succeeded", "failed", "cancelled", "aborted", "retried"]},
    **{key: [1] for key in ["run_us", "waited_us"]},
    **{key: ["{1,2}"] for key in ["run_buckets", "waited_buckets"]},
}
MINUTES = {
    **dict.fromkeys(["since", "until"], "2026-01-01T00:00:00+00:00"),
    **dict.fromkeys(["of_queues", "of_tasks"], 1),
    "step": 60,
} | NO_FILTERS
PAUSE = {"queue_name": "mail", "until": None, "by": None, "reason": None}
CASES = [
    # A probe for each queue, and one that finds no further queue.
    Case("ready_queues", {READY_INDEX}, 3),
    # Those that are locked, the updates.
    Case("claim_unlocked_full_of_one", {READY_INDEX, KEY}, 2 * LIMIT, of_one("default", **FULL)),
    Case(
        "claim_unlocked_level_of_one",
        {READY_INDEX, KEY},
        2 * LIMIT,
        of_one("default", low=MARK, **OF_LEVEL),
    ),
    Case("claim_unlocked_full_of_one", {READY_INDEX, KEY}, 0, of_one("empty", **FULL)),
    # Those that are chosen first, too.
    Case(
        "claim_unlocked_full_of_one_wary", {READY_INDEX, KEY}, 3 * LIMIT, of_one("default", **FULL)
    ),
    Case(
        "claim_unlocked_level_of_one_wary",
        {READY_INDEX, KEY},
        3 * LIMIT,
        of_one("default", low=MARK, **OF_LEVEL),
    ),
    Case("claim_unlocked_full_of_one_wary", {READY_INDEX, KEY}, 0, of_one("empty", **FULL)),
    # Of each queue as many; or a share, and then all of those that have more.
    Case("claim_unlocked_full_of_several", {READY_INDEX, KEY}, 3 * LIMIT, of(BUSY, **FULL)),
    Case("claim_unlocked_level_of_several", {READY_INDEX, KEY}, 3 * LIMIT, of(BUSY, **OF_LEVEL)),
    Case("claim_unlocked_full_of_several", {READY_INDEX, KEY}, 0, of(IDLE, **FULL)),
    Case("claim_unlocked_full_of_many", {READY_INDEX, KEY}, 5 * LIMIT, of(BUSY, **FULL)),
    Case("claim_unlocked_level_of_many", {READY_INDEX, KEY}, 5 * LIMIT, of(BUSY, **OF_LEVEL)),
    Case("claim_unlocked_full_of_many", {READY_INDEX, KEY}, 0, of(IDLE, **FULL)),
    Case("any_ready", {READY_INDEX}, 1, {"queue_names": ["default"]}),
    # Those that are chosen, locked and updated, and the best of the one line, ready and parked.
    Case(
        "claim_full_of_one",
        {READY_INDEX, LINE_INDEX, KEY},
        2 * LIMIT + 2,
        with_locks_of_one("default", **FULL),
    ),
    Case(
        "claim_level_of_one",
        {READY_INDEX, LINE_INDEX, KEY},
        2 * LIMIT + 2,
        with_locks_of_one("default", low=MARK, **OF_LEVEL),
    ),
    Case(
        "claim_full_of_one",
        {READY_INDEX, LINE_INDEX, KEY},
        0,
        with_locks_of_one("empty", **FULL),
    ),
    Case(
        "claim_full_of_several",
        {READY_INDEX, LINE_INDEX, KEY},
        5 * LIMIT + 2,
        with_locks(BUSY, **FULL),
    ),
    Case(
        "claim_level_of_several",
        {READY_INDEX, LINE_INDEX, KEY},
        5 * LIMIT + 2,
        with_locks(BUSY, **OF_LEVEL),
    ),
    Case(
        "claim_full_of_many",
        {READY_INDEX, LINE_INDEX, KEY},
        6 * LIMIT + 2,
        with_locks(BUSY, **FULL),
    ),
    Case(
        "claim_level_of_many",
        {READY_INDEX, LINE_INDEX, KEY},
        6 * LIMIT + 2,
        with_locks(BUSY, **OF_LEVEL),
    ),
    Case("claim_full_of_several", {READY_INDEX, LINE_INDEX, KEY}, 0, with_locks(IDLE, **FULL)),
    # Those that a claim is about to meet.
    Case(
        "make_slots_full",
        {READY_INDEX},
        LIMIT,
        {"queue_names": BUSY, "lows": [MARK], "scanned": LIMIT, **FULL},
    ),
    Case(
        "make_slots_level",
        {READY_INDEX},
        LIMIT,
        {"queue_names": BUSY, "lows": [MARK], "scanned": LIMIT, **OF_LEVEL},
    ),
    # Those that are due, the first that is not, the updates.
    Case("promote_due", {SCHEDULED_INDEX, KEY}, 2 * LIMIT + 1, {"limit": LIMIT}),
    Case("finish_jobs", {KEY}, LIMIT, HELD | AGES),
    Case("finish_jobs_that_returned_nothing", {KEY}, LIMIT, HELD | AGES),
    Case("finish_jobs_with_results", {KEY}, LIMIT, HELD | AGES | RESULTS),
    Case("delete_finished", {KEY}, LIMIT, HELD),
    Case("wake_waiters", set(), 0, {"ids": IDS}),
    Case("delete_ended", {KEY}, LIMIT, {"ids": IDS}),
    # To lock them, and to change them. (No twin waits.)
    Case("settle_jobs", {KEY, QUEUEING_LOCK_INDEX}, 2 * LIMIT, SETTLED),
    Case(
        "settle_jobs_with_results",
        {KEY, QUEUEING_LOCK_INDEX},
        2 * LIMIT,
        SETTLED | RESULTS,
    ),
    Case("job_standings", {KEY}, LIMIT, {"ids": IDS}),
    # All that run, the updates.
    Case(
        "recover_jobs",
        {DOING_INDEX, KEY, QUEUEING_LOCK_INDEX},
        RUNNING + LIMIT,
        {
            "dead_ids": [2],
            "alone_ids": [2],
            "crash_limit": 5,
            "most_crashes": 15,
            "limit": LIMIT,
            "ids": None,
            "lost_type": "",
            "why_lost": "{}",
        },
    ),
    Case("running_workers", {DOING_INDEX}, RUNNING),
    Case("stalled_ids", {DOING_INDEX}, RUNNING, {"dead_ids": [2], "limit": LIMIT}),
    Case("list_stalled", {DOING_INDEX}, RUNNING, {"dead_ids": [2]} | NO_FILTERS),
    Case("any_unknown", {UNKNOWN_INDEX}, 0, {"patience_us": 0}),
    Case("fail_unknown", {UNKNOWN_INDEX, KEY}, 0, UNKNOWN),
    Case("grip_locks", set(), 0, {"ids": IDS}),
    # Those that may end; and of the one line that goes on: its best ready and its best parked job,
    # the better one again, and both updates.
    Case(
        "hand_over",
        {LINE_INDEX, KEY},
        LIMIT + 5,
        HELD | AGES | {"served": None, "limit": LIMIT},
    ),
    # Jobs of paused queues are passed over among the best of each queue.
    Case(
        "hand_over",
        {LINE_INDEX, KEY},
        LIMIT + 5,
        HELD | AGES | {"served": None, "limit": LIMIT, "paused": ["mail", "*"]},
    ),
    Case(
        "claim_full_of_one",
        {READY_INDEX, LINE_INDEX, KEY},
        2 * LIMIT + 2,
        with_locks_of_one("default", **FULL) | {"paused": ["mail"]},
    ),
    Case(
        "hand_over_with_results",
        {LINE_INDEX, KEY},
        LIMIT + 5,
        HELD | AGES | RESULTS | {"served": None, "limit": LIMIT},
    ),
    # Of the one line that there is: its queue, its best, the update.
    Case("release_locks", {LINE_INDEX, KEY}, 3, LINES),
    Case("pass_on_locks", {LINE_INDEX, KEY}, 3, LINES),
    # The one line's queue, its best two, and the holders of all locks.
    Case("idle_lines", {LINE_INDEX, KEY}, 3 + RUNNING),
    Case("drop_stale_locks", {KEY}, len(LINES["locks"]), LINES),
    Case("cancel_todo", {KEY}, LIMIT + 2, {"ids": [CROWD, *IDS]}),
    Case("request_abort", {KEY}, 2 * LIMIT, {"ids": IDS}),
    Case("abort_requests", {DOING_INDEX}, RUNNING, {"worker_id": 1}),
    Case("held_jobs", {DOING_INDEX}, RUNNING, {"worker_id": 1}),
    Case("get_job", {KEY}, 1, {"id": FIRST}),
    Case("look_at_jobs", {KEY}, LIMIT, {"ids": IDS}),
    Case("read_jobs", {KEY}, LIMIT, {"ids": IDS}),
    Case("report_progress", {KEY}, LIMIT, REPORTED),
    Case("prune_progress", {KEY}, REPORTS),
    # The jobs are inserted; a twin that waits is found by inserting, too.
    Case("look_at_periodics", set(), 0, SCHEDULES | THEIR_LOOKS),
    Case("enter_periodics", set(), 0, SCHEDULES | THEIR_LOOKS),
    Case("note_periodics", set(), 0, SCHEDULES | THEIR_LOOKS),
    Case("list_workers", set(), 0, {}),
    Case("list_schedules", set(), 0, {}),
    Case("pause_queue", set(), 0, PAUSE),
    Case("resume_queue", set(), 0, PAUSE),
    Case("drop_ended_pauses", set(), 0),
    Case("list_pauses", set(), 0),
    # What is counted minute by minute is in no job.
    Case("add_to_minute", set(), 0, MINUTE),
    Case("list_minutes", set(), 0, MINUTES),
    Case("sum_minutes", set(), 0, MINUTES | {"queue_name": "", "task_name": ""}),
    Case("take_old_minutes", set(), 0, {"limit": LIMIT}),
    Case("add_to_hours", set(), 0, MINUTE),
    Case("prune_minutes", set(), 0, {"keep_us": HOUR_US}),
    Case("count_running", {DOING_INDEX}, RUNNING),
    Case("count_failed", {ENDED_INDEX}, RUNNING),
    Case("defer_ticks", {KEY}, 0, SCHEDULES | TICKS),
    # A page of ids, and their rows.
    Case("list_jobs", {KEY}, 2 * LIMIT, LIST),
    Case("list_newest_jobs", {KEY}, 2 * LIMIT, LIST),
    Case("list_jobs", {ENDED_INDEX, KEY}, 2 * LIMIT, LIST | FAILED),
    Case("list_newest_jobs", {ENDED_INDEX, KEY}, 2 * LIMIT, LIST | FAILED),
    Case("list_jobs", {DOING_INDEX, KEY}, RUNNING + LIMIT, LIST | {"statuses": ["doing"]}),
    Case("list_jobs", {KEY}, 2 * LIMIT, LIST | {"ids": IDS}),
    # Searches: a page, or in vain as many as a search may read.
    Case("search_newest", {KEY}, PAGE, SEARCH),
    Case("search_newest", {KEY}, 3 * LIMIT, SEARCH | NOTHING),
    Case("search_newest_ended", {ENDED_INDEX, KEY}, PAGE, SEARCH | FAILED),
    Case("search_newest_ended", {ENDED_INDEX, KEY}, 3 * LIMIT, SEARCH | FAILED | NOTHING),
    # (The first of each status, to merge them.)
    Case("search_newest_ended", {ENDED_INDEX, KEY}, PAGE + 2, SEARCH | ENDED),
    Case("search_newest_ended", {ENDED_INDEX, KEY}, 3 * LIMIT + 2, SEARCH | ENDED | NOTHING),
    Case("search_ids", {KEY}, 2 * LIMIT, SEARCH | {"ids": IDS}),
    Case("search_running", {DOING_INDEX, KEY}, RUNNING + LIMIT, SEARCH),
    # (It sorts those of one time by their ids, for which it reads some more.)
    Case("search_scheduled", {SCHEDULED_INDEX, KEY}, 4 * LIMIT + 1, SEARCH),
    Case("search_scheduled", {SCHEDULED_INDEX, KEY}, 3 * LIMIT + 1, SEARCH | NOTHING),
    Case("search_ready", {READY_INDEX, KEY}, PAGE, SEARCH),
    Case("search_ready", {READY_INDEX, KEY}, 3 * LIMIT, SEARCH | NOTHING),
    Case(
        "search_ready",
        {READY_INDEX, KEY},
        PAGE,
        SEARCH | {"queue_name": "default", "after_queue": "default"},
    ),
    Case("search_behind_locks", {LINE_INDEX, KEY}, PAGE, SEARCH | OF_LINE),
    Case("search_behind_locks", {LINE_INDEX, KEY}, 3 * LIMIT, SEARCH | OF_LINE | NOTHING),
    # The job, those before it in its queue and its line, and the first of the line.
    Case(
        "place_of_job",
        {READY_INDEX, LINE_INDEX, KEY},
        2 * LIMIT + 3,
        {"id": FIRST, "queue_name": "default", "priority": 0, "lock": "long"} | {"counted": LIMIT},
    ),
    Case("list_failures", {ENDED_INDEX}, 3 * LIMIT, SEARCH),
    # Of two queues some that are ready and the first of the lowest priority; and other sorts.
    Case(
        "glance_at_queues",
        {READY_INDEX, SCHEDULED_INDEX, LINE_INDEX, DOING_INDEX, ENDED_INDEX},
        2 * (LIMIT + 2) + 4 * LIMIT,
        {"queue_names": ["default", "other"], "share": LIMIT, "each": LIMIT},
    ),
    # The next ids, and the matching ones again, to lock them.
    Case("grip_any", {KEY}, 4 * LIMIT, GRIP | {"statuses": ["todo"]}),
    Case("grip_ended", {ENDED_INDEX, KEY}, 4 * LIMIT, GRIP | FAILED),
    Case("grip_ids", {KEY}, 2 * LIMIT, GRIP | {"ids": IDS, "statuses": ["doing"]}),
    # Their rows, once more to change them; no twin waits.
    Case("retry_unless_twin_waits", {KEY, QUEUEING_LOCK_INDEX}, 2 * LIMIT, TO_RETRY),
    # A walk whatever there is, and nothing more where it is nothing's time.
    Case("delete_old_jobs", {KEY}, 9 * LIMIT, OLD | {"after_id": FIRST + 100} | FAILED),
    Case("delete_old_jobs", {KEY}, 3 * LIMIT, OLD | {"after_id": 0} | FAILED),
]


@pytest.fixture(scope="module", params=STATISTICS)
def connection(request: pytest.FixtureRequest, procrastinate_server: Any) -> Iterator[Any]:
    with procrastinate_server.database() as dsn, tables(dsn) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for step in STATISTICS[request.param]:
                cursor.execute(step)
        connection.autocommit = False
        yield connection


@contextmanager
def tables(dsn: str) -> Iterator[Any]:
    """A connection to a database with empty tables that nobody analyzes unasked."""
    connector = procrastinate.Psycopg2Connector(dsn=dsn)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
    with closing(psycopg2.connect(dsn)) as connection:
        with connection.cursor() as cursor:
            for table in ("jobs", "locks", "workers", "periodic"):
                cursor.execute(f"alter table procrastinate_{table} set (autovacuum_enabled = off)")
        connection.commit()
        yield connection


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.statement)
def test_a_statement_reads_only_the_jobs_that_it_is_about(connection: Any, case: Case) -> None:
    query = Statements()(Request(case.statement, **case.params))
    with connection.cursor() as cursor:
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    reads = [Read.by(node) for node in _nodes(plan) if _reads_jobs(node)]
    assert [read for read in reads if not read.indexes <= case.indexes] == [], reads
    assert sum(read.rows for read in reads) <= case.rows, reads


@pytest.fixture(scope="module")
def many_lines(procrastinate_server: Any) -> Iterator[Any]:
    """A connection to a database with 20,000 ready jobs, each of its own lock, never analyzed.

    At this size the line's index is one level higher than that of ready jobs.
    """
    with procrastinate_server.database() as dsn, tables(dsn) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "insert into procrastinate_jobs (task_name, queue_name, lock)"
                " select 'task', 'default', 'lock ' || n from generate_series(1, 20000) as n"
            )
        connection.commit()
        yield connection


@pytest.mark.parametrize(
    "case",
    [
        Case("claim_full_of_one", set(), 0, with_locks_of_one("default", **FULL)),
        Case("claim_level_of_one", set(), 0, with_locks_of_one("default", low=0, priority=0)),
        Case("claim_full_of_several", set(), 0, with_locks(BUSY, **FULL)),
        Case("claim_full_of_many", set(), 0, with_locks(BUSY, **FULL)),
        Case("release_locks", set(), 0, {"locks": [f"lock {n}" for n in range(LIMIT)]}),
        Case("pass_on_locks", set(), 0, {"locks": [f"lock {n}" for n in range(LIMIT)]}),
    ],
    ids=lambda case: case.statement,
)
@pytest.mark.parametrize("partitions", [1, 64])
def test_the_head_of_a_line_is_not_searched_among_all_ready_jobs(
    many_lines: Any, case: Case, partitions: int
) -> None:
    request = Request(case.statement, partition=0, **case.params)
    query = Statements(None, Partitions(partitions))(request)
    with many_lines.cursor() as cursor:
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    many_lines.rollback()
    reads = [Read.by(node) for node in _nodes(plan) if _reads_jobs(node)]
    assert sum(read.rows for read in reads) <= 8 * LIMIT, reads


#: What was in the tables when a plan was made that is kept, and what is there later.
KEPT_SINCE = {
    "empty": ("", f"{CROWDS} {THEIRS}"),
    "empty and analyzed": ("analyze", f"{CROWDS} {THEIRS}"),
    "of others and analyzed": (f"{CROWDS} analyze", THEIRS),
    "of theirs, too, and analyzed": (f"{CROWDS} {THEIRS} analyze", "select 1"),
}


@pytest.fixture(scope="module", params=KEPT_SINCE)
def kept(request: pytest.FixtureRequest, procrastinate_server: Any) -> Iterator[Any]:
    """A connection whose plans were made before the tables were filled; with what it executes."""
    before, after = KEPT_SINCE[request.param]
    plans, executes = Plans(Permission()), dict[tuple[Case, int], str]()
    with procrastinate_server.database() as dsn, tables(dsn) as connection:
        with connection.cursor() as cursor:
            cursor.execute(f"{before}; select 1")
        connection.commit()
        for case, partitions in itertools.product(KEPT, [1, MANY]):
            query = kept_query(case, partitions)
            prepare, executes[case, partitions] = plans.sent(query)
            with connection.cursor() as cursor:
                cursor.execute(f"{prepare} {query.set_local()} select 1", query.params)
                cursor.execute(f"explain {executes[case, partitions]}", query.params)
            plans.keep(query, executes[case, partitions])
            connection.commit()
        with connection.cursor() as cursor:
            cursor.execute(after)
        connection.commit()
        yield connection, executes


KEPT = [case for case in CASES if Statements()(Request(case.statement)).keeps_plan]


#: They must not compare each job, or each slot, with each.
HANDING_OVER = {"hand_over", "hand_over_with_results"}


def kept_query(case: Case, partitions: int) -> Query:
    """The query of a case, on a plain server with this many partitions."""
    request = Request(case.statement, partition=0, **case.params)
    return Statements(None, Partitions(partitions))(request)


@pytest.mark.parametrize("partitions", [1, MANY])
@pytest.mark.parametrize("case", KEPT, ids=lambda case: case.statement)
def test_a_plan_from_before_the_tables_were_filled_reads_no_more(
    kept: Any, case: Case, partitions: int
) -> None:
    connection, executes = kept
    query, execute = kept_query(case, partitions), executes[case, partitions]
    with connection.cursor() as cursor:
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {execute}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    reads = [Read.by(node) for node in _nodes(plan) if _reads_jobs(node)]
    assert [read for read in reads if not read.indexes <= case.indexes] == [], reads
    assert sum(read.rows for read in reads) <= case.rows, reads
    if case.statement in HANDING_OVER and partitions == 1:
        assert _compared(plan) == 0


WAITS_KEY = "procrastinate_waits_pkey"
OTHERS_WAIT = (
    "insert into procrastinate_waits (job_id, partition, waiter, expires_at)"
    f" select n, 0, n % 3, now() from generate_series({FIRST - 10_000}, {FIRST + 20_000}) as n"
    f" where n not between {IDS[0]} and {IDS[-1]}"
)
#: Statements that look for who waits, and how many rows they may read of those that do.
WHO_WAITS = {
    "finish_jobs": (HELD | AGES, 1),
    "settle_jobs": (SETTLED, 1),
    "delete_finished": (HELD, 1),
    "wake_waiters": ({"ids": IDS}, LIMIT),
}


@pytest.fixture(scope="module", params=["kept since empty", "never analyzed", "analyzed"])
def waits(request: pytest.FixtureRequest, procrastinate_server: Any) -> Iterator[Any]:
    """A connection with the waits of 30,000 other jobs, and what runs each statement there."""
    plans, executes = Plans(Permission()), {}
    with procrastinate_server.database() as dsn, tables(dsn) as connection:
        with connection.cursor() as cursor:
            cursor.execute("alter table procrastinate_waits set (autovacuum_enabled = off)")
        for name, (params, _) in WHO_WAITS.items():
            query = Statements()(Request(name, **params))
            executes[name] = query.sql
            if request.param == "kept since empty" and query.keeps_plan:
                prepare, executes[name] = plans.sent(query)
                with connection.cursor() as cursor:
                    cursor.execute(f"{prepare} {query.set_local()} select 1", query.params)
                    cursor.execute(f"explain {executes[name]}", query.params)
        connection.commit()
        with connection.cursor() as cursor:
            cursor.execute(f"{THEIRS} {OTHERS_WAIT}")
            if request.param == "analyzed":
                cursor.execute("analyze procrastinate_waits")
        connection.commit()
        yield connection, executes


@pytest.mark.parametrize("name", WHO_WAITS)
def test_who_waits_is_looked_up_by_the_jobs(waits: Any, name: str) -> None:
    connection, executes = waits
    params, rows = WHO_WAITS[name]
    query = Statements()(Request(name, **params))
    with connection.cursor() as cursor:
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {executes[name]}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    found = [
        Read.by(node) for node in _nodes(plan) if node.get("Relation Name") == "procrastinate_waits"
    ]
    looked = [node["Actual Loops"] for node in _nodes(plan) if node.get("Index Name") == WAITS_KEY]
    assert ([read.indexes for read in found], looked) == ([{WAITS_KEY}], [1]), plan
    assert sum(read.rows for read in found) <= rows, found


def test_what_is_sent_for_each_lone_job_keeps_its_plan() -> None:
    assert {case.statement for case in KEPT} >= {
        "claim_full_of_one",
        "claim_unlocked_full_of_one",
        "claim_level_of_one",
        "claim_unlocked_level_of_one",
        "finish_jobs",
        "finish_jobs_that_returned_nothing",
        "finish_jobs_with_results",
        "grip_locks",
        "hand_over",
        "hand_over_with_results",
        "release_locks",
        "wake_waiters",
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("bitmapscan", "hashagg", "hashjoin", "indexonlyscan", "indexscan", "material", "memoize"),
        *("mergejoin", "nestloop", "seqscan", "sort"),
    ],
)
def test_a_role_that_switches_a_kind_of_plan_off_makes_no_statement_read_more(
    connection: Any, kind: str
) -> None:
    """By whichever index: see the setting "plans" of storage/statements."""
    dear: dict[str, Any] = {}
    for case in CASES:
        query = Statements()(Request(case.statement, **case.params))
        with connection.cursor() as cursor:
            cursor.execute(f"set local enable_{kind} = off; {query.set_local()}")
            cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
            plan = cursor.fetchone()[0][0]["Plan"]
        connection.rollback()
        reads = [Read.by(node) for node in _nodes(plan) if _reads_jobs(node)]
        if sum(read.rows for read in reads) > 2 * case.rows + LIMIT:
            dear[case.statement] = reads
    assert dear == {}


def test_many_ticks_are_not_compared_each_with_each(connection: Any) -> None:
    """A catch-up settles 1,000 of a schedule at once: a nested loop would compare a million."""
    ticks = [f"2026-01-01T00:{n // 60:02}:{n % 60:02}+00:00" for n in range(1_000)]
    rest = {name: values[1:] * 1_000 for name, values in {**SCHEDULES, **TICKS}.items()}
    query = Statements()(Request("defer_ticks", **rest | {"ticks": ticks}))
    with connection.cursor() as cursor:
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    assert plan["Actual Rows"] == 1_000
    assert _compared(plan) < 10_000


def test_the_jobs_and_slots_of_many_lines_are_not_compared_each_with_each(
    many_lines: Any,
) -> None:
    ids = list(range(1, LIMIT + 1))
    held = {"ids": ids, "leases": [1] * LIMIT, "worker_id": 1, "first_id": 1, "last_id": LIMIT}
    times = {"began_us": [2] * LIMIT, "ended_us": [1] * LIMIT}
    query = Statements()(Request("hand_over", **held, **times, served=None, limit=LIMIT))
    with many_lines.cursor() as cursor:
        cursor.execute(
            "update procrastinate_jobs set status = 'doing', worker_id = 1, lease = 1"
            " where id = any(%(ids)s);"
            "insert into procrastinate_locks (lock, job_id)"
            " select lock, id from procrastinate_jobs where id = any(%(ids)s);"
            "insert into procrastinate_jobs (task_name, queue_name, lock)"
            " select task_name, queue_name, lock from procrastinate_jobs where id = any(%(ids)s)",
            {"ids": ids},
        )
        cursor.execute(query.set_local())
        cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    many_lines.rollback()
    assert plan["Actual Rows"] == 2 * LIMIT
    assert _compared(plan) == 0


@pytest.mark.parametrize("names", [("", ""), ("q1", ""), ("", "t1"), ("q1", "t1")])
def test_a_plot_reads_two_rows_for_each_minute_however_many_tasks_there_are(
    connection: Any, names: tuple[str, str]
) -> None:
    minutes = 60
    kind = dict(zip(("queue_name", "task_name"), names, strict=True))
    given = {"since": "2026-01-01T00:00:00+00:00", "until": None, "step": 60}
    query = Statements()(Request("sum_minutes", **given, **kind))
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into procrastinate_minutes (begins_at, seconds, queue_name, task_name)"
            " select %(since)s::timestamptz + n * interval '1 minute', 60, queue, task"
            " from generate_series(1, %(minutes)s) as n,"
            " (select 'q' || n from generate_series(1, 10) as n union all select '') as q(queue),"
            " (select 't' || n from generate_series(1, 20) as n union all select '') as t(task)",
            given | {"minutes": minutes},
        )
        cursor.execute(f"explain (analyze, timing off, format json) {query.sql}", query.params)
        plan = cursor.fetchone()[0][0]["Plan"]
    connection.rollback()
    assert plan["Actual Rows"] == minutes
    scans = [each for each in _nodes(plan) if each.get("Relation Name") == "procrastinate_minutes"]
    assert sum(Read.by(each).rows for each in scans) <= 2 * minutes


def _compared(plan: dict[str, Any]) -> float:
    """Return how many pairs of rows were compared in vain."""
    removed = "Rows Removed by Join Filter"
    return sum(node.get(removed, 0) * node["Actual Loops"] for node in _nodes(plan))


@dataclass(frozen=True)
class Read:
    """A node of a plan that reads jobs: by which indexes (or "none"), and how many rows in all."""

    indexes: set[str]
    rows: int

    @classmethod
    def by(cls, node: dict[str, Any]) -> Read:
        filters = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        seen = node["Actual Rows"] + sum(node.get(each, 0) for each in filters)
        indexes = {each["Index Name"] for each in _nodes(node) if "Index Name" in each}
        rows = round(seen * node["Actual Loops"])
        return cls(indexes or {f"none ({node['Node Type']})"}, rows)


def _reads_jobs(node: dict[str, Any]) -> bool:
    return node.get("Relation Name") == "procrastinate_jobs" and "Scan" in node["Node Type"]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)
