"""The tests of a suite may run in any order, also with others between them."""

from __future__ import annotations

from pathlib import Path

from inner_runs import HERE, run_pytest

#: Runs a suite's first test, one of another module, and its last test, as pytest-xdist may.
PLUGIN = """
def pytest_collection_modifyitems(items):
    others = [item for item in items if item.path.name == "test_between.py"]
    suite = [item for item in items if item not in others and "results_none" in item.name]
    items[:] = [suite[0], *others, suite[-1]]
"""


def test_a_suite_goes_on_after_other_tests(tmp_path: Path, procrastinate_dsn: str) -> None:
    (tmp_path / "any_order.py").write_text(PLUGIN)
    between = tmp_path / "test_between.py"
    between.write_text("def test_between(): pass\n")
    output = run_pytest(
        *("-p", "any_order", "--rootdir", str(tmp_path), str(HERE / "test_tiny.py"), str(between)),
        dsn=procrastinate_dsn,
        paths=[tmp_path],
    )
    assert "3 passed" in output, output
