from __future__ import annotations

import datetime
import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import psycopg2.extras
import pytest
import sqlalchemy
from psycopg2.extensions import connection as RawConnection
from sqlalchemy import pool as sa_pool
from sqlalchemy.engine import Engine

from procrastinate.connector import Query
from procrastinate.errors import (
    AppNotOpen,
    ConnectionFailed,
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    PoolTimeout,
    UniqueViolation,
)
from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector
from procrastinate_sqlalchemy.engines import is_watched
from procrastinate_sqlalchemy.sessions import bound

from .helpers import INSERT, PID, once, pids, run, terminate, texts, until

NewEngine = Callable[..., Engine]
Share = Callable[..., SQLAlchemyPsycopg2Connector]


def their_pid(engine: Engine) -> int:
    with engine.connect() as connection:
        pid: int = connection.exec_driver_sql(PID).scalar_one()
        return pid


def test_the_engines_own_connections_are_used_and_left_open(
    new_engine: NewEngine, sharing: Share
) -> None:
    engine = new_engine()
    pid = their_pid(engine)
    connector = sharing(engine)
    connector.open(engine)
    assert once(connector, PID) == [(pid,)]
    connector.close()
    assert their_pid(engine) == pid


def test_the_engine_in_use_is_there_to_see(new_engine: NewEngine, sharing: Share) -> None:
    engine = new_engine()
    connector = sharing(engine)
    connector.open(engine)
    assert connector.engine is engine
    connector.close()
    with pytest.raises(AppNotOpen, match="open"):
        connector.engine  # noqa: B018


def test_opening_leaves_an_engine_without_connections_that_a_forked_child_would_share(
    new_engine: NewEngine, sharing: Share, admin: RawConnection
) -> None:
    sharing(new_engine())
    assert others(admin) in ([], ["idle"])  # the server notices an end in its own time
    until(lambda: others(admin) == [])


def others(admin: RawConnection) -> list[str]:
    with admin.cursor() as cursor:
        cursor.execute(
            "select state from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
            " and backend_type = 'client backend'"
        )
        return [state for (state,) in cursor.fetchall()]


def test_an_engine_that_cannot_connect_now_is_taken(new_engine: NewEngine) -> None:
    nowhere = sqlalchemy.create_engine("postgresql+psycopg2://kit@127.0.0.1:1/kit")
    connector = SQLAlchemyPsycopg2Connector()
    connector.open(nowhere)
    with pytest.raises(ConnectionFailed):
        once(connector, PID)
    connector.close()


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT", "SERIALIZABLE", "READ COMMITTED"])
def test_the_engines_connections_go_back_as_they_were(
    new_engine: NewEngine, sharing: Share, admin: RawConnection, level: str | None
) -> None:
    engine = new_engine(**({"isolation_level": level} if level else {}))
    state = "select current_setting('transaction_isolation'), pg_backend_pid()"

    def theirs() -> tuple[Any, ...]:
        with engine.connect() as connection:
            row = connection.exec_driver_sql(state).one()
            raw: Any = connection.connection.driver_connection
            return (*row, raw.autocommit, raw.isolation_level, raw.cursor_factory)

    before = theirs()
    connector = sharing(engine)
    once(connector, INSERT, text="by itself")
    with pytest.raises(ZeroDivisionError), connector.session(transaction=True) as session:
        run(session, INSERT, text="never")
        raise ZeroDivisionError
    with connector.session(transaction=True) as session:
        run(session, INSERT, text="together")
    assert texts(admin) == ["by itself", "together"]
    assert theirs() == before


def test_every_query_is_visible_in_the_engines_log_and_events(
    new_engine: NewEngine, sharing: Share, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    engine = new_engine()
    seen: list[str] = []
    sqlalchemy.event.listen(
        engine, "before_cursor_execute", lambda c, cursor, sql, p, context, many: seen.append(sql)
    )
    sqlalchemy.event.listen(engine, "checkout", lambda *arguments: seen.append("checkout"))
    connector = sharing(engine)
    seen.clear()
    once(connector, INSERT, text="logged")
    assert seen == ["checkout", INSERT]
    messages = [record.getMessage() for record in caplog.records]
    assert INSERT in messages
    assert messages[-1] == "COMMIT"


def test_any_pool_class_or_creator_will_do(
    procrastinate_dsn: str, new_engine: NewEngine, sharing: Share
) -> None:
    for arguments in (
        {"poolclass": sa_pool.NullPool},
        {"poolclass": sa_pool.StaticPool},
        {"poolclass": sa_pool.QueuePool, "pool_size": 1},
        {"creator": lambda: psycopg2.connect(procrastinate_dsn)},
        {"execution_options": {"stream_results": True, "isolation_level": "AUTOCOMMIT"}},
        {"pool_pre_ping": True, "pool_reset_on_return": None},
    ):
        connector = sharing(new_engine(**arguments))
        assert once(connector, "select '%', 1") == [("%", 1)]


DICTS = {"cursor_factory": psycopg2.extras.RealDictCursor}
FACTORIES = [
    {"cursor_factory": psycopg2.extras.NamedTupleCursor},
    {"cursor_factory": psycopg2.extras.DictCursor},
    {"connection_factory": psycopg2.extras.DictConnection},
]
VALUES = "select %(t)s::timestamptz, %(a)s::bigint[], 1.5::numeric"
WHEN = datetime.datetime(2026, 3, 29, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize("connect_args", FACTORIES)
def test_the_owners_cursor_factory_stays_and_is_not_used(
    new_engine: NewEngine, sharing: Share, connect_args: dict[str, Any]
) -> None:
    engine = new_engine(connect_args)
    with sharing(engine).session() as session:
        rows = run(session, VALUES, t=WHEN, a=[])
    assert (rows, type(rows[0])) == ([(WHEN, [], 1.5)], tuple)
    raw: Any = engine.raw_connection()
    assert raw.driver_connection.cursor_factory is connect_args.get("cursor_factory")
    raw.close()


def test_a_factory_of_dictionaries_set_by_a_listener_stays_and_is_not_used(
    new_engine: NewEngine, sharing: Share
) -> None:
    engine = new_engine()
    with engine.connect():
        pass  # SQLAlchemy asks for the server's version, and cannot do so with dictionaries
    seen: list[Any] = []

    def checkout(raw: Any, *arguments: Any) -> None:
        raw.cursor_factory = psycopg2.extras.RealDictCursor

    sqlalchemy.event.listen(engine, "checkout", checkout)
    sqlalchemy.event.listen(engine, "checkin", lambda raw, *_: seen.append(raw.cursor_factory))
    assert once(sharing(engine), VALUES, t=WHEN, a=[]) == [(WHEN, [], 1.5)]
    # One for the look at the encoding when it was opened.
    assert seen == [psycopg2.extras.RealDictCursor] * 2


@pytest.mark.parametrize(
    "connect_args", [DICTS, {"connection_factory": psycopg2.extras.RealDictConnection}]
)
def test_an_engine_of_its_own_takes_any_factory(
    procrastinate_dsn: str, connect_args: dict[str, Any]
) -> None:
    read = psycopg2.extensions.parse_dsn(procrastinate_dsn)
    connector = SQLAlchemyPsycopg2Connector(connect_args={**read, **connect_args})
    connector.open()
    assert once(connector, VALUES, t=WHEN, a=[]) == [(WHEN, [], 1.5)]
    connector.close()


def test_a_listener_added_later_or_for_all_engines_is_respected(
    new_engine: NewEngine, sharing: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "_has_events", False)  # which SQLAlchemy never takes back
    connector = sharing(new_engine())
    seen: list[str] = []

    def listen(connection: Any, cursor: Any, sql: str, *arguments: Any) -> None:
        seen.append(sql)

    once(connector, "select 1")
    sqlalchemy.event.listen(Engine, "before_cursor_execute", listen)
    try:
        once(connector, "select 2")
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", listen)
    assert seen == ["select 2"]


@pytest.fixture(params=["unwatched", "watched"])
def either(
    request: pytest.FixtureRequest, own: SQLAlchemyPsycopg2Connector
) -> SQLAlchemyPsycopg2Connector:
    """A connector whose statements SQLAlchemy sees, or does not."""
    engine = own._source.engine  # type: ignore[union-attr]
    if request.param == "watched":
        sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *arguments: None)
    with engine.connect() as connection:
        assert is_watched(connection) is (request.param == "watched")
    return own


def test_a_pool_full_of_dropped_connections_is_replaced_unnoticed(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    dropped = pids(either, 3)
    terminate(admin, dropped)
    assert set(pids(either, 3)).isdisjoint(dropped)


def test_a_connection_that_breaks_under_way_is_an_error_and_not_given_out_again(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    with either.session() as session:
        (pid,) = run(session, PID)
        terminate(admin, list(pid))
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                run(session, INSERT, text="once")
    assert once(either, PID) != [pid]
    assert texts(admin) == []


def test_a_connection_lost_before_the_commit_is_an_error(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    with pytest.raises(ConnectionLost), either.session(transaction=True) as session:
        (pid,) = run(session, PID)
        run(session, INSERT, text="a")
        terminate(admin, list(pid))
    assert texts(admin) == []
    assert once(either, PID) != [pid]


def test_after_a_failover_the_read_only_connections_are_all_replaced(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    engine = either._source.engine  # type: ignore[union-attr]
    pids(either, 3)
    connections = [engine.raw_connection() for _ in range(3)]
    for connection in connections:
        connection.cursor().execute("set default_transaction_read_only = on")
        connection.commit()
        connection.close()
    with pytest.raises(ConnectionLost) as caught:
        once(either, INSERT, text="refused")
    assert caught.value.sqlstate == "25006"
    once(either, INSERT, text="accepted")
    assert texts(admin) == ["accepted"]


def test_a_refused_write_says_that_the_engine_is_read_only(
    new_engine: NewEngine,
) -> None:
    engine = new_engine().execution_options(postgresql_readonly=True)
    with (
        engine.connect() as connection,
        pytest.raises(ConnectionLost, match="made read-only by an option of its driver"),
    ):
        run(bound(connection), INSERT, text="refused")


def test_a_block_that_swallowed_an_error_is_not_taken_for_committed(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    with (
        pytest.raises(ConnectorException, match="rolled back instead of committed"),
        either.session(transaction=True) as session,
    ):
        run(session, INSERT, text="a")
        with pytest.raises(UniqueViolation) as caught:
            run(session, INSERT, text="a")
    assert caught.value.constraint == "notes_text_key"
    assert isinstance(caught.value.__cause__, psycopg2.errors.UniqueViolation)
    assert texts(admin) == []


def test_a_commit_that_the_server_refuses_is_an_error(
    either: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    with admin.cursor() as cursor:
        cursor.execute("alter table notes drop constraint notes_text_key")
        cursor.execute("alter table notes add unique (text) deferrable initially deferred")
    with pytest.raises(UniqueViolation), either.session(transaction=True) as session:
        run(session, INSERT, text="a")
        run(session, INSERT, text="a")
    assert texts(admin) == []
    assert once(either, "select 1") == [(1,)]


def test_a_value_that_cannot_be_sent_names_its_parameter(
    either: SQLAlchemyPsycopg2Connector,
) -> None:
    with pytest.raises(InvalidData, match="parameter 'a' of test cannot be sent"):
        once(either, "select %(a)s::text", a="\0")
    assert once(either, "select 1") == [(1,)]


def test_a_listener_that_raises_its_own_error_does_not_hide_ours(
    new_engine: NewEngine, sharing: Share
) -> None:
    def rename(context: Any) -> None:
        raise RuntimeError("their own")

    engine = new_engine()
    sqlalchemy.event.listen(engine, "handle_error", rename)
    connector = sharing(engine)
    with pytest.raises(InvalidData):
        once(connector, "select 1/0")


def test_an_exhausted_pool_says_so_after_its_timeout(new_engine: NewEngine, sharing: Share) -> None:
    engine = new_engine(pool_size=1, max_overflow=0, pool_timeout=0.05)
    connector = sharing(engine)
    with engine.connect(), pytest.raises(PoolTimeout, match="Pool size: 1"):
        connector.session().__enter__()
    assert once(connector, "select 1") == [(1,)]


def test_a_shared_single_connection_in_a_transaction_is_left_alone(
    new_engine: NewEngine, sharing: Share, admin: RawConnection
) -> None:
    engine = new_engine(poolclass=sa_pool.StaticPool)
    connector = sharing(engine)
    with engine.connect() as theirs:
        theirs.exec_driver_sql("insert into notes (text) values ('theirs')")
        with pytest.raises(PoolTimeout, match="StaticPool shares one connection"):
            connector.session().__enter__()
        theirs.rollback()
    assert texts(admin) == []


def test_threads_take_turns_at_a_shared_single_connection(
    new_engine: NewEngine, sharing: Share
) -> None:
    connector = sharing(new_engine(poolclass=sa_pool.StaticPool))
    with ThreadPoolExecutor(10) as threads:
        numbers = range(200)
        query = "select %(n)s::integer"
        seen = threads.map(lambda n: once(connector, query, n=n), numbers, timeout=60)
        assert list(seen) == [[(n,)] for n in numbers]


def test_an_engine_handed_in_that_cannot_connect_says_so(
    new_engine: NewEngine, sharing: Share
) -> None:
    connector = sharing(new_engine({"dbname": "no_such_database"}))
    with pytest.raises(ConnectionFailed, match="no_such_database"):
        connector.session().__enter__()


def test_another_engine_needs_a_close_first(new_engine: NewEngine, sharing: Share) -> None:
    connector = sharing(new_engine())
    with pytest.raises(InvalidOption, match="another engine"):
        connector.open(new_engine())


def test_many_threads_share_an_engine(
    own: SQLAlchemyPsycopg2Connector, admin: RawConnection
) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            with own.session(transaction=turn % 2 == 0) as session:
                run(session, INSERT, text=f"{number}-{turn}")

    threads = [threading.Thread(target=work, args=[n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(texts(admin)) == sorted(f"{n}-{t}" for n in range(6) for t in range(10))


def test_a_forked_process_gets_connections_of_its_own(own: SQLAlchemyPsycopg2Connector) -> None:
    before = pids(own, 3)
    read, write = os.pipe()
    with own._lock:
        child = os.fork()
    if child == 0:
        try:
            rows = once(own, PID)
            own.close()
            os.write(write, json.dumps(rows).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        ((pid,),) = json.load(pipe)
    os.waitpid(child, 0)
    assert pid not in before
    assert sorted(pids(own, 3)) == sorted(before)


CALL_SETTINGS = {"jit": "off", "transaction_isolation": "read committed"}
PREPARED = "select name, current_setting('jit') from pg_prepared_statements"


def call(connector: SQLAlchemyPsycopg2Connector, number: int) -> list[Any]:
    query = Query("call", "select abs(%(n)s::integer)", {"n": number}, CALL_SETTINGS)
    with connector.session() as session:
        return list(session.execute(query))


def test_a_call_of_a_function_is_prepared_on_our_own_engine_the_second_time(
    own: SQLAlchemyPsycopg2Connector,
) -> None:
    for n in range(4):
        assert call(own, -n) == [(n,)]
    assert once(own, PREPARED) == [("procrastinate_call_1", "off")]
    once(own, "deallocate all")
    for n in (1, 2):
        assert call(own, -n) == [(n,)]
        assert once(own, PREPARED) == []


def test_nothing_is_prepared_on_the_application_s_engine(sharing: Share) -> None:
    shared = sharing()
    for n in range(4):
        assert call(shared, -n) == [(n,)]
    assert once(shared, PREPARED) == []
