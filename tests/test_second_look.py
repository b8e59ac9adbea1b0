"""What failed beside others gets a second look, and only that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import second_look

#: A test that fails as often as its name says, and then passes.
TESTS = """
from pathlib import Path

def times(name):
    noted = Path(__file__).with_name(f"{name}.txt")
    count = len(noted.read_text()) if noted.exists() else 0
    noted.write_text("." * (count + 1))
    return count

def test_passes():
    assert times("passes") == 0  # it does not run again

"""
FAILS = """
def test_fails_{name}():
    assert times("{name}") >= {often}
"""


def looked_at(folder: Path, *failing: tuple[str, int]) -> subprocess.CompletedProcess[str]:
    body = TESTS + "".join(FAILS.format(name=name, often=often) for name, often in failing)
    (folder / "test_some.py").write_text(body, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-n", "2", str(folder)]
    return subprocess.run(
        [sys.executable, second_look.__file__, *command],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def in_a_crowd(done: subprocess.CompletedProcess[str]) -> list[str]:
    lines = done.stdout.splitlines()
    return [line.split("::")[-1] for line in lines if line.startswith(second_look.IN_A_CROWD)]


def test_what_passes_needs_no_second_look(tmp_path: Path) -> None:
    done = looked_at(tmp_path)
    assert (done.returncode, in_a_crowd(done)) == (0, [])
    assert "second look" not in done.stdout


def test_what_passes_alone_is_named_and_accepted(tmp_path: Path) -> None:
    done = looked_at(tmp_path, ("a", 1), ("b", 1))
    assert (done.returncode, in_a_crowd(done)) == (0, ["test_fails_a", "test_fails_b"])


def test_what_fails_alone_as_well_has_failed(tmp_path: Path) -> None:
    done = looked_at(tmp_path, ("a", 1), ("b", 2))
    assert (done.returncode, in_a_crowd(done)) == (1, [])


def test_many_failures_get_no_second_look(tmp_path: Path) -> None:
    done = looked_at(tmp_path, *((name, 1) for name in "abcd"))
    assert (done.returncode, in_a_crowd(done)) == (1, [])
    assert "second look" not in done.stdout


@pytest.mark.parametrize("argument", ["--no-such-option", "no_such_file.py"])
def test_other_exit_codes_stay(tmp_path: Path, argument: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, second_look.__file__, sys.executable, "-m", "pytest", argument]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
