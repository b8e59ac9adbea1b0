"""Each call in the tables of the page "From Procrastinate 3" does what stands beside it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import snippets

import procrastinate
from procrastinate import ProcrastinateException, builtin_tasks, testing

PAGE = Path(__file__).parents[1] / "docs/howto/from-procrastinate-3.md"
HEAD = "| in Procrastinate 3 | here |"


class Row(NamedTuple):
    call: str
    outcome: str
    said: tuple[str, ...]


def rows() -> list[Row]:
    """Return the rows of the tables below `HEAD`."""
    found: list[Row] = []
    inside = False
    for line in PAGE.read_text("utf-8").splitlines():
        inside = line == HEAD or (inside and line.startswith("|"))
        if inside and line != HEAD and not line.startswith("|--"):
            found.append(_row(line))
    return found


def _row(line: str) -> Row:
    parts = re.fullmatch(r"\| `(.+)` \| (the same|(warns|refused): .+) \|", line)
    assert parts is not None, line
    outcome = parts[3] or parts[2]
    return Row(parts[1], outcome, tuple(re.findall("`([^`]+)`", parts[2])))


CALLS = [row for row in rows() if not row.call.startswith("$ ")]
COMMANDS = [row for row in rows() if row.call.startswith("$ ")]

OLD_SHOP = next(
    block.text for block in snippets.parse(PAGE.read_text("utf-8")) if block.name == "old_shop.py"
)

REFUSALS = (ProcrastinateException, AttributeError, ImportError, TypeError)

#: What a line that begins with @ stands above.
BELOW = {
    "@app.task": "def work(): ...",
    "@app.periodic": "@app.task\ndef work(timestamp, value=0): ...",
}


def run(code: str) -> None:
    """Run a call of the table, in a program of its own, where it may await."""
    for decorator, below in BELOW.items():
        if code.startswith(decorator):
            code = f"{code}\n{below}"
    program = sys.modules["old_shop"].__dict__
    exec(OLD_SHOP, program)
    if "context" in code.replace("additional_context=", ""):
        asyncio.run(_in_a_task(code, program))
    else:
        asyncio.run(_run(code, program))


async def _run(code: str, program: dict[str, Any]) -> None:
    compiled = compile(code, "the table", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, program)
    if inspect.iscoroutine(result):
        await result


async def _in_a_task(code: str, program: dict[str, Any]) -> None:
    async def work(context: procrastinate.JobContext) -> None:
        await _run(code, program | {"context": context})

    app = program["app"]
    app.task(name="work", pass_context=True)(work)
    app.configure_task("work").defer()
    ended = await testing.run_jobs_async(app)
    assert [job.status for job in ended if job.task_name == "work"] == ["succeeded"]


def test_there_are_forty_calls_at_least() -> None:
    assert len(CALLS) >= 40
    assert len(set(rows())) == len(rows())
    assert all(row.said for row in rows() if row.outcome != "the same")


@pytest.mark.parametrize("row", CALLS, ids=[row.call for row in CALLS])
def test_a_call(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_tasks, "_APPS", type(builtin_tasks._APPS)())
    monkeypatch.setitem(sys.modules, "old_shop", ModuleType("old_shop"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        if row.outcome == "refused":
            with pytest.raises(REFUSALS) as raised:
                run(row.call)
            said = str(raised.value)
        else:
            run(row.call)
            said = "\n".join(
                str(each.message)
                for each in caught
                # The collector's ResourceWarnings come at any time, and from other tests.
                if issubclass(each.category, DeprecationWarning)
            )
    if row.outcome == "the same":
        assert said == ""
    assert [text for text in row.said if text not in said] == [], said


#: Runs command lines one after the other, and prints [exit code, stderr] of each.
EACH = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from procrastinate.cli.root import root

outcomes = []
for variables, args in json.load(sys.stdin):
    os.environ.update(variables)
    err = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(err):
        try:
            root.main(args, prog_name="procrastinate")
        except SystemExit as exc:
            code = exc.code
    outcomes.append([code, err.getvalue()])
    for name in [each for each in os.environ if each.startswith("PROCRASTINATE_W")]:
        del os.environ[name]
    os.environ.pop("PROCRASTINATE_LOG_FORMAT_STYLE", None)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and stderr of each command of the table."""
    folder = tmp_path_factory.mktemp("old_shop")
    (folder / "old_shop.py").write_text(OLD_SHOP, "utf-8")
    kept = {name: value for name, value in os.environ.items() if "PROCRASTINATE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        cwd=folder,
        env=kept | {"PROCRASTINATE_APP": "old_shop.app"},
        input=json.dumps([_command(row.call) for row in COMMANDS]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = [(code or 0, err) for code, err in json.loads(done.stdout)]
    return {row.call: outcome for row, outcome in zip(COMMANDS, found, strict=True)}


def _command(line: str) -> tuple[dict[str, str], list[str]]:
    before, _, after = line.removeprefix("$ ").partition("procrastinate")
    variables = dict(word.split("=", 1) for word in shlex.split(before))
    return variables, shlex.split(after)


@pytest.mark.parametrize("row", COMMANDS, ids=[row.call for row in COMMANDS])
def test_a_command(row: Row, outcomes: dict[str, tuple[int, str]]) -> None:
    code, err = outcomes[row.call]

    assert (code == 0) is (row.outcome != "refused"), err
    assert ("WARNING" in err) is (row.outcome == "warns"), err
    assert [text for text in row.said if text not in err] == []
