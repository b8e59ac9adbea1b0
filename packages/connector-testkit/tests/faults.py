"""By which behaviours the kit finds each of `broken_connectors` and `broken_drivers`.

For each: the modules of behaviours that are run on it, and which of those fail. All others of
these modules pass. The modules are those that the fault is about, and others near it; behaviours
of the queue are among them where the queue's promise is what the fault breaks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    modules: frozenset[str]
    found_by: frozenset[str]


def fault(modules: str, found_by: str) -> Fault:
    return Fault(frozenset(modules.split()), frozenset(f"test_{name}" for name in found_by.split()))


ALL_ERRORS = """
    errors_unique_violation_names_the_constraint errors_constraint_names_may_be_strange
    errors_do_not_depend_on_the_language errors_of_a_server_that_speaks_another_language
    errors_by_sqlstate errors_missing_privilege errors_statement_timeout_is_query_canceled
    errors_cancelled_by_somebody_is_query_canceled errors_have_the_driver_s_exception_as_cause
"""
CONSTRAINTS = """
    errors_unique_violation_names_the_constraint errors_constraint_names_may_be_strange
    errors_do_not_depend_on_the_language errors_of_a_server_that_speaks_another_language
"""
ALL_SEVERING = """
    severing_ends_the_statement_under_way severing_ends_a_commit_under_way
    severing_twice_or_too_late_does_nothing
"""
ALL_LISTENING = """
    listening_hears_of_deferred_jobs listening_hears_of_requests_to_abort
    listening_hears_of_promoted_jobs listening_is_in_force_once_the_block_is_entered
    listening_takes_any_channel_name listening_brings_any_payload listening_to_several_channels
    listening_waits_for_the_commit listening_may_begin_again listening_to_many_at_once
    listening_tells_of_a_lost_connection listening_ends_when_its_task_is_cancelled
    listening_tells_of_a_connection_lost_before_it_was_asked
"""

#: Each group is run in one process: most of the time of a single one goes into its start.
GROUPS: dict[str, dict[str, Fault]] = {
    "limits": {
        "IgnoresSettings": fault(
            "limits", "settings_are_those_of_the_statement settings_limit_the_time_of_a_statement"
        ),
        "SetsForTheSession": fault("limits", "settings_end_with_their_statement"),
        "BindSetsSettings": fault("limits bind", "bind_leaves_the_caller_s_settings"),
        "CannotBeSevered": fault("limits", ALL_SEVERING),
        "SeversByCancelling": fault("limits", ALL_SEVERING),
    },
    "plans": {
        "KeepsTheFirstValues": fault(
            "plans",
            "plans_that_are_kept_fit_all_values plans_that_are_kept_go_on_after_an_error"
            " plans_of_calls_run_with_their_settings_each_time",
        ),
        "NeverForgetsPlans": fault("plans", "plans_that_are_kept_follow_a_change_of_the_table"),
        "BlocksTheLoop": fault("threads", "calls_for_an_event_loop_do_not_hold_it_up"),
        "SwallowsErrorsOfCalls": fault("threads", "calls_for_an_event_loop_do_not_hold_it_up"),
    },
    "siblings": {
        "WithoutSyncHalf": fault("opening limits plans threads forks", ""),
        "IsItsOwnSibling": fault("opening", "counterparts_are_new_ones"),
        "SiblingElsewhere": fault(
            "opening",
            "reopening_works opening_twice_is_harmless read_only_sessions_defer_nothing",
        ),
        "SiblingCannotBeSevered": fault("limits", ALL_SEVERING),
    },
    "rows": {
        "DictRows": fault(
            "results bind",
            """
            results_rows_are_tuples results_none_where_there_are_none
            results_numbers_are_int_and_float
            results_texts_are_str results_moments_are_aware results_arrays_are_lists
            results_many_rows_come_in_order results_of_one_query_stay_when_the_next_runs
            statements_percent_means_itself_without_parameters
            statements_percent_is_doubled_beside_parameters
            statements_hold_what_other_drivers_take_for_placeholders
            statements_may_repeat_a_parameter statements_without_parameters_may_be_several
            statements_run_exactly_once statements_with_numbers_for_other_drivers
            bind_commit_and_rollback_are_the_caller_s bind_defers_with_the_caller_s_transaction
            bind_needs_and_changes_no_row_factory bind_takes_the_same_values
            bind_survives_already_enqueued bind_survives_a_large_batch
            bind_keeps_nothing_of_a_large_batch_that_is_refused
            bind_sends_no_other_text_in_another_encoding
            """,
        ),
        "NaiveMoments": fault(
            "values results",
            """
            results_moments_are_aware values_do_not_depend_on_settings values_moments_round_trip
            values_round_trip
            """,
        ),
        "DecimalNumbers": fault(
            "values results",
            """
            results_numbers_are_int_and_float values_do_not_depend_on_settings values_round_trip
            values_limits_of_numbers_round_trip
            """,
        ),
        "PercentAlways": fault(
            "results bind schema",
            """
            statements_percent_means_itself_without_parameters
            statements_with_numbers_for_other_drivers
            statements_without_parameters_may_be_several bind_takes_the_same_values
            schema_may_have_any_name schema_is_applied_once schema_is_applied_by_many_at_once
            """,
        ),
        "TakesTheRolesEncoding": fault("values results", "values_texts_travel_in_utf8"),
        "CutsAtNul": fault(
            "values",
            "values_nul_is_invalid_data",
        ),
        "RepeatsTexts": fault("values", "values_surrogates_are_invalid_data"),
        "ExecutesTwice": fault(
            "results opening",
            "statements_run_exactly_once results_none_where_there_are_none",
        ),
    },
    "errors": {
        "SwallowsErrors": fault(
            "errors opening results", f"{ALL_ERRORS} read_only_sessions_defer_nothing"
        ),
        "LosesConstraint": fault("errors", CONSTRAINTS),
        "DriverErrors": fault(
            "errors opening results",
            f"""
            {ALL_ERRORS} errors_at_commit_are_raised read_only_sessions_defer_nothing
            read_only_sessions_need_a_transaction
            """,
        ),
        "NoCause": fault("errors", ALL_ERRORS),
        "ShowsPassword": fault("losses errors", "connecting_in_vain_is_connection_failed"),
        "NeverConnectionFailed": fault("losses errors", "connecting_in_vain_is_connection_failed"),
    },
    "sessions": {
        "ForgetsCommit": fault(
            "sessions schema threads",
            """
            transactions_that_failed_do_not_end_as_if_committed
            transactions_commit_when_the_block_ends savepoints_work_in_a_transaction
            read_only_transactions_refuse_what_writes
            read_only_transactions_leave_connections_writable
            sessions_at_the_same_time_are_isolated
            schema_is_applied_by_many_at_once schema_is_applied_once schema_may_have_any_name
            threads_share_a_connector
            """,
        ),
        "CommitsAlways": fault(
            "sessions errors losses",
            """
            transactions_roll_back_when_the_block_raises
            transactions_roll_back_also_when_their_first_statement_failed
            """,
        ),
        "IgnoresTransaction": fault(
            "sessions",
            """
            transactions_commit_when_the_block_ends transactions_roll_back_when_the_block_raises
            transactions_roll_back_also_when_their_first_statement_failed
            transactions_that_failed_do_not_end_as_if_committed
            transactions_are_one transactions_refuse_statements_after_an_error
            read_only_transactions_refuse_what_writes
            savepoints_work_in_a_transaction sessions_at_the_same_time_are_isolated
            sessions_leave_no_transaction_locks
            """,
        ),
        "AlwaysTransaction": fault(
            "sessions errors losses",
            """
            autocommit_commits_each_statement autocommit_goes_on_after_an_error
            autocommit_is_one_connection_without_a_transaction
            autocommit_keeps_what_was_done_before_an_error
            autocommit_runs_what_refuses_a_transaction
            sessions_leave_no_transaction_locks
            """,
        ),
        "IgnoresReadOnly": fault("sessions", "read_only_transactions_refuse_what_writes"),
        "StaysReadOnly": fault("sessions", "read_only_transactions_leave_connections_writable"),
        "Reconnects": fault(
            "losses errors",
            "losing_the_connection_between_statements losing_the_connection_in_a_statement",
        ),
        "ForgetsLosses": fault("losses sessions", "losing_the_connection_at_once_is_no_commit"),
        "GivesOutDeadConnections": fault(
            "losses sessions forks", "dead_connections_are_replaced_before_use"
        ),
        "LeaksSettings": fault(
            "limits losses threads",
            "settings_end_with_their_statement settings_are_gone_with_the_session",
        ),
        "LeaksPreparedStatements": fault(
            "sessions threads", "sessions_leave_no_prepared_statements"
        ),
        "LeaksTransactions": fault(
            "sessions",
            """
            sessions_leave_no_transaction_open transactions_refuse_statements_after_an_error
            transactions_that_failed_do_not_end_as_if_committed
            read_only_transactions_refuse_what_writes
            """,
        ),
        "SharesOneConnection": fault(
            "sessions threads forks",
            """
            sessions_at_the_same_time_are_isolated threads_share_a_connector
            forks_give_the_child_its_own_connections
            """,
        ),
        "IgnoresForks": fault(
            "forks sessions threads losses", "forks_give_the_child_its_own_connections"
        ),
    },
    "opening": {
        "OpensByItself": fault(
            "opening sessions",
            """
            sessions_after_close_are_an_error sessions_before_open_are_an_error
            closing_once_is_enough objects_that_are_no_pools_are_refused
            """,
        ),
        "ForgetsOptions": fault(
            "opening schema",
            """
            options_of_the_contract_are_kept options_that_cannot_be_are_refused_at_once
            schema_may_have_any_name
            """,
        ),
        "TakesAnyOptions": fault("opening schema", "options_that_cannot_be_are_refused_at_once"),
        "OtherContract": fault("opening results", "type_names_the_version_of_the_contract"),
    },
    "bind": {
        "BindCommits": fault(
            "bind",
            """
            bind_begins_nothing_by_itself bind_commit_and_rollback_are_the_caller_s
            bind_survives_a_large_batch bind_keeps_nothing_of_a_large_batch_that_is_refused
            bind_defers_with_the_caller_s_transaction
            """,
        ),
        "BindUsesRowFactory": fault(
            "bind",
            """
            bind_commit_and_rollback_are_the_caller_s bind_defers_with_the_caller_s_transaction
            bind_needs_and_changes_no_row_factory bind_survives_already_enqueued
            bind_survives_a_large_batch bind_keeps_nothing_of_a_large_batch_that_is_refused
            bind_takes_the_same_values bind_sends_no_other_text_in_another_encoding
            """,
        ),
        "BindChangesRowFactory": fault(
            "bind",
            """
            bind_begins_nothing_by_itself bind_does_not_close_the_connection
            bind_needs_and_changes_no_row_factory
            """,
        ),
        "BindCloses": fault("bind", "bind_does_not_close_the_connection"),
        "BindTakesAnything": fault(
            "bind",
            "bind_refuses_what_is_no_connection bind_sends_no_other_text_in_another_encoding",
        ),
    },
    "pools": {
        "ClosesForeignPool": fault("pools", "foreign_pools_are_never_closed"),
        "IgnoresForeignPool": fault(
            "pools", "foreign_pools_are_used foreign_pools_in_another_encoding_are_refused"
        ),
        "TakesAnyEncoding": fault("pools", "foreign_pools_in_another_encoding_are_refused"),
        "DoesNotWait": fault(
            "pools threads",
            """
            pools_that_are_exhausted_time_out pools_that_are_exhausted_wait
            threads_share_a_connector
            """,
        ),
        "IgnoresTimeout": fault("pools", "pools_that_are_exhausted_wait_as_long_as_asked"),
        "LosesConnections": fault(
            "pools", "foreign_pools_get_connections_back_idle pools_lose_no_connection_to_errors"
        ),
    },
    "loops": {
        "TakesAnyLoop": fault(
            "loops opening",
            """
            loops_beside_the_one_that_runs_are_refused
            loops_of_a_forked_child_have_their_own_connections
            """,
        ),
        "StaysWhereItWasRefused": fault(
            "loops opening", "loops_in_which_opening_was_refused_do_not_matter"
        ),
        "OpensWithAnything": fault(
            "loops opening",
            """
            loops_in_which_opening_was_refused_do_not_matter objects_that_are_no_pools_are_refused
            """,
        ),
    },
    "asynchronous": {
        "NeverTellsOfLoss": fault(
            "listening",
            """
            listening_tells_of_a_lost_connection
            listening_tells_of_a_connection_lost_before_it_was_asked
            """,
        ),
        "ListensLate": fault("listening", ALL_LISTENING),
        "UnquotedChannels": fault("listening", "listening_takes_any_channel_name"),
        "LeavesListening": fault("listening", "listening_leaves_nothing_behind"),
        "CancelsStatements": fault(
            "cancellation",
            "cancellation_waits_for_the_statement cancellation_rolls_a_transaction_back",
        ),
        "OneCounterpart": fault("opening", "counterparts_are_new_ones"),
        "CounterpartWithoutOptions": fault("opening", "options_of_the_contract_are_kept"),
    },
}

FAULTS = {name: fault for group in GROUPS.values() for name, fault in group.items()}
