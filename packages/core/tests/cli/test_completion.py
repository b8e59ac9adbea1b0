"""What a shell completes, by click's protocol and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest


def completed(program: Program, line: str, **env: str) -> list[str]:
    """What may stand for the last word of a command line: as bash asks for it."""
    words = line.split(" ")
    done = program(
        env={
            "_PROCRASTINATE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **env,
        }
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [each.removeprefix("plain,") for each in done.stdout.split()]


APP = {"PROCRASTINATE_APP": "shop.app"}


@pytest.mark.parametrize(
    "line, expected",
    [
        ("procrastinate he", ["healthchecks"]),
        ("procrastinate -a shop.app qu", ["queues"]),
        ("procrastinate worker --conc", ["--concurrency"]),
        ("procrastinate worker --delete-jobs ", ["never", "successful", "always"]),
        ("procrastinate jobs --queue mail --status a", ["aborted"]),
        ("procrastinate jobs --newest", ["--newest-first"]),
        ("procrastinate queues --by t", ["task"]),
        ("procrastinate shell list_", ["list_jobs", "list_queues", "list_tasks", "list_locks"]),
        ("procrastinate shell cancel --status ", ["todo"]),
        ("procrastinate shell retry --to-", ["--to-queue", "--to-priority", "--to-lock"]),
        ("procrastinate completion ", ["bash", "zsh", "fish"]),
        (
            "procrastinate -a shop.app defer shop.",
            ["shop.add", "shop.nap", "shop.pid", "shop.stdin"],
        ),
        ("procrastinate -a shop.app jobs --task shop.a", ["shop.add"]),
        ("procrastinate -a shop.app shell cancel --queue ", ["default", "letters"]),
        ("procrastinate -a nowhere.app defer ", []),
        ("procrastinate defer ", []),
    ],
)
def test_commands_options_and_names_are_completed(
    bare_program: Program, line: str, expected: list[str]
) -> None:
    assert completed(bare_program, line) == expected


def test_completing_a_command_imports_none(bare_program: Program) -> None:
    script = (
        "import sys\n"
        "from procrastinate.cli.root import root\n"
        "try: root.main([], prog_name='procrastinate')\n"
        "except SystemExit: pass\n"
        "print([m for m in ('rich', 'procrastinate.cli.worker', 'procrastinate.app.app')"
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
    assert completed(bare_program, "procrastinate -a chatty.app defer ") == ["chat"]
    assert completed(bare_program, "procrastinate -a broken.app defer ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_this_program(bare_program: Program, shell: str) -> None:
    done = bare_program("completion", shell)
    assert done.returncode == 0
    assert f"_PROCRASTINATE_COMPLETE={shell}_complete" in done.stdout
    assert done.stdout == bare_program(env={"_PROCRASTINATE_COMPLETE": f"{shell}_source"}).stdout


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
