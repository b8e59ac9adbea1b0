"""Each connector runs whole on one Python, and a core of it on the others."""

from __future__ import annotations

from connector_core import left_out

CONFORMANCE = "packages/connector-{}/tests/test_conformance.py::"
CORE = "TestKit::test_sessions_leave_nothing[async]"
VARIANT = "TestKit::test_sessions_leave_nothing[sync]"
OTHER = "TestKit::test_jobs_of_every_kind[async]"


def of(connector: str) -> list[str]:
    own = f"packages/connector-{connector}/tests/test_options.py::test_sessions_of_its_own"
    return [*(CONFORMANCE.format(connector) + test for test in (CORE, VARIANT, OTHER)), own]


def test_of_a_connector_that_does_not_run_whole_one_variant_of_the_core_runs() -> None:
    assert left_out(of("psycopg"), ["connector-psycopg2"]) == set(of("psycopg")[1:])


def test_a_connector_that_runs_whole_leaves_out_nothing() -> None:
    assert left_out(of("psycopg"), ["connector-psycopg"]) == set()


def test_tests_of_anything_else_all_run() -> None:
    others = [
        "packages/core/tests/test_x.py::test_jobs",
        "packages/connector-testkit/tests/test_adapters.py::test_x",
    ]
    assert left_out(others, []) == set()


def test_the_kits_small_example_is_a_connector() -> None:
    suite = "packages/connector-testkit/tests/test_tiny.py::"
    tests = [suite + CORE, suite + VARIANT, suite + OTHER]
    assert left_out(tests, []) == set(tests[1:])
    assert left_out(tests, ["connector-testkit"]) == set()


def test_of_the_documentations_example_the_core_runs_on_each_python_that_runs_it() -> None:
    suite = "packages/connector-testkit/tests/test_pg8000.py::"
    tests = [suite + CORE, suite + VARIANT, suite + OTHER]
    assert left_out(tests, ["connector-testkit"]) == set(tests[1:])
