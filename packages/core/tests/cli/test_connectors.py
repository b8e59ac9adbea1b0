"""``procrastinate connectors``: also with packages that are broken, missing or in conflict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

from procrastinate.connector import CONTRACT_VERSION
from procrastinate.connectors import PUBLISHED


def install(folder: Path, package: str, entry_point: str, code: str) -> None:
    """Put a package with a connector into a folder, as pip would."""
    module = package.replace("-", "_")
    folder.joinpath(f"{module}.py").write_text(code)
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    info.joinpath("entry_points.txt").write_text(
        f"[procrastinate.connectors]\n{entry_point} = {module}:TheirConnector\n"
    )


def listed(program: Program) -> dict[tuple[str, str], dict[str, Any]]:
    done = program("connectors", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {(line["name"], line["package"]): line for line in json.loads(done.stdout)}


def test_installed_connectors_are_listed_with_what_they_can_do(bare_program: Program) -> None:
    lines = listed(bare_program)
    assert lines["aiopg", "procrastinate-aiopg"] == {
        "name": "aiopg",
        "class_name": "AiopgConnector",
        "package": "procrastinate-aiopg",
        "version": "4.0.0",
        "contract": CONTRACT_VERSION,
        "capabilities": ["defer", "async", "worker", "listen"],
        "binds": ["aiopg connection"],
        "problem": None,
        "install": None,
    }
    assert lines["psycopg2", "procrastinate-psycopg2"]["capabilities"] == ["defer"]


def test_the_table_fits_80_columns_and_needs_no_app(bare_program: Program) -> None:
    done = bare_program("connectors")
    assert (done.returncode, done.stderr) == (0, "")
    assert "procrastinate-psycopg2 4.0.0" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "code, problem",
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no licence')", "no licence"),
        ("TheirConnector = 7", "is no Connector class: 7"),
        (
            (
                "from procrastinate.testing import InMemoryConnector\n"
                "class TheirConnector(InMemoryConnector): contract = 99"
            ),
            "was built for version 99 of the connector contract",
        ),
    ],
)
def test_one_broken_connector_is_shown_with_its_problem_beside_the_others(
    bare_program: Program, code: str, problem: str
) -> None:
    install(bare_program.folder, "their-connector", "their", code)
    lines = listed(bare_program)
    assert problem in lines["their", "their-connector"]["problem"]
    assert lines["psycopg2", "procrastinate-psycopg2"]["problem"] is None
    assert "cannot be used" in bare_program("connectors").stdout


def test_both_packages_of_a_conflict_are_shown(bare_program: Program) -> None:
    install(bare_program.folder, "their-connector", "psycopg2", "TheirConnector = None")
    lines = listed(bare_program)
    for package in ("their-connector", "procrastinate-psycopg2"):
        assert "two packages claim the connector name" in lines["psycopg2", package]["problem"]


def test_a_published_connector_that_is_missing_is_shown_with_its_pip_command(
    bare_program: Program,
) -> None:
    bare_program.folder.joinpath("sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "found = m.entry_points\n"
        "m.entry_points = lambda **k: [e for e in found(**k) if e.name != 'aiopg']\n"
    )
    bare_program.env["PYTHONPATH"] = str(bare_program.folder)
    line = listed(bare_program)["aiopg", "procrastinate-aiopg"]
    assert line["install"] == "pip install procrastinate-aiopg"
    assert line["version"] is None


def test_no_pip_command_is_broken_where_all_connectors_are_shown(bare_program: Program) -> None:
    bare_program.folder.joinpath("sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "found = m.entry_points\n"
        f"m.entry_points = lambda **k: [e for e in found(**k) if e.name not in {list(PUBLISHED)}]\n"
    )
    bare_program.env["PYTHONPATH"] = str(bare_program.folder)
    shown = bare_program("connectors").stdout
    for _, package in PUBLISHED.values():
        assert f"pip install {package} " in shown
