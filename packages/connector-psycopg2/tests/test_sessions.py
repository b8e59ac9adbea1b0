from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection

from procrastinate.connector import Query
from procrastinate.errors import (
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    UniqueViolation,
)
from procrastinate_psycopg2 import Psycopg2Connector
from procrastinate_psycopg2.sessions import bound

from .helpers import INSERT, PID, once, run, terminate, texts


def test_without_a_transaction_each_query_commits_by_itself(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with pytest.raises(ZeroDivisionError), connector.session() as session:
        run(session, INSERT, text="kept")
        assert texts(admin) == ["kept"]
        raise ZeroDivisionError
    assert texts(admin) == ["kept"]


def test_a_transaction_is_committed_at_the_end_of_the_block(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with connector.session(transaction=True) as session:
        run(session, INSERT, text="a")
        run(session, INSERT, text="b")
        assert texts(admin) == []
    assert texts(admin) == ["a", "b"]


def test_a_transaction_is_rolled_back_when_the_block_raises(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with pytest.raises(ZeroDivisionError), connector.session(transaction=True) as session:
        run(session, INSERT, text="a")
        raise ZeroDivisionError
    assert texts(admin) == []
    assert once(connector, "select count(*) from notes") == [(0,)]


def test_a_block_that_swallowed_an_error_is_not_taken_for_committed(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with (
        pytest.raises(ConnectorException, match="rolled back instead of committed"),
        connector.session(transaction=True) as session,
    ):
        run(session, INSERT, text="a")
        with pytest.raises(UniqueViolation):
            run(session, INSERT, text="a")
    assert texts(admin) == []


def test_a_transaction_whose_first_statement_was_nonsense_has_failed(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    """Its BEGIN, in the same message, was never executed."""
    with (
        pytest.raises(ConnectorException, match="rolled back instead of committed"),
        connector.session(transaction=True) as session,
    ):
        with pytest.raises(ConnectorException):
            run(session, "nonsense")
        with pytest.raises(ConnectorException) as caught:
            run(session, INSERT, text="a")
    assert caught.value.sqlstate == "25P02"
    assert texts(admin) == []


def test_a_first_value_that_cannot_be_sent_leaves_the_transaction_to_begin(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with pytest.raises(ZeroDivisionError), connector.session(transaction=True) as session:
        with pytest.raises(InvalidData):
            run(session, INSERT, text="\0")
        run(session, INSERT, text="undone")
        raise ZeroDivisionError
    assert texts(admin) == []


def test_a_commit_that_the_server_refuses_is_an_error(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with admin.cursor() as cursor:
        cursor.execute("alter table notes add unique (text) deferrable initially deferred")
        cursor.execute("alter table notes drop constraint notes_text_key")
    with pytest.raises(UniqueViolation), connector.session(transaction=True) as session:
        run(session, INSERT, text="a")
        run(session, INSERT, text="a")
    assert texts(admin) == []


def test_a_connection_lost_before_the_commit_is_an_error(
    connector: Psycopg2Connector, admin: Connection
) -> None:
    with pytest.raises(ConnectionLost), connector.session(transaction=True) as session:
        (pid,) = run(session, PID)
        run(session, INSERT, text="a")
        terminate(admin, list(pid))
    assert texts(admin) == []
    assert once(connector, PID) != [pid]


def test_a_transaction_that_a_query_began_is_not_seen_by_the_next(
    connector: Psycopg2Connector,
) -> None:
    once(connector, "begin")
    assert once(connector, "select now() = statement_timestamp()") == [(True,)]


def test_a_session_is_over_after_its_block(connector: Psycopg2Connector) -> None:
    with connector.session() as session:
        pass
    with pytest.raises(ConnectorException, match="has ended"):
        run(session, "select 1")


def test_one_query_in_a_transaction_takes_two_messages(connector: Psycopg2Connector) -> None:
    """BEGIN travels with the first query."""
    with connector.session(transaction=True) as session:
        run(session, "set local work_mem = '1MB'")
        ((activity,),) = run(session, "select current_setting('work_mem')")
    assert activity == "1MB"
    assert once(connector, "select current_setting('work_mem')") != [("1MB",)]


def test_bind_runs_inside_the_callers_transaction(
    connector: Psycopg2Connector, connect: Callable[..., Connection], admin: Connection
) -> None:
    theirs = connect()
    executor = bound(theirs)
    run(executor, INSERT, text="undone")
    theirs.rollback()
    run(executor, INSERT, text="done")
    assert texts(admin) == []
    theirs.commit()
    assert texts(admin) == ["done"]


def test_bind_takes_a_connection_in_autocommit_mode_as_it_is(
    connector: Psycopg2Connector, connect: Callable[..., Connection], admin: Connection
) -> None:
    theirs = connect()
    theirs.autocommit = True
    run(bound(theirs), INSERT, text="at once")
    assert texts(admin) == ["at once"]
    assert theirs.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE


def test_bind_needs_no_open_connector(
    procrastinate_dsn: str, connect: Callable[..., Connection]
) -> None:
    executor = bound(connect())
    assert executor.execute(Query("one", "select 1")) == [(1,)]


def test_bind_refuses_what_it_cannot_use(
    connector: Psycopg2Connector, connect: Callable[..., Connection]
) -> None:
    closed = connect()
    closed.close()
    with pytest.raises(InvalidOption, match="is closed"):
        bound(closed)
    with pytest.raises(InvalidOption, match=r"not psycopg2\.extensions\.cursor"):
        bound(connect().cursor())
    with pytest.raises(InvalidOption, match="asynchronous"):
        bound(connect(async_=True))


def test_a_bound_connection_that_broke_is_lost(
    connector: Psycopg2Connector, connect: Callable[..., Connection], admin: Connection
) -> None:
    theirs = connect()
    executor = bound(theirs)
    terminate(admin, [theirs.info.backend_pid])
    with pytest.raises(ConnectionLost):
        run(executor, "select 1")
    with pytest.raises(ConnectionLost):
        run(executor, "select 1")


def test_a_call_of_a_function_is_prepared_the_second_time(connector: Psycopg2Connector) -> None:
    settings = {"jit": "off", "transaction_isolation": "read committed"}
    for n in range(3):
        query = Query("call", "select abs(%(n)s::integer)", {"n": -n}, settings)
        with connector.session() as session:
            assert session.execute(query) == [(n,)]
    shown = "select name, current_setting('jit') from pg_prepared_statements"
    assert once(connector, shown) == [("procrastinate_call_1", "off")]
    once(connector, "deallocate all")
    for _ in range(2):
        with connector.session() as session:
            assert session.execute(query) == [(2,)]
        assert once(connector, shown) == []
