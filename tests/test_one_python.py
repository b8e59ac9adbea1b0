"""Tests that run on one Python only say nothing about Python, and leave some of every kind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from one_python import ON_ONE_PYTHON, runs_on_one_python

ROOT = Path(__file__).parents[1]
#: A test that has to do with one of these may fail on one Python and pass on another.
OF_PYTHON = {"ctypes", "gc", "inspect", "multiprocessing", "sys", "traceback", "weakref"}
#: Folders whose tests all depend on the Python.
OF_EVERY_PYTHON = (
    "core/tests/model",
    "core/tests/observing",
    "core/tests/faults",
    "core/tests/machine",
)


def named() -> list[str]:
    return sorted({each.partition("::")[0] for each in ON_ONE_PYTHON})


@pytest.mark.parametrize("name", named())
def test_a_module_that_is_named_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", named())
def test_what_runs_on_one_python_does_not_ask_which_one_it_is(name: str) -> None:
    assert "version_info" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [each for each in named() if "/storage/" in each])
def test_what_runs_on_one_python_asks_nothing_of_python_itself(name: str) -> None:
    assert imported(ROOT / name) & OF_PYTHON == set()


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, by their first names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def folders() -> list[Path]:
    return sorted({path.parent for path in (ROOT / "packages").glob("*/tests/**/test_*.py")})


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_of_every_folder_some_run_on_each_python(folder: Path) -> None:
    assert any(not is_on_one(path) for path in folder.glob("test_*.py"))


def is_on_one(path: Path) -> bool:
    return runs_on_one_python(f"{path.relative_to(ROOT)}::test_x")


def test_what_is_about_python_runs_on_each() -> None:
    left_out = [each for each in ON_ONE_PYTHON if any(folder in each for folder in OF_EVERY_PYTHON)]
    assert left_out == []


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("packages/core/tests/storage/test_grants.py::test_x[1]", True),
        ("packages/core/tests/storage/test_errors.py::test_x", False),
        ("packages/core/tests/worker/test_nasty.py::test_x", False),
        ("tests/test_snippets.py::test_examples[docs/howto/fastapi.md]", True),
        ("tests/test_snippets.py::test_examples[README.md]", False),
    ],
)
def test_a_test_is_known_by_the_beginning_of_its_name(test: str, expected: bool) -> None:
    assert runs_on_one_python(test) is expected
