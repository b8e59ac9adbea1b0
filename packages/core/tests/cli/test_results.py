"""``procrastinate defer --wait``, and results as ``procrastinate jobs`` shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode

Query = Callable[..., Any]

#: An app in memory: to wait is to run, so it needs no worker.
DESK = """
import procrastinate
from procrastinate.testing import InMemoryConnector

app = procrastinate.App(connector=InMemoryConnector())

@app.task(name="say", result=True)
def say(what): return what

@app.task(name="spoil", result=True)
def spoil(): return {1, 2}

@app.task(name="forget")
def forget(): pass

@app.task(name="fail")
def fail(): raise ValueError("no\\nsuch page")

@app.task(name="abort")
def abort(): raise procrastinate.JobAborted("as you like")
"""

WAIT = ["-a", "desk.app", "defer", "--wait"]


@pytest.fixture
def desk(bare_program: Program) -> Program:
    bare_program.folder.joinpath("desk.py").write_text(DESK)
    return bare_program


def test_a_wait_prints_the_result_as_json_on_stdout(desk: Program) -> None:
    values = [None, 3, {"to": "Jürgen", "n": [1, 2.5]}, "a\nb"]
    lines = [[*WAIT, "say", json.dumps({"what": value})] for value in values]
    done = desk.each(lines)
    assert [each.returncode for each in done] == [ExitCode.OK] * len(values)
    assert [json.loads(each.stdout) for each in done] == values
    assert [each.stdout.count("\n") for each in done] == [1] * len(values)
    assert [each.stderr for each in done] == [f"waiting for job {n}\n" for n in (1, 2, 3, 4)]


def test_each_other_end_has_its_exit_code_and_prints_nothing_to_stdout(desk: Program) -> None:
    done = desk.each(
        [
            [*WAIT, "fail"],
            [*WAIT, "abort"],
            [*WAIT, "--in", "1h", "--timeout", "1m", "forget"],
            [*WAIT, "--timeout", "0", "forget"],
            [*WAIT, "spoil"],
            [*WAIT, "forget"],
        ]
    )
    assert [each.returncode for each in done] == [
        ExitCode.JOB_UNSUCCESSFUL,
        ExitCode.JOB_UNSUCCESSFUL,
        ExitCode.NOT_IN_TIME,
        ExitCode.NOT_IN_TIME,
        ExitCode.ERROR,
        ExitCode.OK,
    ]
    assert [each.stdout for each in done] == [""] * len(done)
    messages = [each.stderr.splitlines()[-1] for each in done]
    assert messages[0] == r"error: job 1 of task fail has failed: ValueError: no\nsuch page"
    assert "job 2 of task abort was aborted" in messages[1]
    assert messages[2] == "error: job 3 has not ended within 60 s; it stays as it is"
    assert "job 4 has not ended; it" in messages[3]
    assert "job 5 of task spoil has succeeded, but there is no result: " in messages[4]
    assert messages[5] == "job 6 has succeeded; its task keeps no result"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--wait", "say", "-"], "--wait is for one job"),
        (["--wait", "--print-ids", "say"], "--wait is for one job"),
        (["--timeout", "5", "say"], "--timeout says how long to --wait"),
        (["--wait", "--timeout", "-5", "say"], "is no duration"),
        (["--wait", "--timeout", "soon", "say"], "is no duration"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(
    desk: Program, arguments: list[str], message: str
) -> None:
    done = desk("-a", "desk.app", "defer", *arguments)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert message in done.stderr


def test_what_waits_already_is_not_waited_for(program: Program, query: Query) -> None:
    first = program("defer", "shop.pid", "--queueing-lock", "one")
    done = program("defer", "shop.pid", "--queueing-lock", "one", "-i", "--wait")
    assert (first.returncode, done.returncode, done.stdout) == (0, 0, "")
    assert query("select count(*) from procrastinate_jobs") == [(1,)]


@pytest.mark.parametrize("app", ["shop.app", "shop.sync_app"])
def test_an_interruption_leaves_the_job_and_says_its_id(
    program: Program, query: Query, app: str
) -> None:
    running = program.start("-a", app, "defer", "--wait", "shop.pid")
    running.wait_for("waiting for job")
    assert running.press_ctrl_c() == ExitCode.INTERRUPTED
    [(job_id, status)] = query("select id, status::text from procrastinate_jobs")
    assert status == "todo"
    assert [line for line in running.output.splitlines() if line] == [
        f"waiting for job {job_id}",
        f"job {job_id} stays as it is: `procrastinate jobs {job_id}` shows it",
        "error: interrupted",
    ]


@pytest.mark.parametrize("app", ["shop.app", "shop.sync_app"])
def test_a_worker_elsewhere_gives_the_result(program: Program, query: Query, app: str) -> None:
    running = program.start("-a", app, "defer", "--wait", "shop.total", '{"a": 1, "b": 2}')
    running.wait_for("waiting for job")
    assert program("worker", "--one-shot").returncode == 0
    assert running.ended() == 0
    assert running.output.splitlines()[1:] == ["3"]


def test_the_time_is_up_without_a_worker(program: Program, query: Query) -> None:
    done = program("defer", "--wait", "--timeout", "0", "shop.pid")
    assert (done.returncode, done.stdout) == (ExitCode.NOT_IN_TIME, "")
    assert query("select status::text from procrastinate_jobs") == [("todo",)]


MAY_NOT_WAIT = """
import procrastinate
from procrastinate.testing import InMemoryConnector

class EnqueueOnly(InMemoryConnector):
    def waiting_room(self, app):
        raise procrastinate.errors.InsufficientPrivilege("permission denied")

app = procrastinate.App(connector=EnqueueOnly())

@app.task(name="forget")
def forget(): pass
"""


def test_a_wait_that_fails_says_that_the_job_is_deferred(bare_program: Program) -> None:
    bare_program.folder.joinpath("enqueue.py").write_text(MAY_NOT_WAIT)
    done = bare_program("-a", "enqueue.app", "defer", "--wait", "forget")
    assert (done.returncode, done.stdout) == (ExitCode.ERROR, "")
    assert done.stderr.splitlines() == [
        "waiting for job 1",
        "error: job 1 is deferred, but the wait for it failed: permission denied",
    ]


RESULTS = """
insert into procrastinate_jobs
    (id, status, queue_name, task_name, args, deferred_at, finished_at, result, result_error)
values
    (1, 'succeeded', 'q', 't', '{}', now(), now(), '{"to": "J\\u00fcrgen\\u001b[2J"}', null),
    (2, 'succeeded', 'q', 't', '{}', now(), now(), 'null', null),
    (3, 'succeeded', 'q', 't', '{}', now(), now(), null, E'a set is\\nnot JSON'),
    (4, 'succeeded', 'q', 't', '{}', now(), now(), null, null),
    (5, 'succeeded', 'q', 't', '{}', now(), now(), to_jsonb(repeat('x', 5000)), null)
"""


def test_jobs_shows_a_result_cut_and_escaped_or_why_there_is_none(
    program: Program, query: Query
) -> None:
    query(RESULTS)
    done = program("jobs", "1", "2", "3", "4", "5")
    assert done.returncode == 0
    shown = [
        [line for line in block.splitlines() if "result" in line]
        for block in done.stdout.split("\n\n")
    ]
    assert shown[:4] == [
        [r'result         {"to":"Jürgen\u001b[2J"}'],
        ["result         null"],
        [r"no result      a set is\nnot JSON"],
        [],
    ]
    assert shown[4] == [f'result         "{"x" * 999}...']


def test_jobs_as_json_have_their_results_whole(program: Program, query: Query) -> None:
    query(RESULTS)
    found = [json.loads(line) for line in program("jobs", "--json").stdout.splitlines()]
    results = [(job["has_result"], job["result"], job["result_error"]) for job in found]
    assert results == [
        (True, {"to": "Jürgen\x1b[2J"}, None),
        (True, None, None),
        (False, None, "a set is\nnot JSON"),
        (False, None, None),
        (True, "x" * 5000, None),
    ]


PROGRESS = (
    """
    insert into procrastinate_jobs
        (id, status, queue_name, task_name, args, deferred_at, started_at, worker_id, attempts,
        lease)
    values (1, 'doing', 'q', 't', '{}', now(), now(), 1, 1, 1)
    """,
    """
    insert into procrastinate_progress (job_id, partition, lease, fraction, message, data,
        updated_at)
    select id, partition, lease, 0.4, E'page\\n4', '{"of": 10}', '2030-01-01T00:00Z'
    from procrastinate_jobs
    """,
)


def test_jobs_shows_how_far_a_job_is_while_it_runs(program: Program, query: Query) -> None:
    for each in PROGRESS:
        query(each)
    [line] = [line for line in program("jobs", "1").stdout.splitlines() if "progress" in line]
    assert line.startswith(r'progress       40.0%, page\n4, {"of": 10}, at 20')
    [found] = [json.loads(line) for line in program("jobs", "--json").stdout.splitlines()]
    assert found["progress"] == {
        "fraction": 0.4,
        "message": "page\n4",
        "data": {"of": 10},
        "updated_at": "2030-01-01T00:00:00.000000+00:00",
    }
    query("update procrastinate_jobs set status = 'todo', worker_id = null")
    assert "progress" not in program("jobs", "1").stdout
