"""What is left out on a cluster is there, says why, and is not all that there is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_server import ON_ONE_SERVER, runs_on_one_server

ROOT = Path(__file__).parents[1]


def defined_in(module: str) -> Iterator[str]:
    """Yield the names of the tests that a module defines."""
    for node in ast.parse((ROOT / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


@pytest.mark.parametrize("named", ON_ONE_SERVER)
def test_a_test_that_is_named_is_there(named: str) -> None:
    module, _, test = named.partition("::")
    assert test.partition("[")[0] in set(defined_in(module))


def test_each_has_a_reason() -> None:
    assert [name for name, reason in ON_ONE_SERVER.items() if len(reason.split()) < 4] == []


def test_no_module_is_left_out_as_a_whole() -> None:
    modules = {each.partition("::")[0] for each in ON_ONE_SERVER}
    left = {
        module: [
            name
            for name in defined_in(module)
            if name.startswith("test_") and not runs_on_one_server(f"{module}::{name}")
        ]
        for module in modules
    }
    assert [module for module, tests in left.items() if not tests] == []


def test_examples_are_left_out_one_by_one() -> None:
    name = "packages/core/tests/app/test_statement.py::test_a_statement_defers_the_same_job"
    assert runs_on_one_server(f"{name}[App 5-psycopg2]")
    assert not runs_on_one_server(f"{name}[None-psycopg2]")
    assert not runs_on_one_server(f"{name}s[App 5-psycopg2]")
