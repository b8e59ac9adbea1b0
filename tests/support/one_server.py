"""Which of core's tests make no sense on a cluster, where `nox -s citus` leaves them out.

There the databases of tests are schemas of one database, whose jobs are distributed over nodes. All
other tests that have a database pass on it. One that Citus refuses SQL of its own is skipped there
by itself (`packages/core/tests/conftest.py`).
"""

from __future__ import annotations

_SHARED = "the others' tests use the same database, and it would end their sessions"
_HEARD = "it counts what is sent or heard, and would hear of the jobs of the others' tests, too"
_SQLSTATE = "a coordinator has lost the SQLSTATE of what a node refused"
_PLACES = "each node has the same tables, so the tables of a connection are not compared"

#: Tests, with the reason. With a bracket: those of their examples whose names hold what follows it.
ON_ONE_SERVER: dict[str, str] = {
    "packages/core/tests/app/test_binders.py::"
    "test_other_tables_than_the_app_has_seen_are_refused": _PLACES,
    "packages/core/tests/app/test_binders.py::test_tables_made_anew_are_seen_anew": _PLACES,
    "packages/core/tests/app/test_binders.py::"
    "test_another_database_without_tables_is_other_tables": _PLACES,
    "packages/core/tests/app/test_binders.py::"
    "test_what_the_app_saw_before_it_was_closed_is_compared_when_it_is_open_again": _PLACES,
    **{
        f"packages/core/tests/app/test_statement.py::{name}[App 5": (
            "Citus sends GRANT with the name of the schema not quoted"
        )
        for name in (
            "test_a_statement_defers_the_same_job",
            "test_a_statement_returns_null_while_a_twin_waits",
        )
    },
    "packages/core/tests/faults/test_guests.py::"
    "test_only_the_pool_opens_as_many_connections_as_it_is_told": (
        "it counts the connections of the whole database"
    ),
    "packages/core/tests/faults/test_liveness.py::"
    "test_a_log_handler_that_raises_ends_no_sign_of_life": _SHARED,
    "packages/core/tests/faults/test_liveness.py::"
    "test_the_first_worker_back_after_an_outage_takes_no_other_for_dead": _SHARED,
    "packages/core/tests/storage/test_grants.py::test_the_page_counts_what_there_is": (
        "it counts the tables of the whole database, and the shards of those on the coordinator"
    ),
    "packages/core/tests/storage/test_schema.py::test_a_role_without_rights_is_told_so": (
        "its role has no right to use the schema of the tables either"
    ),
    "packages/core/tests/storage/test_schema.py::"
    "test_other_languages_defer_jobs_that_are_alike_by_a_function": _SQLSTATE,
    "packages/core/tests/storage/test_schema.py::"
    "test_the_one_check_says_which_of_six_rules_is_violated": (
        "its search_path leads to public, where the tables are not"
    ),
    "packages/core/tests/waiting/test_room.py::test_closing_the_app_ends_its_waits": _SHARED,
    "packages/core/tests/waiting/test_room.py::"
    "test_the_connections_are_given_back_when_nobody_waits": _SHARED,
    "packages/core/tests/waiting/test_room.py::test_killed_connections_are_made_anew": _SHARED,
    "packages/core/tests/worker/test_bad_rows.py::"
    "test_a_row_from_before_the_checks_is_recovered_with_others": (
        "it sends the texts for one partition"
    ),
    "packages/core/tests/worker/test_bad_rows.py::test_an_error_does_not_repeat_the_arguments": (
        "its own constraint has the name of a shard there"
    ),
    **{
        "packages/core/tests/worker/test_bad_rows.py::"
        f"test_what_is_few_bytes_and_a_long_text_is_refused[args {of}": _SQLSTATE
        for of in ("of a batch", "alike")
    },
    "packages/core/tests/worker/test_crashing.py::"
    "test_results_wait_while_the_database_is_away": _SHARED,
    "packages/core/tests/worker/test_echoes.py::"
    "test_a_worker_takes_what_it_hears_of_its_own_releases_for_echoes": _HEARD,
    **{
        f"packages/core/tests/worker/test_partitions.py::{name}": _HEARD
        for name in (
            "test_an_idle_worker_asks_for_all_partitions_at_once",
            "test_a_job_that_is_announced_takes_one_claim_in_its_partition",
        )
    },
    "packages/core/tests/worker/test_ticker.py::"
    "test_ticks_are_made_up_for_when_the_database_comes_back": _SHARED,
}


def runs_on_one_server(test: str) -> bool:
    """Return whether a test (pytest's node id) is left out on a cluster."""
    name, _, example = test.partition("[")
    parts = (each.partition("[") for each in ON_ONE_SERVER)
    return any(name == named and part in example for named, _, part in parts)
