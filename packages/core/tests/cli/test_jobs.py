"""``procrastinate jobs`` and ``queues``: for people, for other programs, and for millions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import ExitCode

Query = Callable[..., Any]

FIVE = """
insert into procrastinate_jobs (id, status, queue_name, task_name, args, priority, lock,
    queueing_lock, attempts, deferred_at, scheduled_at, started_at, finished_at, worker_id, errors)
values
    (1, 'todo', 'mail', 'shop.send', '{"to": "ann", "n": 1}', 0, null, null, 0,
        '2020-01-01T00:00Z', '2020-01-02T03:04:05.678901Z', null, null, null, null),
    (2, 'doing', 'mail', 'shop.send', '{"to": "Jürgen"}', 5, 'customer-7', 'ql', 1,
        '2020-01-01T00:00Z', null, '2020-01-01T00:00:01Z', null, 9, null),
    (3, 'failed', 'reports', 'shop.report', '{}', 0, 'customer-7', null, 2,
        '2020-01-01T00:00Z', null, '2020-01-01T00:00:02Z', '2020-01-01T00:00:03Z', 9,
        '[{"attempt": 1, "at": "2020-01-01T00:00:01+00:00", "type": "OSError", "message": "x",
           "traceback": null},
          {"attempt": 2, "at": "2020-01-01T00:00:03+00:00", "type": "ValueError",
           "message": "no\\nsuch page",
           "traceback": "Traceback (most recent call last):\\n  File 1\\nValueError: no"}]'),
    (4, 'succeeded', 'mail', 'shop.send', '{"to": "eve"}', 0, null, null, 1,
        '2020-01-01T00:00Z', null, '2020-01-01T00:00:02Z', '2020-01-01T00:00:03Z', 9, null),
    (5, 'todo', E'odd\\tqueue', 'shop.send', '{}', 0, null, null, 0,
        '2020-01-01T00:00Z', null, null, null, null, null)
"""

HEAD = "id\tstate\tqueue\ttask_name\ttask_kwargs\tattempts\tscheduled_at\tstarted_at\tfinished_at"


@pytest.fixture
def five(program: Program, query: Query) -> Program:
    """The program on a database with five jobs, in a zone three hours east of UTC."""
    query(FIVE)
    program.env["TZ"] = "XYZ-3"
    return program


def ids(output: str) -> list[int]:
    """The ids of a list that is not for a terminal."""
    head, *lines = output.splitlines()
    assert head.startswith(HEAD)
    return [int(line.split("\t")[0]) for line in lines]


def test_a_pipe_gets_a_line_of_tabbed_fields_for_each_job_with_times_in_utc(five: Program) -> None:
    done = five("jobs", "--oldest-first")
    began, ended = "2020-01-01T00:00:02.000000+00:00", "2020-01-01T00:00:03.000000+00:00"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        HEAD,
        '1\tready\tmail\tshop.send\t{"n":1,"to":"ann"}\t0\t2020-01-02T03:04:05.678901+00:00\t\t',
        '2\trunning\tmail\tshop.send\t{"to":"Jürgen"}\t1\t\t2020-01-01T00:00:01.000000+00:00\t',
        f"3\tfailed\treports\tshop.report\t{{}}\t2\t\t{began}\t{ended}",
        f'4\tsucceeded\tmail\tshop.send\t{{"to":"eve"}}\t1\t\t{began}\t{ended}',
        "5\tready\todd\\tqueue\tshop.send\t{}\t0\t\t\t",
    ]


def test_errors_adds_the_last_error_in_one_line(five: Program) -> None:
    done = five("jobs", "--errors", "--status", "failed")
    assert done.stdout.splitlines()[0] == f"{HEAD}\tlast_error"
    assert done.stdout.splitlines()[1].endswith("\tValueError: no\\nsuch page")


def test_a_terminal_gets_a_table_that_fits_it_in_local_time(five: Program) -> None:
    line = "─" * 80
    assert (
        five.shown("jobs", COLUMNS="80")
        == f"""\
                                                                due, started
                                                                or ended
id  state      queue       task         arguments        tries  UTC+03:00
{line}
 5  ready      odd\\tqueue  shop.send    {{}}                   0  2020-01-01 03:00
 4  succeeded  mail        shop.send    {{"to":"eve"}}         1  2020-01-01 03:00
 3  failed     reports     shop.report  {{}}                   2  2020-01-01 03:00
 2  running    mail        shop.send    {{"to":"Jürgen"}}      1  2020-01-01 03:00
 1  ready      mail        shop.send    {{"n":1,"to":"a…      0  2020-01-02 06:04
"""
    )


def test_a_narrow_terminal_gets_fewer_columns(five: Program) -> None:
    assert (
        five.shown("jobs", "--limit", "3", "--oldest-first", COLUMNS="40")
        == """\
id  state    task
────────────────────────
 1  ready    shop.send
 2  running  shop.send
 3  failed   shop.report
there are more: --after-id 3 shows the next ones, --all all
"""
    )


def test_a_terminal_that_is_not_utf_8_gets_a_table_in_ascii(five: Program) -> None:
    env = {"COLUMNS": "76", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    line = "-" * 72
    assert (
        five.shown("jobs", "--id", "1", **env)
        == f"""\
                                                        due, started
                                                        or ended
id  state  queue  task       arguments           tries  UTC+03:00
{line}
 1  ready  mail   shop.send  {{"n":1,"to":"ann"}}      0  2020-01-02 06:04
"""
    )


def test_a_letter_that_a_pipe_cannot_take_is_escaped(five: Program) -> None:
    done = five("jobs", "--id", "2", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r'{"to":"J\xfcrgen"}' in done.stdout


def test_a_terminal_shows_the_last_errors_instead_of_arguments(five: Program) -> None:
    line = "─" * 80
    assert (
        five.shown("jobs", "--errors", "--id", "3", COLUMNS="80")
        == f"""\
                                                                due, started
                                                                or ended
id  state   queue    task         last error             tries  UTC+03:00
{line}
 3  failed  reports  shop.report  ValueError: no\\nsuch…      2  2020-01-01 03:00
"""
    )


def test_filters_and_order_choose_the_jobs(five: Program) -> None:
    """All in one shell, which has the same command."""
    expected = {
        "--queue mail": [1, 2, 4],
        "--task shop.report": [3],
        "--status todo --status FAILED": [1, 3, 5],
        "--lock customer-7": [2, 3],
        "--queueing-lock ql": [2],
        "--worker 9": [2, 3, 4],
        "--id 3 --id 5 --id 77": [3, 5],
        "--queue mail --status todo": [1],
        "--after-id 3": [4, 5],
        "--newest-first": [5, 4, 3, 2, 1],
        "--newest-first --after-id 4 --queue mail": [2, 1],
        "--queue nope": [],
        "--state ready": [1, 5],
        "--state running --state FAILED": [2, 3],
        "--error 'ValueError: no'": [3],
        "--since 2020-01-01T00:00:02Z --until 2020-01-01T00:00:03.1Z": [3, 4],
        "--state scheduled": [],
        "queue=mail status=todo": [1],
        "worker=9 queueing_lock=ql": [2],
    }
    marker = "show --json 4"
    script = "".join(f"list_jobs --json --errors {each}\n{marker}\n" for each in expected)
    done = five("shell", stdin=script)
    assert (done.returncode, done.stderr) == (0, "")
    seen = iter([json.loads(line)["id"] for line in done.stdout.splitlines()])
    assert {
        each: [next(seen) for _ in wanted] + [next(seen)] for each, wanted in expected.items()
    } == {each: [*wanted, 4] for each, wanted in expected.items()}


def test_options_come_from_the_environment_too(five: Program) -> None:
    done = five("jobs", env={"PROCRASTINATE_JOBS_QUEUE": "mail", "PROCRASTINATE_JOBS_JSON": "1"})
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2, 4]


def test_what_is_typed_outdoes_the_environment(five: Program) -> None:
    env = {"PROCRASTINATE_JOBS_QUEUE": "mail", "PROCRASTINATE_JOBS_LIMIT": "1"}
    assert ids(five("jobs", "--all", env=env).stdout) == [1, 2, 4]
    assert ids(five("jobs", "--limit", "2", env=env | {"PROCRASTINATE_JOBS_ALL": "1"}).stdout) == [
        4,
        2,
    ]
    assert five("jobs", "3", env=env).stdout.startswith("job            3, failed\n")


def test_that_nothing_matches_is_said_and_no_error(five: Program) -> None:
    done = five("jobs", "--queue", "nope")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no jobs match\n")


def test_a_page_says_how_to_get_the_next_one_and_the_last_says_nothing(five: Program) -> None:
    first = five("jobs", "--limit", "3", "--oldest-first")
    second = five("jobs", "--limit", "3", "--after-id", "3")
    assert (ids(first.stdout), first.stderr) == (
        [1, 2, 3],
        "there are more: --after-id 3 shows the next ones, --all all\n",
    )
    assert (ids(second.stdout), second.stderr) == ([4, 5], "")


def test_a_search_begins_with_the_newest_and_goes_on_by_its_cursor(five: Program) -> None:
    first = five("jobs", "--limit", "2", "--queue", "mail")
    assert ids(first.stdout) == [4, 2]
    cursor = first.stderr.split()[5]
    assert first.stderr == (
        f"there may be more: --cursor {cursor} shows the next ones, --all all\n"
    )
    rest = five("jobs", "--queue", "mail", "--cursor", cursor)
    assert (ids(rest.stdout), rest.stderr) == ([1], "")


def test_a_search_that_reads_no_further_says_so(program: Program, query: Query) -> None:
    query(MANY, 10_001)
    done = program("jobs", "--error", "no such page")
    assert (done.returncode, done.stdout) == (0, "")
    cursor = done.stderr.split()[9]
    assert done.stderr == (
        f"no jobs found after looking at 10,000 jobs: --cursor {cursor} goes on,"
        " --all looks at every job\n"
    )


def test_jobs_are_explained_and_changed_below_the_list(five: Program, query: Query) -> None:
    why = five("jobs", "why", "1", "3", "77")
    assert why.stdout == "job 1: no worker is alive\njob 3: it has ended: failed\n"
    assert (why.returncode, why.stderr) == (1, "error: there is no job 77\n")
    (line,) = five("jobs", "why", "2", "--json").stdout.splitlines()
    assert json.loads(line) == {
        "id": 2,
        "kind": "running",
        "text": "it is running, on worker 9",
        "until": None,
        "job_id": None,
    }
    chosen = ("jobs", "retry", "--error", "ValueError", "--since", "2020-01-01")
    asked = five(*chosen)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "1 job would be retried (1 failed): add --yes to agree" in asked.stderr
    assert "(see `procrastinate jobs retry --help`)" in asked.stderr
    env = {"PROCRASTINATE_JOBS_RETRY_LIMIT": "nonsense"}  # no option is taken from there
    assert five(*chosen, "--yes", env=env).stdout == "1 job retried: 3\n"
    assert query("select status::text from procrastinate_jobs where id = 3") == [("todo",)]


# At a glance


def test_failures_are_shown_in_groups(five: Program) -> None:
    done = five("failures")
    assert done.stdout.splitlines()[1] == (
        "shop.report\tValueError\tno\t1\tTrue\t2020-01-01T00:00:03.000000+00:00"
        "\t2020-01-01T00:00:03.000000+00:00\t3"
    )
    (line,) = five("failures", "--json", "--since", "2020-01-01").stdout.splitlines()
    assert json.loads(line)["error_text"] == "no"
    none = five("failures", "--since", "1h")
    assert (none.returncode, none.stdout, none.stderr) == (0, "", "nothing has failed\n")


def test_queues_are_shown_at_a_glance(five: Program) -> None:
    done = five("queues")
    assert (done.returncode, done.stderr) == (0, "")
    since = "2020-01-02T03:04:05.678901+00:00"
    assert done.stdout == (
        "queue\tready\tscheduled\tbehind_a_lock\trunning\tfailed\tat_least"
        "\toldest_ready_since\tpause\n"
        f"mail\t1\t0\t0\t1\t0\t\t{since}\t\n"
        "odd\\tqueue\t1\t0\t0\t0\t0\t\t2020-01-01T00:00:00.000000+00:00\t\n"
        "reports\t0\t0\t0\t0\t1\t\t\t\n"
    )
    assert json.loads(five("queues", "--json").stdout.splitlines()[0]) == {
        "queue": "mail",
        "ready": 1,
        "scheduled": 0,
        "behind_a_lock": 0,
        "running": 1,
        "failed": 0,
        "at_least": [],
        "oldest_ready_since": since,
        "pause": None,
    }


def test_json_has_every_field_in_full_precision_and_ascii(five: Program) -> None:
    line = five("jobs", "--json", "--id", "3").stdout
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "id": 3,
        "status": "failed",
        "queue": "reports",
        "task_name": "shop.report",
        "task_kwargs": {},
        "priority": 0,
        "lock": "customer-7",
        "queueing_lock": None,
        "attempts": 2,
        "deferred_at": "2020-01-01T00:00:00.000000+00:00",
        "scheduled_at": None,
        "started_at": "2020-01-01T00:00:02.000000+00:00",
        "first_started_at": "2020-01-01T00:00:02.000000+00:00",
        "finished_at": "2020-01-01T00:00:03.000000+00:00",
        "worker": 9,
        "errors": [
            {
                "attempt": 1,
                "at": "2020-01-01T00:00:01+00:00",
                "type": "OSError",
                "message": "x",
                "traceback": None,
            },
            {
                "attempt": 2,
                "at": "2020-01-01T00:00:03+00:00",
                "type": "ValueError",
                "message": "no\nsuch page",
                "traceback": "Traceback (most recent call last):\n  File 1\nValueError: no",
            },
        ],
        "lease": 0,
        "crashes": 0,
        "meta": None,
        "progress": None,
        "result": None,
        "has_result": False,
        "result_error": None,
        "state": "failed",
    }
    assert five("jobs", "--json", "--id", "2").stdout.isascii()


def test_an_id_shows_the_job_whole_with_its_tracebacks(five: Program) -> None:
    done = five("jobs", "3", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == """\
job            3, failed
task           shop.report
queue          reports
arguments      {}
priority       0
lock           customer-7
attempts       2
worker         9
deferred       2020-01-01 03:00:00.000+03:00
started        2020-01-01 03:00:02.000+03:00
ended          2020-01-01 03:00:03.000+03:00

attempt 1, 2020-01-01 03:00:01.000+03:00: OSError: x

attempt 2, 2020-01-01 03:00:03.000+03:00: ValueError: no\\nsuch page
  Traceback (most recent call last):
    File 1
  ValueError: no

job            1, ready
task           shop.send
queue          mail
arguments      {"n":1,"to":"ann"}
priority       0
attempts       0
deferred       2020-01-01 03:00:00.000+03:00
scheduled      2020-01-02 06:04:05.678+03:00
"""
    )


@pytest.mark.parametrize(
    ("status", "state"), [("todo", "ready"), ("doing", "running"), ("failed", "failed")]
)
def test_only_a_job_that_has_ended_is_shown_with_an_end(
    five: Program, query: Callable[..., Any], status: str, state: str
) -> None:
    """A job that was handed back, or claimed again, keeps the time of its last end."""
    query(
        "update procrastinate_jobs set status = %s::procrastinate_job_status where id = 3", status
    )
    shown = five("jobs", "3").stdout
    assert f"job            3, {state}\n" in shown
    assert ("\nended  " in shown) is (status == "failed")


@pytest.mark.one_partition("a row made by hand is not where its lock belongs")
def test_a_job_that_runs_is_shown_with_how_long_it_does_and_whether_it_is_to_end(
    five: Program, query: Callable[..., Any]
) -> None:
    query("update procrastinate_jobs set started_at = now() - interval '50 hours' where id = 2")
    shown = five("jobs", "2").stdout
    assert "\nrunning for    2 d\n" in shown
    assert "asked to end" not in shown
    query("update procrastinate_jobs set abort_requested = true where id = 2")
    assert "\nasked to end   yes, and its task has not obeyed yet\n" in five("jobs", "2").stdout


def test_a_retry_strategy_that_failed_is_shown_below_the_attempt(
    program: Program, query: Callable[..., Any]
) -> None:
    error = {"attempt": 1, "at": None, "type": "OSError", "message": "x", "traceback": "at\n"}
    error["retry_error"] = {**error, "type": "TypeError", "message": "not 5"}
    job_id = program("defer", "shop.pid").stdout.strip()
    query("update procrastinate_jobs set errors = %s::jsonb", json.dumps([error]))
    shown = program("jobs", job_id).stdout.splitlines()
    assert shown[-4:] == [
        "attempt 1: OSError: x",
        "  at",
        "no retry, as its strategy failed: TypeError: not 5",
        "  at",
    ]


def test_an_unknown_id_is_told_beside_the_known_ones(five: Program) -> None:
    done = five("jobs", "77", "5", "--json")
    assert (done.returncode, done.stderr) == (ExitCode.ERROR, "error: there is no job 77\n")
    assert json.loads(done.stdout)["id"] == 5


def test_bad_input_is_one_clear_line(bare_program: Program) -> None:
    expected = {
        "jobs twelve": "'twelve' is no id, which is a number such as 12",
        "jobs --id 0x1": "'0x1' is no id",
        f"jobs --id {2**63}": "is no id",
        "jobs 3 --queue mail": "filters are for lists: --id ID",
        "jobs --status done": "'done' is not one of 'todo', 'doing'",
        "jobs --queue=": "queue must not be empty",
        f"jobs --task {'x' * 129}": "task must have at most 128 characters",
        f"jobs --lock {'x' * 513}": "lock must have at most 512 characters",
        "jobs --limit 0": "0 is not in the range x>=1",
        "jobs --limit 5 --all": "--all and --limit exclude each other",
        "queues --by colour": "'colour' is not one of 'queue', 'task', 'lock'",
    }
    done = bare_program.each(command.split() for command in expected)
    for each, message in zip(done, expected.values(), strict=True):
        assert (each.returncode, each.stdout) == (ExitCode.USAGE, "")
        assert message in each.stderr
        assert len(each.stderr.splitlines()) == 1


# Many jobs


MANY = """
insert into procrastinate_jobs (queue_name, task_name, args)
select (array['even', 'odd'])[1 + i %% 2], 'many', jsonb_build_object('n', i)
from generate_series(1, %s) as i
"""


def test_lists_are_read_page_by_page_from_either_end(program: Program, query: Query) -> None:
    query(MANY, 5_000)
    up = program("jobs", "--json", "--queue", "odd")
    down = program("jobs", "--all", "--newest-first")
    numbers = [json.loads(line)["task_kwargs"]["n"] for line in up.stdout.splitlines()]
    assert numbers == list(range(1, 5_000, 2))
    assert ids(down.stdout) == [
        row[0] for row in query("select id from procrastinate_jobs order by id desc")
    ]
    assert (up.stderr, down.stderr) == ("", "")


MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.slow
def test_the_memory_for_a_list_does_not_grow_with_it(program: Program, query: Query) -> None:
    def peak(*options: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *program.command, "jobs", "--json", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=program.folder,
            env=program.env,
        )
        assert done.returncode == 0
        return int(done.stderr)

    query(MANY, 30_000)
    short, long = peak("--limit", "1000", "--oldest-first"), peak()
    assert long < short + 8_000  # kB; 30,000 jobs at once are 30 MB


def test_a_reader_that_goes_away_ends_the_list_quietly(program: Program, query: Query) -> None:
    query(MANY, 20_000)
    process = subprocess.Popen(
        [*program.command, "jobs", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=program.folder,
        env=program.env,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["task_kwargs"] == {"n": 1}
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == ExitCode.ERROR
    process.stderr.close()


# Counts


def test_a_pipe_gets_the_counts_as_tabbed_fields(five: Program) -> None:
    done = five("queues", "--count-all")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "name\tjobs_count\ttodo\tdoing\tsucceeded\tfailed\tcancelled\taborted\n"
        "mail\t3\t1\t1\t1\t0\t0\t0\n"
        "odd\\tqueue\t1\t1\t0\t0\t0\t0\t0\n"
        "reports\t1\t0\t0\t0\t1\t0\t0\n"
    )


def test_counts_are_by_queue_task_or_lock_and_can_be_filtered(five: Program) -> None:
    cases = {
        "queues --by task": [("shop.report", 1), ("shop.send", 4)],
        "queues --by lock": [("customer-7", 2)],
        "list_locks": [("customer-7", 2)],
        "list_tasks --queue mail": [("shop.send", 3)],
        "list_queues --task shop.report": [("reports", 1)],
        "list-queues lock=customer-7": [("mail", 1), ("reports", 1)],
        "list_queues --queue nope": [],
    }
    done = five("shell", stdin="".join(f"{each} --json\n" for each in cases))
    assert (done.returncode, done.stderr) == (0, "")
    counts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["name"], each["jobs_count"]) for each in counts] == [
        pair for pairs in cases.values() for pair in pairs
    ]


def test_a_terminal_gets_the_counts_as_a_table_and_a_narrow_one_what_is_under_way(
    five: Program,
) -> None:
    assert (
        five.shown("queues", "--count-all", COLUMNS="80")
        == """\
queue       jobs  todo  doing  succeeded  failed  cancelled  aborted
────────────────────────────────────────────────────────────────────
mail           3     1      1          1       0          0        0
odd\\tqueue     1     1      0          0       0          0        0
reports        1     0      0          0       1          0        0
"""
    )
    assert (
        five.shown("queues", "--by", "queue", COLUMNS="40")
        == """\
queue       jobs  todo  doing  failed
─────────────────────────────────────
mail           3     1      1       0
odd\\tqueue     1     1      0       0
reports        1     0      0       1
"""
    )


@pytest.mark.parametrize(
    "value", ["1e100000", "9" * 5_000, "[" * 3_000 + "]" * 3_000], ids=["float", "digits", "nested"]
)
def test_one_job_that_python_cannot_decode_hides_no_others(
    five: Program, query: Query, value: str
) -> None:
    """It is shown as the JSON that it is, and why it is not more than that."""
    query(f"""update procrastinate_jobs set args = '{{"x": {value}}}' where id = 3""")
    for command in (["jobs", "--all"], ["jobs", "--errors"], ["shell", "list_jobs"]):
        done = five(*command)
        assert (done.returncode, sorted(ids(done.stdout))) == (0, [1, 2, 3, 4, 5])
    done = five("jobs", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in lines] == [1, 2, 3, 4, 5]
    shown = lines[2]["task_kwargs"]
    is_decoded = isinstance(shown, dict)
    assert not is_decoded or (value[0] == "[" and sys.version_info >= (3, 13))
    assert is_decoded or shown.startswith('{"x": ')
    done = five("jobs", "3")
    assert done.returncode == 0
    assert ("arguments      cannot be decoded (" in done.stdout) == (not is_decoded)
    assert len(done.stdout) < 10_000


ODD_ERRORS = ["{}", "3", '"x"', "[]", "[[1]]", "[null]", '[{"at": 3}]', '[{"at": "never"}]']


@pytest.mark.parametrize("odd", [*ODD_ERRORS, '[{"retry_error": 5, "traceback": [1]}]'])
def test_a_job_with_odd_errors_is_shown(five: Program, query: Query, odd: str) -> None:
    query("alter table procrastinate_jobs drop constraint procrastinate_jobs_row_check")
    query("update procrastinate_jobs set errors = %s where id = 3", odd)
    for command in (
        ["jobs", "3"],
        ["jobs", "--errors"],
        ["jobs", "--json"],
        ["jobs", "3", "--json"],
    ):
        done = five(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
