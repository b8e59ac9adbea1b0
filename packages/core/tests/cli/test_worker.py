"""``procrastinate worker``: its options, and how it stops."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.worker import FLAGS
from procrastinate.model.worker_options import WorkerOptions

NOT_FOR_THE_COMMAND_LINE = {"install_signal_handlers", "additional_context", "middleware"}
Query = Callable[..., Any]


def statuses(query: Query) -> list[str]:
    return [row[0] for row in query("select status::text from procrastinate_jobs order by id")]


def test_each_worker_option_is_on_the_command_line() -> None:
    fields = {field.name for field in dataclasses.fields(WorkerOptions)}
    assert {flag.field for flag in FLAGS} == fields - NOT_FOR_THE_COMMAND_LINE


def test_a_one_shot_worker_runs_what_waits_and_ends(program: Program, query: Query) -> None:
    program("defer", "shop.add", "-", stdin='{"a": 1, "b": 2}\n' * 30)
    done = program("worker", "--one-shot", "-c", "10")
    assert done.returncode == 0, done.stderr
    assert statuses(query) == ["succeeded"] * 30


@pytest.mark.parametrize(
    "args, env",
    [
        (["-q", "letters, other"], {}),
        (["-q", "other", "--queues", "letters"], {}),
        ([], {"PROCRASTINATE_WORKER_QUEUES": "letters,other one"}),
    ],
)
def test_queues_are_given_by_commas_repetition_or_environment(
    program: Program, query: Query, args: list[str], env: dict[str, str]
) -> None:
    program("defer", "shop.add", '{"a": 1, "b": 2}')
    program("defer", "shop.pid")
    done = program("worker", "--one-shot", *args, env=env)
    assert done.returncode == 0, done.stderr
    assert statuses(query) == ["succeeded", "todo"]


def test_options_that_are_not_given_leave_the_apps_defaults_in_force(
    program: Program, query: Query
) -> None:
    program("defer", "shop.add", '{"a": 1, "b": 2}')
    program("defer", "shop.pid")
    done = program("worker", "-a", "shop.named_app", "--one-shot", "-q", "default")
    assert done.returncode == 0, done.stderr
    assert "worker till starts: queues default" in done.stderr
    assert statuses(query) == ["todo", "failed"]  # deletes only jobs that succeed


@pytest.mark.parametrize(
    "args, message",
    [
        (["--queues", ""], "names no queue; leave the option out for all queues"),
        (["--queues", "a,,b"], "queue must not be empty"),
        (["--queues", "x" * 129], "at most 128 characters"),
        (["--concurrency", "0"], "0 is not in the range"),
        (["--concurrency", "many"], "'many' is not a valid integer"),
        (["--polling-interval", "0"], "0.0 is not in the range"),
        (["--polling-interval", "nan"], "must be a number of seconds"),
        (["--heartbeat-interval", "60"], "stalled_worker_timeout (30 s) must be at least 3 times"),
        (["--polling-interval", "1e400"], "must be a number of seconds"),
        (["--heartbeat-interval", "9" * 400], "must be a number of seconds"),
        (["--stalled-worker-timeout", "9" * 400], "must be a number of seconds"),
        (["--shutdown-graceful-timeout", "1e30"], "at most 1000 years"),
        (["--unknown-task-patience", "-1"], "-1.0 is not in the range"),
        (["--unknown-task-patience", "inf"], "must be a number of seconds"),
        (["--concurrency", "9" * 5000], "is not a valid integer"),
        (["--name", os.fsdecode(b"caf\xe9")], "must be valid Unicode text"),
        (["--queues", os.fsdecode(b"a,caf\xe9")], "must be valid Unicode text"),
        (["--delete-jobs", "maybe"], "'maybe' is not one of"),
        (["--name", ""], "name must not be empty"),
        (["--processes", "0"], "0 is not in the range"),
    ],
)
def test_bad_options_are_one_clear_line(
    bare_program: Program, args: list[str], message: str
) -> None:
    done = bare_program("-a", "shop.app", "worker", *args)
    assert done.returncode == ExitCode.USAGE
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_synchronous_connector_is_refused_with_what_to_install(
    program: Program, processes: str
) -> None:
    done = program("-a", "shop.sync_app", "worker", "--processes", processes)
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.startswith("error: Psycopg2Connector is synchronous")
    assert "pip install procrastinate-aiopg" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_running_jobs_end_and_exits_with_0(
    program: Program, query: Query, number: int
) -> None:
    program("defer", "shop.nap", '{"seconds": 0.5}')
    worker = program.start("worker")
    worker.wait_for("napping")
    assert (worker.press_ctrl_c() if number == signal.SIGINT else worker.stop(number)) == 0
    assert statuses(query) == ["succeeded"]
    assert "Traceback" not in worker.output


def test_the_second_signal_aborts_running_jobs(program: Program, query: Query) -> None:
    program("defer", "shop.nap", '{"seconds": 100}')
    worker = program.start("worker")
    worker.wait_for("napping")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for("stopping:")
    assert worker.stop(signal.SIGTERM) == 0
    assert statuses(query) != ["succeeded"]
    assert "doing" not in statuses(query)


def test_flags_and_counts_come_from_the_environment_too(program: Program, query: Query) -> None:
    program("defer", "shop.add", '{"a": 1, "b": 2}')
    env = {
        "PROCRASTINATE_WORKER_ONE_SHOT": "1",
        "PROCRASTINATE_WORKER_LISTEN_NOTIFY": "0",
        "PROCRASTINATE_WORKER_DELETE_JOBS": "always",
        "PROCRASTINATE_WORKER_CONCURRENCY": "3",
        "PROCRASTINATE_LOG_FORMAT": "json",
        "PROCRASTINATE_VERBOSE": "1",
    }
    done = program("worker", env=env)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith('{"time": ') for line in done.stderr.splitlines())
    assert "concurrency 3" in done.stderr
    assert statuses(query) == []


def test_what_a_task_prints_reaches_a_pipe_while_the_task_runs(program: Program) -> None:
    program("defer", "shop.chat", '{"words": ["hello", "wörld"]}')
    worker = program.start("worker", "--shutdown-graceful-timeout=0")
    assert worker.wait_for("wörld") == ["wörld"]
    assert worker.output.index("hello") < worker.output.index("wörld")
    worker.process.kill()


def test_what_a_task_printed_is_not_lost_when_it_kills_its_process(program: Program) -> None:
    program("defer", "shop.chat", '{"words": ["last", "die"]}')
    worker = program.start("worker")
    assert worker.ended() == 7
    assert worker.lines_with("last") == ["last"]
