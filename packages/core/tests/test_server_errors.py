"""What an error of the server means, and what a connector adds to it."""

from __future__ import annotations

import pytest

from procrastinate.errors import (
    ConnectionLost,
    ConnectorException,
    InvalidData,
    PartitionAway,
    UniqueViolation,
    database_error,
    why_read_only,
)


@pytest.mark.parametrize(
    ("in_hot_standby", "by_default", "by_client", "reason"),
    [
        ("on", "off", None, "the server is a standby"),
        ("on", "on", True, "the server is a standby"),
        ("off", "on", True, "option of its driver, pool or engine"),
        (None, None, True, "option of its driver, pool or engine"),
        ("off", "on", None, "default_transaction_read_only is on"),
        ("off", "on", False, "default_transaction_read_only is on"),
        (None, "on", None, "default_transaction_read_only is on"),
        ("off", "off", None, "begun as a read-only one"),
        # A pooler between the two may pass nothing on.
        (None, None, None, "the server is a standby, or the session is read-only"),
        (None, "off", False, "the server is a standby, or the session is read-only"),
    ],
)
def test_a_refused_write_says_what_made_it_read_only(
    in_hot_standby: str | None, by_default: str | None, by_client: bool | None, reason: str
) -> None:
    why = why_read_only(in_hot_standby=in_hot_standby, by_default=by_default, by_client=by_client)
    error = database_error("cannot execute INSERT", sqlstate="25006", reason=why)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith("cannot execute INSERT (")
    assert reason in str(error)
    assert ("standby" in str(error)) == (in_hot_standby == "on" or not why)


@pytest.mark.parametrize(
    ("reported", "named", "expected"),
    [
        (
            None,
            "procrastinate_jobs_queueing_lock_key_102023",
            "procrastinate_jobs_queueing_lock_key",
        ),
        (None, "procrastinate_locks_pkey_1020231", "procrastinate_locks_pkey"),
        (None, "procrastinate_jobs_args_check", "procrastinate_jobs_args_check"),
        (None, "procrastinate_jobs_102023", None),  # a table
        (None, "orders_key_102023", None),  # of the user's
        ("procrastinate_jobs_pkey", "orders_key", "procrastinate_jobs_pkey"),
        ("procrastinate_jobs_pkey_102023", "orders_key", "procrastinate_jobs_pkey"),
        ("orders_key_102023", "procrastinate_jobs_pkey", "orders_key_102023"),
        ("procrastinate_mine_key_7", "", "procrastinate_mine_key_7"),  # no number of a shard
    ],
)
def test_a_constraint_that_another_node_names_has_its_name_of_the_schema(
    reported: str | None, named: str, expected: str | None
) -> None:
    """Its node's report has lost the field of the constraint on its way."""
    message = f"doppelter Schlüsselwert verletzt Unique-Constraint »{named}«"
    error = database_error(message, sqlstate="23505", constraint=reported)
    assert (type(error), error.constraint) == (UniqueViolation, expected)


@pytest.mark.parametrize("sqlstate", ["XX000", "08006"])
@pytest.mark.parametrize(
    ("named", "kind", "means", "constraint"),
    [
        (
            "procrastinate_jobs_queueing_lock_key_102013",
            UniqueViolation,
            "23505",
            "queueing_lock_key",
        ),
        ("procrastinate_jobs_pkey_102013", UniqueViolation, "23505", "pkey"),
        ("procrastinate_jobs_args_check", InvalidData, "23514", "args_check"),
    ],
)
def test_a_constraint_has_its_meaning_although_a_coordinator_lost_the_sqlstate(
    sqlstate: str, named: str, kind: type[ConnectorException], means: str, constraint: str
) -> None:
    """It repeats the message of a node that refused a row it copied, and nothing else."""
    error = database_error(f"verletzt »{named}«", sqlstate=sqlstate, severity="ERROR")
    assert (type(error), error.sqlstate) == (kind, means)
    assert error.constraint == f"procrastinate_jobs_{constraint}"


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ('relation "procrastinate_jobs_102013" is broken', "XX000"),
        ('duplicate key value violates unique constraint "orders_key_102013"', "XX000"),
        ("failed to complete COPY on n1:5432", "XX000"),
        ("could not read block 3: failure on connection marked as essential", "58030"),
        ('index "procrastinate_jobs_pkey" is not there', "55000"),
    ],
)
def test_what_else_a_coordinator_says_means_nothing_more(message: str, sqlstate: str) -> None:
    error = database_error(message, sqlstate=sqlstate, severity="ERROR")
    assert (type(error), error.sqlstate, error.constraint) == (ConnectorException, sqlstate, None)


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ("failure on connection marked as essential: n1:5432", "XX000"),
        ("failed to complete COPY on n1:5432: server closed the connection", "58030"),
    ],
)
def test_a_node_that_stops_during_a_commit_or_a_copy_is_away(message: str, sqlstate: str) -> None:
    error = database_error(message, sqlstate=sqlstate, severity="ERROR")
    assert (type(error), error.sqlstate) == (PartitionAway, sqlstate)


@pytest.mark.parametrize(
    ("sqlstate", "severity", "kind"),
    [
        ("08006", "ERROR", PartitionAway),
        ("08001", "ERROR", PartitionAway),
        ("57P01", "ERROR", PartitionAway),
        ("57P01", "FATAL", ConnectionLost),
        ("08006", "FATAL", ConnectionLost),
        ("08006", None, ConnectionLost),  # a driver that does not tell: better safe
        ("08P01", "FATAL", ConnectionLost),  # a pooler
        ("08P01", "ERROR", ConnectionLost),
        ("25006", "ERROR", ConnectionLost),
        ("25P03", "FATAL", ConnectionLost),  # idle in a transaction for too long
        ("25P04", "FATAL", ConnectionLost),  # a transaction that took too long
        ("XX000", "ERROR", ConnectorException),
    ],
)
def test_what_is_wrong_with_a_node_is_not_wrong_with_our_connection(
    sqlstate: str, severity: str | None, kind: type[ConnectorException]
) -> None:
    error = database_error("it broke", sqlstate=sqlstate, severity=severity)
    assert (type(error), error.sqlstate) == (kind, sqlstate)
