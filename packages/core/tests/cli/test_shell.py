"""``procrastinate shell``: one command from the arguments, a prompt, and scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode

Query = Callable[..., Any]

JOBS = """
insert into procrastinate_jobs (id, status, queue_name, task_name, lock, queueing_lock, worker_id)
values
    (1, 'todo', 'mail', 'send', 'ann', null, null),
    (2, 'todo', 'mail', 'send', null, null, null),
    (3, 'doing', 'mail', 'send', 'eve', null, 7),
    (4, 'failed', 'mail', 'send', null, null, 7),
    (5, 'failed', 'reports', 'report', null, null, 7),
    (6, 'cancelled', 'reports', 'report', null, null, null),
    (7, 'succeeded', 'mail', 'send', null, null, 7),
    (8, 'todo', 'other', 'report', null, 'only', null),
    (9, 'failed', 'other', 'report', null, 'only', 7)
"""

PROMPT = "procrastinate> "


@pytest.fixture
def nine(program: Program, query: Query) -> Program:
    """The program on a database with nine jobs."""
    query(JOBS)
    return program


@pytest.fixture
def changed(nine: Program, query: Query) -> Callable[[], dict[int, Any]]:
    """The statuses of the jobs that have another one now than in `JOBS`; None: deleted."""

    def statuses() -> dict[int, Any]:
        return dict(query("select id, status::text from procrastinate_jobs"))

    before = statuses()

    def compare() -> dict[int, Any]:
        after = statuses()
        return {id: after.get(id) for id in before if before[id] != after.get(id)}

    return compare


def outcome(done: Any) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# By id


def test_jobs_named_by_id_are_cancelled_at_once(nine: Program, changed: Any) -> None:
    assert outcome(nine("shell", "cancel", "2", "1", "2")) == (0, "2 jobs cancelled: 1 2\n", "")
    assert changed() == {1: "cancelled", 2: "cancelled"}


def test_named_jobs_that_cannot_be_changed_are_told_and_the_others_are_changed(
    nine: Program, changed: Any
) -> None:
    assert outcome(nine("shell", "cancel", "1", "3", "7", "77")) == (
        ExitCode.ERROR,
        "1 job cancelled: 1\n",
        """\
error: job 3 was not cancelled: it is doing, and `abort` asks running jobs to end
error: job 7 was not cancelled: it is succeeded
error: there is no job 77
""",
    )
    assert changed() == {1: "cancelled"}


def test_a_cancelled_job_can_be_deleted_altogether(nine: Program, changed: Any) -> None:
    assert outcome(nine("shell", "cancel", "--delete", "1")) == (0, "1 job deleted: 1\n", "")
    assert changed() == {1: None}


def test_abort_cancels_waiting_jobs_and_asks_running_ones(
    nine: Program, changed: Any, query: Query
) -> None:
    assert outcome(nine("shell", "abort", "1", "3", "4")) == (
        ExitCode.ERROR,
        "2 jobs cancelled or asked to end: 1 3\n",
        "error: job 4 was not cancelled or asked to end: it is failed\n",
    )
    assert changed() == {1: "cancelled"}
    assert query("select id from procrastinate_jobs where abort_requested") == [(3,)]


def test_a_running_task_ends_when_it_is_aborted(
    program: Program, query: Query, wait_until: Callable[..., None]
) -> None:
    job_id = program("defer", "shop.nap", '{"seconds": 60}').stdout.strip()
    worker = program.start("worker")
    worker.wait_for("napping")
    assert program("shell", "abort", job_id).returncode == 0
    wait_until(lambda: query("select status::text from procrastinate_jobs") == [("aborted",)])
    assert worker.stop() == 0


def test_retry_makes_jobs_wait_again_and_may_change_them(
    nine: Program, changed: Any, query: Query
) -> None:
    # (Of 64 partitions too, the lock "n" belongs to the one in which these jobs are.)
    done = nine(
        "shell", "retry", "4", "6", "--at", "2090-01-01T00:00Z", "--to-queue", "q",
        "--to-priority", "-3", "--to-lock", "n",
    )  # fmt: skip
    assert outcome(done) == (0, "2 jobs retried: 4 6\n", "")
    assert changed() == {4: "todo", 6: "todo"}
    assert (
        query(
            "select queue_name, priority, lock, scheduled_at::text from procrastinate_jobs"
            " where id in (4, 6)"
        )
        == [("q", -3, "n", "2090-01-01 00:00:00+00")] * 2
    )


def test_a_job_whose_twin_waits_is_not_retried(nine: Program, changed: Any) -> None:
    twin = "a job with its queueing lock waits, or it does not match the filters"
    assert outcome(nine("shell", "retry", "9")) == (
        ExitCode.ERROR,
        "",
        f"error: job 9 was not retried: it is failed, and {twin}\n",
    )
    assert changed() == {}


# By filter


def test_a_change_by_filter_needs_yes_where_there_is_no_terminal(
    nine: Program, changed: Any
) -> None:
    hint = "add --yes to agree, where there is no terminal"
    see = "(see `procrastinate shell cancel --help`)"
    assert outcome(nine("shell", "cancel", "--queue", "mail")) == (
        ExitCode.USAGE,
        "",
        f"error: 2 jobs would be cancelled (2 todo): {hint} {see}\n",
    )
    assert changed() == {}
    assert outcome(nine("shell", "cancel", "--queue", "mail", "--yes")) == (
        0,
        "2 jobs cancelled: 1 2\n",
        "",
    )
    assert changed() == {1: "cancelled", 2: "cancelled"}


def test_the_question_says_how_many_jobs_it_is_about(nine: Program, changed: Any) -> None:
    expected = {
        "abort --queue mail": "3 jobs would be cancelled or asked to end (1 doing, 2 todo)",
        "abort --worker 7": "1 job would be cancelled or asked to end (1 doing)",
        "retry --task report --limit 2": "2 jobs would be retried (of 1 cancelled, 2 failed)",
        "retry --status failed --queue mail": "1 job would be retried (1 failed)",
    }
    done = nine.each(["shell", *command.split()] for command in expected)
    assert [each.stderr.partition(": add --yes")[0] for each in done] == [
        f"error: {question}" for question in expected.values()
    ]
    assert changed() == {}


@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_a_filter_that_matches_nothing_is_no_error(
    nine: Program, changed: Any, yes: list[str]
) -> None:
    done = nine("shell", "retry", "--queue", "nope", *yes)
    assert outcome(done) == ((0, "0 jobs retried\n", "") if yes else (0, "", "no jobs match\n"))
    assert changed() == {}


def test_filters_are_not_taken_from_the_environment(nine: Program, changed: Any) -> None:
    env = {"PROCRASTINATE_SHELL_CANCEL_QUEUE": "mail", "PROCRASTINATE_SHELL_CANCEL_YES": "1"}
    done = nine("shell", "cancel", env=env)
    assert done.returncode == ExitCode.USAGE
    assert "PROCRASTINATE_SHELL_CANCEL_YES is set, and nothing reads it\n" in done.stderr
    assert "\nerror: which jobs? Name their ids, or a filter such as --queue" in done.stderr
    assert changed() == {}


def test_bad_input_is_one_clear_line(bare_program: Program) -> None:
    expected = {
        "cancel": "which jobs?",
        "cancel --yes": "which jobs?",
        "cancel twelve": "'twelve' is no id",
        "cancel --status failed": "'failed' is not 'todo'",
        "retry --status succeeded": "'succeeded' is not one of 'todo', 'failed'",
        "retry 1 --in soon": "'soon' is no duration",
        "retry 1 --in 5m --at 2090-01-01T00:00Z": "exclude each other",
        f"retry --queue {'x' * 129}": "at most 128 characters",
        f"retry --lock {'x' * 513}": "at most 512 characters",
        "dance": "No such command 'dance'",
        "show": "Missing argument 'ID...'",
        "help dance": "No such command 'dance'",
    }
    done = bare_program.each(["shell", *command.split()] for command in expected)
    for each, message in zip(done, expected.values(), strict=True):
        assert (each.returncode, each.stdout) == (ExitCode.USAGE, "")
        assert message in each.stderr
        assert len(each.stderr.splitlines()) == 1


def test_no_server_is_one_clear_line(bare_program: Program) -> None:
    commands = ("shell", "shell cancel 1", "jobs", "queues")
    for done in bare_program.each(["-a", "shop.app", *each.split()] for each in commands):
        assert (done.returncode, done.stdout) == (ExitCode.ERROR, "")
        assert len(done.stderr.splitlines()) == 1


# Scripts


def test_a_script_runs_line_by_line_and_leaves_at_exit(nine: Program, changed: Any) -> None:
    script = "# morning\n\ncancel 1\n  show 2 --json\nexit\ncancel 2\n"
    done = nine("shell", stdin=script)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert (first, json.loads(second)["id"]) == ("1 job cancelled: 1", 2)
    assert changed() == {1: "cancelled"}


@pytest.mark.parametrize(
    "line, code, message",
    [
        ("show 77", ExitCode.ERROR, "there is no job 77"),
        ("cancel --queue mail", ExitCode.USAGE, "1 job would be cancelled"),
        ("polka", ExitCode.USAGE, "No such command 'polka'. (see `help`)"),
        ("show 'x", ExitCode.ERROR, "No closing quotation"),
    ],
)
def test_a_script_ends_at_its_first_failure_with_its_exit_code(
    nine: Program, changed: Any, line: str, code: ExitCode, message: str
) -> None:
    done = nine("shell", stdin=f"cancel 1\n{line}\ncancel 2\n")
    assert (done.returncode, done.stdout) == (code, "1 job cancelled: 1\n")
    assert done.stderr.startswith(f"error: {message}")
    assert changed() == {1: "cancelled"}


def test_help_lists_the_commands_or_explains_one(bare_program: Program) -> None:
    listed = bare_program("shell", "help").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [
        "list_jobs", "list_queues", "list_tasks", "list_locks", "show", "why", "cancel", "abort",
        "retry", "help", "exit",
    ]  # fmt: skip
    assert "..." not in listed
    one = bare_program("shell", "help", "cancel").stdout
    assert one == bare_program("shell", "cancel", "--help").stdout
    assert one.startswith("Usage: procrastinate shell cancel [OPTIONS] [ID]...\n")


# The prompt


def test_the_prompt_goes_on_after_failures_and_interruptions(nine: Program, query: Query) -> None:
    shell = nine.on_terminal("shell")
    shell.wait_for(PROMPT)
    shell.type("\n")
    shell.wait_for(PROMPT, times=2)
    shell.type("show 77\n")
    shell.wait_for("error: there is no job 77")
    shell.wait_for(PROMPT, times=3)
    shell.type("half a li")
    shell.wait_for("half a li")
    shell.type("\x03")  # Ctrl-C
    shell.wait_for(PROMPT, times=4)
    shell.type("cancel 1\n")
    shell.wait_for("1 job cancelled: 1")
    shell.wait_for(PROMPT, times=5)
    shell.type("\x04")  # Ctrl-D
    assert shell.ended() == 0
    assert query("select id from procrastinate_jobs where status = 'cancelled' and id < 6") == [
        (1,)
    ]


def test_a_change_by_filter_is_asked_about_at_the_prompt(nine: Program, changed: Any) -> None:
    shell = nine.on_terminal("shell")
    for answer, times, expected in [
        ("n\n", 1, "error: nothing was changed"),
        ("\x03", 2, "error: interrupted"),
        ("y\n", 3, "2 jobs cancelled: 1 2"),
    ]:
        shell.wait_for(PROMPT, times)
        assert changed() == {}
        shell.type("cancel --queue mail\n")
        shell.wait_for("2 jobs would be cancelled (2 todo). Go on? [y/N]: ", times)
        shell.type(answer)
        shell.wait_for(expected)
    shell.wait_for(PROMPT, 4)
    assert changed() == {1: "cancelled", 2: "cancelled"}
    shell.type("exit\n")
    assert shell.ended() == 0


def test_a_lost_connection_does_not_end_the_prompt(nine: Program, query: Query) -> None:
    shell = nine.on_terminal("shell")
    shell.wait_for(PROMPT)
    shell.type("show 1\n")
    shell.wait_for("job            1, ready")
    assert query(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    shell.wait_for(PROMPT, 2)
    shell.type("show 2\nshow 2\n")  # the first may be told of the loss
    shell.wait_for("job            2, ready")
    shell.wait_for(PROMPT, 4)
    shell.type("exit\n")
    assert shell.ended() == 0


def test_the_prompt_completes_commands_options_and_names_and_remembers_lines(
    nine: Program,
) -> None:
    shell = nine.on_terminal("shell")
    shell.wait_for(PROMPT)
    shell.type("list_j\t--ta\tshop.n\t--queue=let\t--js\t\n")
    line = "list_jobs --task shop.nap --queue=letters --json "
    shell.wait_for(line)
    shell.wait_for(PROMPT, 2)
    shell.type("exit\n")
    assert shell.ended() == 0
    assert "error" not in shell.shown
    history = nine.folder / "state" / "procrastinate" / "history"
    assert history.read_text() == f"{line}\nexit\n"
    assert history.stat().st_mode & 0o777 == 0o600

    again = nine.on_terminal("shell")
    again.wait_for(PROMPT)
    again.type("\x10\x10")  # Ctrl-P, twice: the line before the last
    again.wait_for(line)
    again.type("\n")
    again.wait_for(PROMPT, 2)
    again.type("exit\n")
    assert again.ended() == 0
