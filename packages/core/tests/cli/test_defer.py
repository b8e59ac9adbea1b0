"""``procrastinate defer``: one job, and jobs from lines of standard input."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode

Query = Callable[..., Any]
ADD = ["defer", "shop.add"]


def lines(count: int) -> str:
    return "".join(f'{{"a": {n}, "b": 0}}\n' for n in range(count))


def jobs(query: Query) -> Any:
    return query("select id, task_name, queue_name, args from procrastinate_jobs order by id")


@pytest.mark.parametrize("app", ["shop.app", "shop.sync_app"])
def test_a_job_is_deferred_and_its_id_printed(program: Program, query: Query, app: str) -> None:
    done = program("-a", app, *ADD, '{"a": 1, "b": "ü"}')
    assert (done.returncode, done.stderr) == (0, "")
    assert jobs(query) == [(int(done.stdout), "shop.add", "letters", {"a": 1, "b": "ü"})]


def test_without_json_the_task_gets_no_arguments(program: Program, query: Query) -> None:
    assert program("defer", "shop.pid").returncode == 0
    assert [job[3] for job in jobs(query)] == [{}]


def test_an_argument_may_have_any_name(program: Program, query: Query) -> None:
    assert program("defer", "--unknown", "other", '{"self": 1, "args": 2}').returncode == 0
    assert [job[3] for job in jobs(query)] == [{"self": 1, "args": 2}]


def test_options_become_the_jobs(program: Program, query: Query) -> None:
    done = program(
        *ADD, '{"a": 1, "b": 2}', "--queue", "q", "--priority", "-7", "--lock", "l",
        "--queueing-lock", "ql", "--partition-key", "k", "--at", "2030-01-31T08:00:00+01:00",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert query(
        "select queue_name, priority, lock, queueing_lock, scheduled_at from procrastinate_jobs"
    ) == [("q", -7, "l", "ql", datetime(2030, 1, 31, 7, tzinfo=UTC))]


def test_options_come_from_the_environment_too(program: Program, query: Query) -> None:
    env = {"PROCRASTINATE_DEFER_LOCK": "l", "PROCRASTINATE_DEFER_IN": "1h30m"}
    assert program(*ADD, '{"a": 1, "b": 2}', env=env).returncode == 0
    [(lock, wait)] = query("select lock, scheduled_at - deferred_at from procrastinate_jobs")
    assert (lock, wait) == ("l", timedelta(hours=1, minutes=30))


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        ([*ADD, '{"a": 1}'], ExitCode.ERROR, "missing a required argument: 'b'"),
        ([*ADD, "{"], ExitCode.ERROR, "the arguments are not JSON"),
        ([*ADD, ""], ExitCode.ERROR, "the arguments are not JSON"),
        ([*ADD, "[1]"], ExitCode.ERROR, "the arguments are not a JSON object"),
        ([*ADD, '{"a": NaN, "b": 1}'], ExitCode.ERROR, "'a' of task shop.add is not JSON"),
        ([*ADD, r'{"a": "\u0000", "b": 1}'], ExitCode.ERROR, "contains a NUL character"),
        (["defer", "shop.nope"], ExitCode.ERROR, "--unknown"),
        (["defer", "--unknown", "x" * 129], ExitCode.USAGE, "at most 128 characters"),
        ([*ADD, "--queue", "x" * 129], ExitCode.USAGE, "at most 128 characters"),
        ([*ADD, "--priority", str(2**31)], ExitCode.USAGE, "priority must be between"),
        ([*ADD, "--priority", "high"], ExitCode.USAGE, "'high' is not a valid integer"),
        ([*ADD, "--at", "2030-01-31T08:00:00"], ExitCode.USAGE, "has no time zone"),
        ([*ADD, "--at", "soon"], ExitCode.USAGE, "is no date and time in ISO 8601"),
        ([*ADD, "--in", "soon"], ExitCode.USAGE, "'soon' is no duration"),
        ([*ADD, "--in", "9999999999999d"], ExitCode.USAGE, "too long"),
        ([*ADD, "--in", "1001w", "--at", "2030-01-01T00:00Z"], ExitCode.USAGE, "exclude"),
        ([*ADD, "--commit-every", "5", "{}"], ExitCode.USAGE, "for jobs from stdin"),
    ],
)
def test_bad_input_is_a_clear_line_and_nothing_is_deferred(
    program: Program, query: Query, arguments: list[str], code: ExitCode, message: str
) -> None:
    done = program(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert jobs(query) == []


def test_arguments_are_read_before_the_database_is_asked(bare_program: Program) -> None:
    done = bare_program("-a", "shop.app", *ADD, "{")
    assert done.returncode == ExitCode.ERROR
    assert "the arguments are not JSON" in done.stderr


def test_a_taken_queueing_lock_is_an_error_unless_it_is_to_be_ignored(
    program: Program, query: Query
) -> None:
    one = [*ADD, '{"a": 1, "b": 2}', "--queueing-lock", "only"]
    assert program(*one).returncode == 0
    again = program(*one)
    ignored = program(*one, "-i")
    assert again.returncode == ExitCode.ERROR
    assert again.stderr.startswith("error: a job with the queueing lock 'only' is waiting already")
    assert (ignored.returncode, ignored.stdout) == (0, "")
    assert "is waiting already" in ignored.stderr
    assert len(jobs(query)) == 1


@pytest.mark.parametrize("app", ["shop.app", "shop.sync_app"])
def test_each_line_of_stdin_becomes_a_job_in_order_and_ids_are_printed(
    program: Program, query: Query, app: str
) -> None:
    done = program("-a", app, *ADD, "-", stdin=lines(2500))
    assert (done.returncode, done.stderr) == (0, "deferred 2,500 jobs\n")
    assert [(job[0], job[3]["a"]) for job in jobs(query)] == list(
        zip(map(int, done.stdout.split()), range(2500), strict=True)
    )


def test_blank_lines_a_bom_and_windows_line_ends_are_no_matter(
    program: Program, query: Query
) -> None:
    done = program(*ADD, "-", stdin=b'\xef\xbb\xbf{"a": 1, "b": 2}\r\n\r\n  \n{"a": 3, "b": 4}')
    assert (done.returncode, done.stderr) == (0, "deferred 2 jobs\n")
    assert [job[3]["a"] for job in jobs(query)] == [1, 3]


def test_empty_input_defers_nothing(program: Program) -> None:
    done = program(*ADD, "-", stdin="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "deferred 0 jobs\n")


def test_ids_are_left_out_on_request(program: Program) -> None:
    done = program(*ADD, "-", "--no-print-ids", stdin=lines(3))
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "line, message",
    [
        (b"{", "the arguments are not JSON"),
        (b"7", "not a JSON object"),
        (b'{"a": 1}', "missing a required argument"),
        (b'{"a": "\xff", "b": 1}', "not UTF-8"),
        (rb'{"a": "\u0000", "b": 1}', "NUL"),
    ],
)
def test_a_broken_line_is_named_and_nothing_of_the_input_is_deferred(
    program: Program, query: Query, line: bytes, message: str
) -> None:
    done = program(*ADD, "-", stdin=lines(2001).encode() + b"\n" + line + b"\n" + lines(5).encode())
    assert done.returncode == ExitCode.ERROR
    assert done.stdout == ""
    assert done.stderr.startswith("error: line 2003: ")
    assert message in done.stderr
    assert done.stderr.endswith("; nothing was deferred\n")
    assert jobs(query) == []


def test_with_commit_every_an_error_says_how_many_jobs_stay_deferred(
    program: Program, query: Query
) -> None:
    done = program(*ADD, "-", "--commit-every", "10", stdin=lines(25) + "broken")
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.startswith("error: line 26: ")
    assert done.stderr.endswith("; 20 jobs had been deferred\n")
    assert [job[3]["a"] for job in jobs(query)] == list(range(20))


def test_lines_with_one_queueing_lock_clash_unless_the_clash_is_to_be_ignored(
    program: Program, query: Query
) -> None:
    clash = program(*ADD, "-", "--queueing-lock", "only", stdin=lines(3))
    assert clash.returncode == ExitCode.ERROR
    assert clash.stderr.endswith("is waiting already; nothing was deferred\n")
    assert jobs(query) == []
    done = program(*ADD, "-", "--queueing-lock", "only", "-i", stdin=lines(3))
    assert (done.returncode, done.stderr) == (0, "deferred 1 job, 2 waiting already\n")
    assert len(jobs(query)) == 1


def test_a_megabyte_argument_is_deferred(program: Program, query: Query) -> None:
    done = program(*ADD, "-", stdin=f'{{"a": "{"x" * 2**20}", "b": 1}}')
    assert done.returncode == 0, done.stderr
    assert query("select length(args->>'a') from procrastinate_jobs") == [(2**20,)]


def test_an_interruption_defers_nothing_and_exits_with_130(
    program: Program, query: Query, wait_until: Callable[..., None]
) -> None:
    process = subprocess.Popen(
        [*program.command, *ADD, "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=program.folder,
        env=program.env,
    )
    assert process.stdin is not None
    process.stdin.write(lines(3000))
    process.stdin.flush()
    inserting = "select 1 from pg_stat_activity where datname = current_database() and state like"
    wait_until(lambda: query(f"{inserting} 'idle in transaction'"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert stderr.strip() == "error: interrupted"
    assert jobs(query) == []


def test_progress_is_shown_on_a_terminal_and_only_there(program: Program, query: Query) -> None:
    source = program.folder / "lines"
    source.write_text(lines(5000))
    terminal, side = pty.openpty()
    with source.open() as stdin:
        process = subprocess.Popen(
            [*program.command, *ADD, "-"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=side,
            text=True,
            cwd=program.folder,
            env={**program.env, "TERM": "xterm"},
        )
    os.close(side)
    shown = _read_to_end(terminal)
    ids = process.communicate(timeout=30)[0].split()
    assert process.returncode == 0
    assert re.search(r"deferring .*5,000 jobs, [\d,]+/s", shown)
    assert "deferred 5,000 jobs" in shown
    assert len(ids) == len(jobs(query)) == 5000


def _read_to_end(terminal: int) -> str:
    chunks = []
    try:
        while chunk := os.read(terminal, 65536):
            chunks.append(chunk)
    except OSError:  # how Linux says that the other side was closed
        pass
    os.close(terminal)
    return b"".join(chunks).decode()
