"""Which tests run on one Python only, the primary one, because they would say the same on each.

Rules

1. What depends on PostgreSQL alone runs once: statements, plans, rights, migrations, partitions,
   the server's own programs. So does what a command prints, and the pages of the documentation.
2. Whatever can depend on the Python runs on each: event loops, threads, signals, processes, forks,
   exceptions, C extensions, typing. The primary Python leaves out nothing.
3. Of every folder of tests some run on each Python (`tests/test_one_python.py`).

What takes more than a few seconds has the mark ``slow`` and runs once too. Connectors have rules of
their own (`connector_core`).
"""

from __future__ import annotations

_SQL = "what PostgreSQL does with statements and tables"
_OUTPUT = "what a command prints"
_PROGRAMS = "PostgreSQL's own programs"

#: How the names of these tests begin, with the reason.
ON_ONE_PYTHON: dict[str, str] = {
    **{
        f"packages/core/tests/storage/test_{name}.py": _SQL
        for name in (
            *("batch_races", "changed_under_a_claim", "distributing", "grants", "importing"),
            *("kept_results", "lock_waits", "migrating", "news"),
            *("one_partition", "partitioning", "plans", "schema_state", "waking"),
        )
    },
    "packages/core/tests/app/test_many_jobs.py": _SQL,
    "packages/core/tests/app/test_many_partitions.py": _SQL,
    "packages/core/tests/app/test_retention.py": _SQL,
    "packages/core/tests/app/test_role_settings.py": _SQL,
    "packages/core/tests/app/test_throughput.py": _SQL,
    "packages/core/tests/waiting/test_pruning.py": _SQL,
    "packages/core/tests/worker/test_bad_rows.py": _SQL,
    "packages/core/tests/worker/test_lines.py": _SQL,
    "packages/core/tests/worker/test_order.py": _SQL,
    "packages/core/tests/worker/test_partitions.py": _SQL,
    **{
        f"packages/core/tests/cli/test_{name}.py": _OUTPUT
        for name in (
            "connectors",
            "defer",
            "fleet",
            "importing",
            "pausing",
            "results",
            "schema",
            "shell",
        )
    },
    "packages/embedded/tests/demo/test_story.py": _OUTPUT,
    "tests/test_snippets.py::test_examples[docs/": _OUTPUT,
    "tests/test_snippets.py::test_examples[examples/": _OUTPUT,
    **{
        f"packages/embedded/tests/test_{name}.py": _PROGRAMS
        for name in ("errors", "given", "pytest_plugin", "sharing")
    },
    "packages/connector-testkit/tests/test_broken_connectors.py": "the test kit tests itself",
    "packages/connector-testkit/tests/test_order.py": "the test kit tests itself",
    **{
        f"packages/dashboard/tests/test_{name}.py": "what pages show"
        for name in ("access", "actions", "attention", "pages", "showing")
    },
    "packages/prometheus/tests/test_grafana.py": "what queries name",
    "packages/prometheus/tests/test_database.py": _SQL,
    "packages/core/tests/app/test_counting.py": _SQL,
    "packages/core/tests/app/test_searching.py": _SQL,
    "tests/test_transactions.py": "what drivers and PostgreSQL do; the kits run on each Python",
    "tests/test_sentry.py": "an example on a page, against another project's SDK",
    "tests/test_publishing.py": "what files say",
    "tests/test_second_look.py": "the test session's own program",
}
_BEGINNINGS = tuple(ON_ONE_PYTHON)


def runs_on_one_python(test: str) -> bool:
    """Whether a test (pytest's node id) runs on the primary Python only."""
    return test.startswith(_BEGINNINGS)
