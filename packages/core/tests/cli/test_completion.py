"""What a shell completes, by click's protocol and in a real bash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

PROTOCOL = """
import io, json, os, sys
from contextlib import redirect_stdout
from procrastinate.cli.root import root

found = {}
lines = json.load(sys.stdin)
sys.path.insert(0, "")
for line in lines:
    os.environ["COMP_WORDS"] = line
    os.environ["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    with redirect_stdout(io.TextIOWrapper(io.BytesIO())) as stdout:
        try:
            root.main([], prog_name="procrastinate")
        except SystemExit:
            pass
        stdout.flush()
        found[line] = stdout.buffer.getvalue().decode().split()
json.dump(found, sys.stdout)
"""


def completed(program: Program, lines: Iterable[str]) -> dict[str, list[str]]:
    """What may stand for the last word of each command line: as bash asks for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROTOCOL],
        input=json.dumps(list(lines)),
        cwd=program.folder,
        env={**program.env, "_PROCRASTINATE_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {
        line: [each.removeprefix("plain,") for each in found]
        for line, found in json.loads(done.stdout).items()
    }


def test_commands_options_and_names_are_completed(bare_program: Program) -> None:
    lists = ["list_jobs", "list_queues", "list_tasks", "list_locks"]
    expected = {
        "procrastinate he": ["healthchecks"],
        "procrastinate -a shop.app qu": ["queues"],
        "procrastinate worker --conc": ["--concurrency"],
        "procrastinate worker --delete-jobs ": ["never", "successful", "always"],
        "procrastinate jobs --queue mail --status a": ["aborted"],
        "procrastinate jobs --newest": ["--newest-first"],
        "procrastinate queues --by t": ["task"],
        "procrastinate shell list_": lists,
        "procrastinate shell cancel --status ": ["todo"],
        "procrastinate shell retry --to-": ["--to-queue", "--to-priority", "--to-lock"],
        "procrastinate completion ": ["bash", "zsh", "fish"],
        "procrastinate -a shop.app defer shop.n": ["shop.nap"],
        "procrastinate -a shop.app jobs --task shop.a": ["shop.add"],
        "procrastinate -a shop.app shell cancel --queue ": ["default", "letters"],
        "procrastinate -a nowhere.app defer ": [],
        "procrastinate defer ": [],
    }
    assert completed(bare_program, expected) == expected


def test_completing_a_command_imports_none(bare_program: Program) -> None:
    script = (
        "import sys\n"
        "from procrastinate.cli.root import root\n"
        "try: root.main([], prog_name='procrastinate')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('rich', 'procrastinate.cli.worker', 'procrastinate.cli.jobs')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=bare_program.env
        | {
            "_PROCRASTINATE_COMPLETE": "bash_complete",
            "COMP_WORDS": "procrastinate ",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("plain,worker\nplain,defer\n")
    assert done.stderr == "[]\n"


def test_what_an_app_prints_or_breaks_while_it_is_imported_is_not_shown(
    bare_program: Program,
) -> None:
    app = (
        "import procrastinate, sys\nprint('hello'); print('world', file=sys.stderr)\n"
        "app = procrastinate.App(connector=procrastinate.AiopgConnector(), import_paths={})\n"
        "@app.task(name='chat')\ndef chat(): ...\n"
    )
    bare_program.folder.joinpath("chatty.py").write_text(app.format("[]"))
    bare_program.folder.joinpath("broken.py").write_text(app.format("['no_such_module']"))
    expected = {
        "procrastinate -a chatty.app defer ": ["chat"],
        "procrastinate -a broken.app defer ": [],
    }
    assert completed(bare_program, expected) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_program(bare_program: Program, shell: str) -> None:
    done = bare_program("completion", shell)
    assert done.returncode == 0
    assert f"_PROCRASTINATE_COMPLETE={shell}_complete" in done.stdout
    # Old releases of click end the script with one empty line less.
    source = bare_program(env={"_PROCRASTINATE_COMPLETE": f"{shell}_source"}).stdout
    assert done.stdout.rstrip() == source.rstrip()


def test_a_real_bash_completes(bare_program: Program) -> None:
    bash = shutil.which("bash")
    assert bash
    script = """
        eval "$(procrastinate completion bash)"
        COMP_WORDS=(procrastinate jobs --status fa) COMP_CWORD=3
        _procrastinate_completion procrastinate
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{bare_program.env['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        cwd=bare_program.folder,
        env={**bare_program.env, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "failed\n", "")
