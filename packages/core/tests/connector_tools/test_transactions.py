"""A transaction that begins with its first query."""

from __future__ import annotations

import pytest

from procrastinate.connector_tools.transactions import LazyTransaction
from procrastinate.errors import ConnectionLost, ConnectorException, InvalidData


@pytest.mark.parametrize(
    ("wanted", "read_only", "prefixes"),
    [
        (False, False, ["", ""]),
        (True, False, ["BEGIN;", ""]),
        (True, True, ["BEGIN READ ONLY;", ""]),
    ],
)
def test_only_the_first_query_has_a_prefix(
    wanted: bool, read_only: bool, prefixes: list[str]
) -> None:
    transaction = LazyTransaction(wanted=wanted, read_only=read_only)
    first = transaction.prefix()
    if first:
        transaction.after_prefix(None, in_transaction=True)
    assert [first, transaction.prefix()] == prefixes
    assert transaction.is_to_commit() is wanted


def test_nothing_is_committed_where_nothing_was_executed() -> None:
    assert not LazyTransaction(wanted=True).is_to_commit()


def test_read_only_needs_a_transaction() -> None:
    with pytest.raises(ValueError, match="transaction=True"):
        LazyTransaction(wanted=False, read_only=True)


@pytest.mark.parametrize(
    ("error", "kind", "sqlstate"),
    [
        (ConnectorException("syntax", sqlstate="42601"), ConnectorException, "25P02"),
        (ConnectionLost("gone"), ConnectionLost, None),
        (ConnectionLost("shut down", sqlstate="57P01"), ConnectionLost, "57P01"),
    ],
)
def test_no_query_follows_one_that_took_begin_with_it(
    error: ConnectorException, kind: type[ConnectorException], sqlstate: str | None
) -> None:
    transaction = LazyTransaction(wanted=True)
    transaction.prefix()
    transaction.after_prefix(error, in_transaction=False)
    for go_on in (transaction.prefix, transaction.is_to_commit):
        with pytest.raises(kind) as caught:
            go_on()
        assert caught.value.sqlstate == sqlstate


def test_a_query_that_was_never_sent_leaves_the_transaction_to_begin() -> None:
    transaction = LazyTransaction(wanted=True)
    transaction.prefix()
    transaction.after_prefix(InvalidData("NUL"), in_transaction=False)
    assert transaction.prefix() == "BEGIN;"


def test_a_query_that_failed_after_begin_leaves_commit_to_the_server() -> None:
    transaction = LazyTransaction(wanted=True)
    transaction.prefix()
    transaction.after_prefix(InvalidData("zero", sqlstate="22012"), in_transaction=True)
    assert transaction.prefix() == ""
    assert transaction.is_to_commit()
