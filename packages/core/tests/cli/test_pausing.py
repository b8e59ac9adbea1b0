"""``procrastinate queues pause`` and ``resume``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

import procrastinate
from procrastinate.cli import pausing
from procrastinate.testing import InMemoryConnector

Query = Callable[..., Any]
ROWS = "select queue_name, reason, paused_until::text from procrastinate_queues order by 1"


def said(done: Any) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.returncode


def test_a_queue_is_paused_and_resumed(program: Program, query: Query) -> None:
    query("insert into procrastinate_jobs (queue_name, task_name) values ('mail', 't')")
    done = program("queues", "pause", "mail", "--reason", "it's\tburning")
    assert said(done) == ("queue mail is paused until `queues resume mail`\n", "", 0)
    assert query(ROWS) == [("mail", "it's\tburning", None)]
    done = program("queues", "pause", "mail", "--until", "2999-01-31T08:00:00+01:00")
    assert said(done) == ("queue mail is paused until 2999-01-31T07:00:00+00:00\n", "", 0)
    ((name, reason, until),) = query(ROWS)
    assert (name, reason, until[:4]) == ("mail", None, "2999")
    assert said(program("queues", "resume", "mail")) == (
        *("the pause of queue mail has ended\n", "", 0),
    )
    assert query(ROWS) == []


def test_a_queue_without_jobs_may_be_paused(program: Program, query: Query) -> None:
    done = program("queues", "pause", "new")
    assert said(done) == (
        "queue new is paused until `queues resume new`\n",
        "note: queue new has no jobs so far\n",
        0,
    )
    ((by,),) = query("select paused_by from procrastinate_queues")
    assert by is None or by.strip()


@pytest.mark.parametrize(
    ("queue", "note"),
    [("mail", None), ("mial", "no job of queue mial was found: is the name right?")],
)
def test_a_name_that_may_be_mistyped_is_told_among_many_jobs_too(
    queue: str, note: str | None
) -> None:
    """More have come since the job of the queue than are looked at."""
    with procrastinate.App(connector=InMemoryConnector()).open() as app:
        app.configure_task("t", queue="mail").defer()
        app.configure_task("t", queue="other").batch_defer(*[{}] * 5)
        ended = app.job_manager.cancel_jobs(queue="other")
        assert pausing._note(app.job_manager, queue, budget=len(ended) - 1) == note


def test_all_queues_but_builtin(program: Program, query: Query) -> None:
    done = program("queues", "pause", "*")
    assert said(done) == ("all queues but builtin are paused until `queues resume *`\n", "", 0)
    done = program("queues", "resume", "mail")
    assert said(done) == (
        "",
        (
            "error: there is no pause of queue mail\n"
            "note: all queues but builtin are paused until `queues resume *`\n"
        ),
        1,
    )
    done = program("queues", "resume", "*")
    assert said(done) == ("the pause of all queues but builtin has ended\n", "", 0)


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        ("queues pause", "Missing argument 'NAME'", 2),
        ("queues pause m --until morning", "'morning' is no date and time", 2),
        ("queues pause m --until 2999-01-31", "has no time zone", 2),
        ("queues pause m --until 2001-01-31T00:00Z", "until must lie in the future", 1),
        ("queues resume m", "there is no pause of queue m", 1),
        ("queues stop m", "No such command 'stop'", 2),
    ],
)
def test_mistakes_are_told_in_one_line(
    program: Program, query: Query, command: str, message: str, code: int
) -> None:
    done = program(*command.split())
    assert message in done.stderr
    assert (done.stderr.count("\n"), done.stdout, done.returncode) == (1, "", code)
    assert query(ROWS) == []
