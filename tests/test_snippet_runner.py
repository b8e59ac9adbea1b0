"""The runner of the documentation's examples runs what is written, and fails where it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import snippets
from snippets import Block, SnippetError, parse

RUNNER = snippets.__file__


def run(folder: Path, markdown: str) -> subprocess.CompletedProcess[str]:
    page = folder / "page.md"
    page.write_text(markdown, "utf-8")
    return subprocess.run(
        [sys.executable, RUNNER, str(page)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


# --- Reading --------------------------------------------------------------------------------------


def test_a_block_has_its_language_its_text_and_the_number_of_its_first_line():
    assert parse("Text\n\n```python\na = 1\n\nb = 2\n```\n") == [
        Block("python", "a = 1\n\nb = 2\n", line=4)
    ]


def test_a_block_inside_a_list_loses_its_indentation():
    assert parse("1. one\n\n   ```python\n   if a:\n       b\n   ```\n") == [
        Block("python", "if a:\n    b\n", line=4)
    ]


def test_a_longer_fence_holds_a_shorter_one():
    assert parse("````markdown\n```python\n```\n````\n") == [
        Block("markdown", "```python\n```\n", line=2)
    ]


def test_directives_apply_to_the_block_below_them():
    page = (
        "<!-- snippet: name=app.py -->\n\n```python\nx = 1\n```\n"
        "<!-- snippet: until=Starting worker -->\n```console\n$ work\n```\n"
        "<!-- snippet: skip installs -->\n```console\n$ pip install x && .venv/bin/nox\n```\n"
    )
    assert parse(page) == [
        Block("python", "x = 1\n", line=4, name="app.py"),
        Block("console", "$ work\n", line=8, until="Starting worker"),
        Block("console", "$ pip install x && .venv/bin/nox\n", line=12, skip="installs"),
    ]


@pytest.mark.parametrize(
    "page, message",
    [
        ("```python\nx = 1\n", "line 1: the block is never closed"),
        ("<!-- snippet: name=a.py -->\nText\n", "line 1: no block follows 'name=a.py'"),
        ("<!-- snippet: name=a.py -->\n", "line 1: no block follows 'name=a.py'"),
        (
            "<!-- snippet: nmae=a.py -->\n```python\n```\n",
            "line 1: 'nmae=a.py' is not known for a python block",
        ),
        (
            "<!-- snippet: until=x -->\n```python\n```\n",
            "line 1: 'until=x' is not known for a python block",
        ),
        (
            "<!-- snippet: skip fails -->\n```console\n$ pip install x; work\n```\n",
            "line 3: only commands that install can be skipped, not 'work'",
        ),
        (
            "<!-- snippet: skip fails -->\n```python\nx\n```\n",
            "line 3: a python block cannot be skipped",
        ),
    ],
)
def test_a_page_with_a_mistake_is_refused(page: str, message: str):
    with pytest.raises(SnippetError) as caught:
        parse(page)
    assert str(caught.value) == message


def test_the_script_of_a_console_block_is_its_commands_and_not_their_output():
    block = Block("console", "$ one \\\n    two\noutput\n$ three\n", line=1)
    assert snippets.script(block) == "one \\\n    two\nthree\n"


def test_a_console_block_without_a_command_is_refused():
    with pytest.raises(SnippetError, match="needs a line that begins"):
        snippets.script(Block("console", "one\n", line=1))


# --- Running --------------------------------------------------------------------------------------


def test_python_blocks_share_their_names_and_are_main(tmp_path: Path):
    done = run(tmp_path, "```python\na = 20\n```\n```python\nprint(a + 1, __name__)\n```\n")
    assert (done.returncode, done.stdout) == (0, "21 __main__\n")


def test_a_named_block_is_a_file_for_the_blocks_below(tmp_path: Path):
    done = run(
        tmp_path,
        "<!-- snippet: name=shop/app.py -->\n```python\nprice = 3\n```\n"
        "```python\nfrom shop.app import price\nprint(price)\n```\n",
    )
    assert (done.returncode, done.stdout) == (0, "3\n")


def test_other_languages_are_not_run(tmp_path: Path):
    done = run(tmp_path, "```sql\nDROP TABLE x\n```\n```\nplain\n```\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_commands_of_a_block_share_one_bash(tmp_path: Path):
    done = run(tmp_path, "```console\n$ export A=5\n$ echo $A\n6\n```\n")
    assert (done.returncode, done.stdout) == (0, "5\n")


def test_an_exception_fails_the_page_and_names_its_line(tmp_path: Path):
    done = run(tmp_path, "# Title\n\n```python\nx = 1\nx / 0\n```\n```python\nprint('on')\n```\n")
    assert done.returncode == 1
    assert 'page.md", line 5' in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["false\n$ true", "false | true", "echo $UNSET_VARIABLE"])
def test_a_failing_command_fails_the_page(tmp_path: Path, command: str):
    done = run(tmp_path, f"```console\n$ {command}\n```\n")
    assert done.returncode == 1
    assert "page.md: line 2: exit code 1 from" in done.stderr


WORKER = """\
import os, signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(int(sys.argv[1])))
os.write(1, b"ready\\n")
time.sleep(60)
"""


@pytest.mark.parametrize("status", [0, 3])
def test_a_block_with_until_is_interrupted_and_must_then_exit_with_0(tmp_path: Path, status: int):
    (tmp_path / "worker.py").write_text(WORKER)
    command = f"{sys.executable} worker.py {status}"
    done = run(tmp_path, f"<!-- snippet: until=ready -->\n```console\n$ {command}\n```\n")
    assert (done.returncode, done.stdout) == (int(status != 0), "ready\n")


def test_a_block_with_until_that_ends_without_the_text_fails(tmp_path: Path):
    done = run(tmp_path, "<!-- snippet: until=ready -->\n```console\n$ echo other\n```\n")
    assert done.returncode == 1
    assert "ended without 'ready' in its output" in done.stderr
