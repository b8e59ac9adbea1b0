"""The map of the code in docs/architecture.md is the code's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import procrastinate

ROOT = Path(__file__).parent.parent
PACKAGE = Path(procrastinate.__file__).parent
TEXT = (ROOT / "docs/architecture.md").read_text()
SCHEMA = (PACKAGE / "storage/schema.sql").read_text()
[TEN_MINUTES] = re.findall(r"^## One job, in ten minutes\n(.*?)(?=^## )", TEXT, re.M | re.S)


def functions_of(path: Path) -> set[str]:
    """Return the names of all functions and methods in a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, kinds)}


def test_the_ten_minutes_lead_along_functions_that_are_there() -> None:
    stops = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", TEN_MINUTES)
    missing = [
        f"{path}: {name}"
        for path, names in stops
        for name in re.findall(r"\w+", names)
        if name not in functions_of(PACKAGE / path)
    ]

    assert missing == []
    assert len(stops) > 15


def test_the_folders_of_the_worker_are_all_on_the_map() -> None:
    folders = {each.parent.name for each in (PACKAGE / "worker").glob("*/__init__.py")}

    assert set(re.findall(r"^\| `worker/(\w+)/` \|", TEN_MINUTES, re.M)) == folders


def test_the_tables_are_all_on_the_page() -> None:
    named = re.findall(r"^\| `(procrastinate_\w+)` \|", TEXT, re.M)

    assert named == re.findall(r"^create .*?table \{schema\}\.(\w+)", SCHEMA, re.M)


def test_the_indexes_on_jobs_are_on_the_page_with_their_columns() -> None:
    shown = re.findall(r"^\| `\.\.\.(_\w+)` \((.*?)\)", TEXT, re.M)
    made = re.findall(
        r"^create (?:unique )?index procrastinate_jobs(_\w+) on .*?\n    \((.*?)\)\n", SCHEMA, re.M
    )

    assert sorted(shown) == sorted([*made, ("_pkey", "id, partition")])
