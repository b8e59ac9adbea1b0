"""Limits: the settings that a statement runs with, and connections that are severed."""

from __future__ import annotations

import pytest

from procrastinate import errors
from procrastinate.connector import Query, Value
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.bind import caller
from procrastinate_connector_testkit.behaviours.errors import both_modes
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Session, Subject

SLEEP = 60  # seconds that a statement takes which is not waited for
SETTINGS = {"statement_timeout": "77s", "lock_timeout": "78s"}
SHOWN = "select current_setting('statement_timeout'), current_setting('lock_timeout')"


def limited(sql: str, **params: Value) -> Query:
    return Query("testkit", sql, params, SETTINGS)


async def shown(session: Session) -> tuple[str, ...]:
    """Return what a statement without settings runs with."""
    return tuple((await session.sql(SHOWN))[0])


class Limits:
    """What a worker needs so that no wait is without an end."""

    @both_modes
    @behaviour(9)
    async def test_settings_are_those_of_the_statement(
        self, db: Subject, transaction: bool
    ) -> None:
        """With parameters and without, as the first statement of a transaction and later."""
        async with entered(db.session(transaction=transaction)) as session:
            seen = [
                (await session.execute(limited(SHOWN)))[0],
                (await session.execute(limited(f"{SHOWN} where %(n)s::integer = 1", n=1)))[0],
            ]
        assert [tuple(row) for row in seen] == [("77s", "78s")] * 2

    @behaviour(9)
    async def test_settings_end_with_their_statement(self, db: Subject) -> None:
        """Where each statement commits by itself; else with the transaction."""
        async with entered(db.session()) as session:
            before = await shown(session)
            await session.execute(limited(SHOWN))
            assert await shown(session) == before

    @both_modes
    @behaviour(9)
    async def test_settings_are_gone_with_the_session(self, db: Subject, transaction: bool) -> None:
        async with entered(db.session()) as session:
            before = await shown(session)
        async with entered(db.session(transaction=transaction)) as session:
            await session.execute(limited(SHOWN))
        for _ in range(3):
            async with entered(db.session()) as session:
                assert await shown(session) == before

    @both_modes
    @behaviour(9)
    async def test_settings_limit_the_time_of_a_statement(
        self, db: Subject, transaction: bool
    ) -> None:
        slow = Query("testkit", "select pg_sleep(3)", {}, {"statement_timeout": "50"})
        with pytest.raises(errors.ConnectorException) as caught:
            async with entered(db.session(transaction=transaction)) as session:
                await session.execute(slow)
        assert caught.value.sqlstate == "57014"
        assert await db.value("select 1") == 1

    @both_modes
    @behaviour(10)
    async def test_severing_ends_the_statement_under_way(
        self, db: Subject, transaction: bool
    ) -> None:
        """With `ConnectionLost`; and the next session has another connection."""
        await check_severed(
            db, f"select pg_sleep({SLEEP})", transaction=transaction, waits_in="pg_sleep"
        )

    @behaviour(10)
    async def test_severing_ends_a_commit_under_way(self, db: Subject) -> None:
        await db.outside(SLOW_COMMIT.replace("60", str(SLEEP)))
        await check_severed(
            db, "insert into kit_slow values (1)", transaction=True, waits_in="commit"
        )

    @both_modes
    @behaviour(10)
    async def test_severing_twice_or_too_late_does_nothing(
        self, db: Subject, transaction: bool
    ) -> None:
        """Neither to the one who severs nor to the connection's next user."""
        async with entered(db.session(transaction=transaction)) as session:
            await session.sql("select 1")
        session.sever()
        assert await db.value("select 1") == 1
        with pytest.raises(errors.ConnectionLost):
            async with entered(db.session(transaction=transaction)) as session:
                await session.sql("select 1")
                session.sever()
                session.sever()
                await session.sql("select 1")
        assert await db.value("select 1") == 1


class BindLimits:
    """The same in the caller's transaction."""

    @behaviour(9, ways="own")
    async def test_bind_leaves_the_caller_s_settings(
        self, db: Subject, connection_kind: str
    ) -> None:
        async with caller(db, connection_kind) as owned:
            session = db.bind(owned.connection)
            before = await shown(session)
            assert tuple((await session.execute(limited(SHOWN)))[0]) == before
            assert await shown(session) == before
            assert before != ("77s", "78s")


SLOW_COMMIT = """
drop table if exists kit_slow;
create table kit_slow (x integer);
create or replace function kit_slow() returns trigger language plpgsql as
    'begin perform pg_sleep(60); return null; end';
create constraint trigger slow after insert on kit_slow
    deferrable initially deferred for each row execute function kit_slow();
"""


async def check_severed(db: Subject, sql: str, *, transaction: bool, waits_in: str) -> None:
    """Sever a session while the server is in a statement that begins or goes on like this."""
    await db.referee()
    pids: list[int] = []
    sessions: list[Session] = []
    inside = db.signal()

    async def work() -> None:
        async with entered(db.session(transaction=transaction)) as session:
            pids.append(await session.value("select pg_backend_pid()"))
            sessions.append(session)
            inside.set()
            await session.sql(sql)

    async def sever() -> None:
        await inside.wait()
        await db.eventually("it waits for the server", lambda: runs(db, pids[0], waits_in))
        sessions[0].sever()

    try:
        with pytest.raises(errors.ConnectionLost):
            await db.together(work(), sever())
        assert await db.value("select 1") == 1
    finally:  # the server has not noticed yet
        await db.outside("select pg_terminate_backend(%(pid)s::integer)", pid=pids[0])


async def runs(db: Subject, pid: int, part: str) -> object:
    """Return whether a server process runs a statement that has this in it."""
    return await db.outside(
        "select 1 from pg_stat_activity where pid = %(pid)s::integer and state = 'active'"
        " and position(%(part)s::text in lower(query)) > 0",
        pid=pid,
        part=part,
    )
