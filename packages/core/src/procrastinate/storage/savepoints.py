"""What can be undone in the caller's transaction, which goes on after `AlreadyEnqueued`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from procrastinate.drive import Flow, Request
from procrastinate.errors import (
    AlreadyEnqueued,
    ConnectorException,
    InvalidArguments,
    InvalidOption,
)

T = TypeVar("T")

#: The server's no_active_sql_transaction: the connection is in autocommit mode.
NO_TRANSACTION = "25P01"


def undoable(make: Callable[[], Flow[T]], *, autocommit: Callable[[], Flow[T]]) -> Flow[T]:
    """Run a flow with a savepoint around it: two round trips more.

    Where the connection has no transaction, ``autocommit`` makes the flow that is run instead.
    """
    try:
        yield Request("set_savepoint")
    except ConnectorException as exc:
        if exc.sqlstate != NO_TRANSACTION:
            raise
        return (yield from autocommit())
    try:
        value = yield from make()
    except (AlreadyEnqueued, InvalidArguments, InvalidOption):
        yield Request("return_to_savepoint")
        raise
    yield Request("drop_savepoint")
    return value
