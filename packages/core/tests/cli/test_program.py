"""The program itself: options, environment, errors, exit codes, logs, `sys.argv`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.cli.exit_codes import MEANINGS, ExitCode
from procrastinate.storage.schema import latest_version

BROKEN_MODULES = {
    "raises SyntaxError": ("def f(:\n", "SyntaxError"),
    "imports what is missing": ("import no_such_module\n", "no_such_module"),
    "exits": ("import sys; sys.exit(3)\n", "called sys.exit(3)"),
    "has no app": ("", "there is nothing at 'broken.app'"),
    "has something else": ("app = 7\n", "there is int 7 at 'broken.app'"),
}


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failing command may write."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def test_the_version_is_that_of_the_package(bare_program: Program) -> None:
    done = bare_program("-V")
    assert (done.stdout, done.stderr, done.returncode) == ("procrastinate 4.0.0\n", "", 0)


def test_help_lists_commands_and_exit_codes_within_80_columns(bare_program: Program) -> None:
    text = bare_program("--help").stdout
    commands = (
        "worker", "defer", "schema", "healthchecks", "jobs", "queues", "shell", "connectors",
        "completion", "demo",
    )  # fmt: skip
    for command in commands:
        assert f"\n  {command} " in text
    for code, meaning in MEANINGS.items():
        assert f"  {code:<4} {meaning}\n" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "command", ["worker", "defer", "schema", "healthchecks", "jobs", "queues", "connectors"]
)
def test_each_commands_help_fits_80_columns_and_names_its_variables(
    bare_program: Program, command: str
) -> None:
    text = bare_program(command, "--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    options = [line for line in text.splitlines() if line.lstrip().startswith("-")]
    own = [line for line in options if "--help" not in line]
    joined = "".join(text.split())
    assert joined.count(f"PROCRASTINATE_{command.upper()}_") == len(own)


def test_without_a_command_the_help_is_shown_as_an_error(bare_program: Program) -> None:
    done = bare_program()
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.startswith("Usage: procrastinate")


def test_starting_imports_no_command_and_no_driver(bare_program: Program) -> None:
    script = (
        "import sys; from procrastinate.cli.root import root\n"
        "try: root.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('asyncio', 'jinja2', 'prometheus_client', 'rich', 'psycopg2', 'aiopg',"
        " 'procrastinate.cli.worker', 'procrastinate_embedded.demo.story')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", [["worker"], ["defer", "t"], ["schema", "--check"]])
def test_no_app_is_a_usage_error_that_says_how_to_name_one(
    bare_program: Program, command: list[str]
) -> None:
    done = bare_program(*command)
    assert done.returncode == ExitCode.USAGE
    assert error_of(done).startswith("no app was given: name its dotted path with --app")


def test_an_unknown_option_is_one_line_and_names_the_help(bare_program: Program) -> None:
    done = bare_program("worker", "--nope")
    assert done.returncode == ExitCode.USAGE
    assert "No such option" in error_of(done)
    assert error_of(done).endswith(" (see `procrastinate worker --help`)")


@pytest.mark.parametrize("case", BROKEN_MODULES)
def test_a_module_without_an_app_is_a_one_line_error(bare_program: Program, case: str) -> None:
    text, expected = BROKEN_MODULES[case]
    bare_program.folder.joinpath("broken.py").write_text(text)
    done = bare_program("-a", "broken.app", "healthchecks")
    assert done.returncode == ExitCode.ERROR
    assert expected in error_of(done)


def test_a_traceback_is_shown_only_with_v(bare_program: Program) -> None:
    bare_program.folder.joinpath("broken.py").write_text("1 / 0\n")
    quiet = bare_program("-a", "broken.app", "schema", "--check")
    loud = bare_program("-v", "-a", "broken.app", "schema", "--check")
    assert "division by zero" in error_of(quiet)
    assert loud.stderr.startswith("Traceback (most recent call last)")
    assert loud.stderr.splitlines()[-1] == f"error: {error_of(quiet)}"
    assert loud.returncode == quiet.returncode == ExitCode.ERROR


def test_an_unexpected_error_is_one_line_too(bare_program: Program) -> None:
    bare_program.folder.joinpath("odd.py").write_text(
        "import procrastinate, procrastinate.testing as t\n"
        "app = procrastinate.App(connector=t.InMemoryConnector())\n"
        "def broken(*a, **k): raise RuntimeError('of all things')\n"
        "app.open = broken\n"
    )
    done = bare_program("-a", "odd.app", "schema", "--check")
    assert error_of(done) == "unexpected RuntimeError: of all things (-v shows where)"
    assert done.returncode == ExitCode.ERROR


def test_no_server_is_a_one_line_error(bare_program: Program) -> None:
    done = bare_program("-a", "shop.app", "schema", "--apply")
    assert done.returncode == ExitCode.ERROR
    assert "9" in error_of(done)


@pytest.mark.one_partition("it shows the state of a schema that is not distributed")
@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_the_programs_options_may_stand_before_or_after_the_command_or_in_the_environment(
    program: Program, where: str
) -> None:
    del program.env["PROCRASTINATE_APP"]
    arguments = {
        "before": ["-a", "shop.sync_app", "schema", "--check"],
        "after": ["schema", "--check", "--app", "shop.sync_app"],
        "environment": ["schema", "--check"],
    }[where]
    env = {"PROCRASTINATE_APP": "shop.sync_app"} if where == "environment" else {}
    done = program(*arguments, env=env)
    said = f"the schema fits: version {latest_version()}, not distributed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


@pytest.mark.parametrize("how", ["console script", "python -m"])
@pytest.mark.parametrize(
    "args",
    [
        ["worker", "--one-shot"],
        ["-a", "shop.app", "worker", "--one-shot"],
        ["--app=shop.app", "--log-level", "warning", "worker", "--one-shot"],
    ],
)
def test_applications_see_the_program_and_the_command_first_in_sys_argv(
    program: Program, tmp_path: Path, how: str, args: list[str]
) -> None:
    if how == "python -m":
        program.command = [sys.executable, "-m", "procrastinate"]
    seen = tmp_path / "argv"
    done = program(*args, env={"SHOP_ARGV": str(seen)})
    assert done.returncode == 0, done.stderr
    options = args[: args.index("worker")]
    assert json.loads(seen.read_text()) == ["procrastinate", "worker", *options, "--one-shot"]


def test_a_connector_chosen_by_sys_argv_is_chosen_under_the_console_script(
    program: Program,
) -> None:
    assert program("-a", "shop.chosen_app", "worker", "--one-shot").returncode == 0
    health = program("healthchecks", env={"PROCRASTINATE_APP": "shop.chosen_app"})
    assert "ok    connection: Psycopg2Connector\n" in health.stdout
    assert "asynchronous" not in health.stdout


def test_json_logs_are_one_object_a_line_with_the_extra_fields(program: Program) -> None:
    done = program("--log-format", "json", "worker", "--one-shot", "--name", "press")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["action"] for line in lines] == ["start_worker", "stop_worker"]
    for line in lines:
        assert line["level"] == "info"
        assert line["logger"] == "procrastinate.worker"
        assert line["time"].endswith("+00:00")
        assert "press" in line["message"]


def test_the_log_level_can_be_chosen(program: Program) -> None:
    assert program("--log-level", "warning", "worker", "--one-shot").stderr == ""
    assert "INFO" in program("worker", "--one-shot").stderr


def test_output_that_nobody_reads_ends_the_program_quietly(program: Program) -> None:
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    assert reader.stdin is not None
    done = subprocess.run(
        [*program.command, "schema", "--read"],
        stdout=reader.stdin,
        stderr=subprocess.PIPE,
        text=True,
        cwd=program.folder,
        env=program.env,
    )
    reader.stdin.close()
    assert (done.stderr, done.returncode) == ("", ExitCode.ERROR)


@pytest.mark.parametrize("app", ["shop.app", "shop.sync_app"])
def test_commands_leave_no_warning_and_nothing_open(program: Program, app: str) -> None:
    env = {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1", "PROCRASTINATE_APP": app}
    commands = [["schema", "--check"], ["healthchecks"], ["defer", "shop.add", '{"a": 1, "b": 2}']]
    outcomes = [program(*command, env=env) for command in commands]
    # In this mode asyncio names each step that took 0.1 s, as one may on a busy machine.
    said = [re.sub(r".* asyncio: Executing .* took .*\n", "", done.stderr) for done in outcomes]
    assert list(zip([done.returncode for done in outcomes], said, strict=True)) == [(0, "")] * 3
