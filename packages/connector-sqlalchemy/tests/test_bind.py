from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg2.extras
import pytest
import sqlalchemy
from psycopg2.extensions import connection as RawConnection
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import procrastinate
from procrastinate.errors import (
    ConnectionLost,
    ConnectorException,
    InvalidData,
    InvalidOption,
    UniqueViolation,
)
from procrastinate_sqlalchemy import SQLAlchemyPsycopg2Connector
from procrastinate_sqlalchemy.sessions import bound

from .helpers import INSERT, PID, run, terminate, texts


def test_bind_runs_inside_the_transaction_of_a_connection(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with new_engine().connect() as theirs:
        run(bound(theirs), INSERT, text="undone")
        theirs.rollback()
        run(bound(theirs), INSERT, text="done")
        assert texts(admin) == []
        theirs.commit()
    assert texts(admin) == ["done"]


def test_bind_runs_inside_the_transaction_of_a_session(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with Session(new_engine()) as theirs:
        executor = bound(theirs)
        run(executor, INSERT, text="undone")
        theirs.rollback()
        run(executor, INSERT, text="done")
        assert texts(admin) == []
        theirs.commit()
        run(executor, INSERT, text="never committed")
    assert texts(admin) == ["done"]


def test_a_savepoint_of_the_callers_decides_too(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with Session(new_engine()) as theirs, theirs.begin():
        executor = bound(theirs)
        run(executor, INSERT, text="kept")
        with pytest.raises(UniqueViolation), theirs.begin_nested():
            run(executor, INSERT, text="kept")
    assert texts(admin) == ["kept"]


def test_bind_takes_a_scoped_session(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    theirs = scoped_session(sessionmaker(new_engine()))
    run(bound(theirs), INSERT, text="scoped")
    theirs.commit()
    theirs.remove()
    assert texts(admin) == ["scoped"]


def test_bind_leaves_the_connections_cursor_factory_in_place(
    new_engine: Callable[..., Engine],
) -> None:
    factory = psycopg2.extras.NamedTupleCursor
    with new_engine({"cursor_factory": factory}).connect() as theirs:
        rows = run(bound(theirs), "select 1 as one")
        raw: Any = theirs.connection.driver_connection
        assert (rows, type(rows[0])) == ([(1,)], tuple)
        assert raw.cursor_factory is factory
        assert raw.autocommit is False
        with pytest.raises(ConnectorException):
            run(bound(theirs), "selec")
        assert raw.cursor_factory is factory


def test_bind_takes_a_connection_in_autocommit_mode_as_it_is(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with new_engine(isolation_level="AUTOCOMMIT").connect() as theirs:
        run(bound(theirs), INSERT, text="at once")
        assert texts(admin) == ["at once"]


class SomebodysAsyncSession:
    pass


def test_bind_refuses_what_it_cannot_use(new_engine: Callable[..., Engine]) -> None:
    engine = new_engine()
    with engine.connect() as closed:
        pass
    with pytest.raises(InvalidOption, match="is closed"):
        bound(closed)
    with pytest.raises(InvalidOption, match=r"Connection or Session, not .*SomebodysAsyncSession"):
        bound(SomebodysAsyncSession())
    with pytest.raises(InvalidOption, match="Engine"):
        bound(engine)
    with pytest.raises(InvalidOption, match="no engine of its own"):
        bound(Session())
    sqlite = sqlalchemy.create_engine("sqlite://")
    with pytest.raises(InvalidOption, match=r"sqlite\+pysqlite"), sqlite.connect() as other:
        bound(other)
    with pytest.raises(InvalidOption, match=r"sqlite\+pysqlite"):
        bound(Session(sqlite))


def test_a_bound_connection_that_broke_is_lost_and_not_replaced(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with new_engine().connect() as theirs:
        executor = bound(theirs)
        terminate(admin, list(run(executor, PID)[0]))
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                run(executor, INSERT, text="a")
    assert texts(admin) == []


def test_a_detached_connection_is_the_callers_still(
    new_engine: Callable[..., Engine], admin: RawConnection
) -> None:
    with new_engine().connect() as theirs:
        theirs.detach()
        run(bound(theirs), INSERT, text="detached")
        theirs.commit()
    assert texts(admin) == ["detached"]


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute"])
def test_what_a_listener_raises_is_theirs(new_engine: Callable[..., Engine], name: str) -> None:
    def listener(*_: Any) -> None:
        raise ValueError("of the listener's own")

    with new_engine().connect() as theirs:
        sqlalchemy.event.listen(theirs, name, listener)
        with pytest.raises(ValueError, match="of the listener's own"):
            run(bound(theirs), INSERT, text="a")
        with pytest.raises(InvalidData, match=r"'text' of test"):
            run(bound(theirs), INSERT, text="\0")


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_moment_is_read_in_the_style_of_its_owner_s(procrastinate_dsn: str, driver: str) -> None:
    creator = {"psycopg2": psycopg2.connect, "psycopg": psycopg.connect}[driver]
    engine = sqlalchemy.create_engine(
        f"postgresql+{driver}://", creator=lambda: creator(procrastinate_dsn)
    )
    with engine.connect() as theirs:
        theirs.exec_driver_sql("set datestyle = 'German'; set timezone = 'Europe/Amsterdam'")
        sql = "select %(at)s::timestamptz"
        ((moment,),) = run(bound(theirs), sql, at="2026-12-09 14:05:27.1+00")
    engine.dispose()
    assert moment == datetime.datetime(2026, 12, 9, 14, 5, 27, 100_000, datetime.UTC)


def test_a_row_that_cannot_be_read_says_so(new_engine: Callable[..., Engine]) -> None:
    with (
        new_engine().connect() as theirs,
        pytest.raises(InvalidData, match=r"a row .* cannot be read"),
    ):
        run(bound(theirs), "select '12345-01-01 00:00 UTC'::timestamptz")


def test_a_session_that_was_closed_for_good_says_so(new_engine: Callable[..., Engine]) -> None:
    theirs = Session(new_engine(), close_resets_only=False)
    theirs.close()
    with pytest.raises(ConnectorException, match="cannot be used"):
        run(bound(theirs), "select 1")


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_what_run_sync_passes_says_what_to_write(procrastinate_dsn: str, driver: str) -> None:
    """There the connection is synchronous, and the driver below it is not."""
    read = psycopg2.extensions.parse_dsn(procrastinate_dsn)
    url = sqlalchemy.URL.create(
        f"postgresql+{driver}",
        read["user"],
        database=read["dbname"],
        query={"host": read["host"], "port": read["port"]},
    )
    engine = create_async_engine(url)
    app = procrastinate.App(connector=SQLAlchemyPsycopg2Connector())
    for theirs in (engine.connect(), AsyncSession(engine)):
        async with theirs as opened:
            with pytest.raises(InvalidOption, match=r"AsyncSession itself.*defer_async"):
                await opened.run_sync(
                    lambda inner: app.configure_task("work", connection=inner).defer()
                )
    await engine.dispose()
