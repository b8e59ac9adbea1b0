"""``procrastinate workers``, ``tasks`` and ``schedules``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

Query = Callable[..., Any]

ROWS = """
insert into procrastinate_workers (id, name, started_at, last_heartbeat, host, pid, version,
    concurrency, busy, queues, task_names, trusted, blocked_since)
values
    (7, 'till', '2020-01-01T00:00Z', statement_timestamp(), 'shop-1', 4711, '4.0', 5, 2,
        '{mail,"odd\tqueue"}', '{shop.send,shop.report}', true, null),
    (8, E'odd\tname', statement_timestamp(), statement_timestamp() - interval '200 seconds',
        null, null, null, null, null, null, '{shop.gone}', null, null),
    (9, 'slow', statement_timestamp(), statement_timestamp(), 'shop-2', 1, '4.0', 1, 1, null,
        '{shop.send}', true, statement_timestamp() - interval '30 minutes'),
    (10, 'cut', statement_timestamp(), statement_timestamp(), 'shop-2', 2, '4.0', 1, 0, null,
        null, false, null);
insert into procrastinate_periodic (task_name, periodic_id, done_until, seen_at, last_tick, job_id,
    cron, timezone, queue_name)
values
    ('shop.report', 'nightly', '2020-01-01T02:00Z', '2020-01-01T02:00Z', '2020-01-01T02:00Z', 3,
        '0 3 * * *', 'Europe/Berlin', 'reports'),
    ('shop.tidy', '', '2020-01-01T02:00Z', '2020-01-01T02:00Z', null, null, null, null, null);
insert into procrastinate_jobs (queue_name, task_name, status)
values ('mail', 'shop.send', 'todo'), ('mail', 'shop.send', 'failed'), ('mail', 'old', 'failed')
"""


@pytest.fixture
def shop(program: Program, query: Query) -> Program:
    """The program on a database with workers and schedules, in a zone three hours east of UTC."""
    query(ROWS)
    program.env["TZ"] = "XYZ-3"
    return program


def cells(shown: str) -> list[list[str]]:
    """The words of a table's lines, but for the line below its head."""
    head, _, *rows = shown.splitlines()
    return [line.split() for line in (head, *rows)]


def test_a_terminal_gets_the_workers_as_a_table_and_a_narrow_one_what_matters(
    shop: Program,
) -> None:
    wide = cells(shop.shown("workers", COLUMNS="120"))
    assert wide[0] == [
        "id",
        "name",
        "host",
        "pid",
        "queues",
        "busy",
        "version",
        "heard",
        "of",
        "state",
    ]
    assert wide[1][:8] == ["7", "till", "shop-1", "4711", "mail,", "odd\\tqueue", "2/5", "4.0"]
    assert wide[1][-1] == "alive"
    assert wide[2] == [
        *("8", "odd\\tname", "?", "?", "all", "?/?", "?"),
        *["3", "min", "ago", "silent"],
    ]
    assert wide[3][-4:] == ["blocked", "for", "30", "min"]
    assert wide[4][-2:] == ["claims", "nothing"]
    narrow = cells(shop.shown("workers", COLUMNS="40"))
    assert narrow[0] == ["id", "name", "busy", "state"]


def test_a_terminal_gets_the_schedules_in_local_time(shop: Program) -> None:
    assert cells(shop.shown("schedules", COLUMNS="100")) == [
        ["task", "id", "cron", "zone", "queue", "last", "job", "next"],
        [
            *("shop.report", "nightly", "0", "3", "*", "*", "*", "Europe/Berlin", "reports"),
            *("01-01", "05:00:00", "3", "01-02", "05:00:00", "(late)"),
        ],
        ["shop.tidy", "?", "?", "?"],
    ]


def test_tasks_are_those_with_jobs_and_those_that_live_workers_know(shop: Program) -> None:
    assert shop.shown("tasks", COLUMNS="60").splitlines()[2:] == [
        "old                0     1",
        "shop.report        1     0",
        "shop.send          2     2",
    ]


def test_a_pipe_gets_fields_separated_by_tabs(shop: Program) -> None:
    head, first, *_ = shop("workers").stdout.splitlines()
    row = dict(zip(head.split("\t"), first.split("\t"), strict=True))
    assert row["queues"] == "mail,odd\\tqueue"
    assert row["started_at"] == "2020-01-01T00:00:00.000000+00:00"
    assert shop("schedules").stdout.splitlines()[0].split("\t")[-2:] == ["next_tick", "is_late"]
    assert shop("tasks").stdout.splitlines()[-1] == "shop.send\t2\t2\t1\t0\t0\t1\t0\t0"


def test_json_has_everything(shop: Program) -> None:
    workers = [json.loads(line) for line in shop("workers", "--json").stdout.splitlines()]
    assert [each["id"] for each in workers] == [7, 8, 9, 10]
    assert workers[0]["queues"] == ["mail", "odd\tqueue"]
    assert workers[0]["task_names"] == ["shop.send", "shop.report"]
    assert workers[1]["queues"] is None
    assert [each["state"] for each in workers] == ["alive", "silent", "blocked", "untrusted"]
    schedules = [json.loads(line) for line in shop("schedules", "--json").stdout.splitlines()]
    assert schedules[0]["next_tick"] == "2020-01-02T02:00:00.000000+00:00"
    assert schedules[0]["is_late"]
    assert (schedules[1]["cron"], schedules[1]["next_tick"]) == (None, None)
    assert not schedules[1]["is_late"]
    tasks = [json.loads(line) for line in shop("tasks", "--json").stdout.splitlines()]
    assert [(each["name"], each["workers"], each["failed"]) for each in tasks] == [
        *(("old", 0, 1), ("shop.report", 1, 0), ("shop.send", 2, 1)),
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("workers", "no workers run"),
        ("schedules", "there are no schedules"),
        ("tasks", "there are no tasks"),
    ],
)
def test_nothing_to_show_is_said_beside_the_output(
    program: Program, command: str, words: str
) -> None:
    done = program(command)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "", words)
    done = program(command, "--json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_worker_with_odd_arrays_is_shown_with_them(shop: Program, query: Query) -> None:
    """Made by hand: a null, and an array of arrays. No other worker's row is spoiled."""
    query(
        "update procrastinate_workers set queues = '{mail,null}', task_names = '{{a},{b}}'"
        " where id = 8"
    )
    rows = [json.loads(line) for line in shop("workers", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == [7, 8, 9, 10]
    assert (rows[1]["queues"], rows[1]["task_names"]) == (["mail", "null"], ['["a"]', '["b"]'])
    assert "mail,null" in shop("workers").stdout
    assert shop("tasks").returncode == 0
