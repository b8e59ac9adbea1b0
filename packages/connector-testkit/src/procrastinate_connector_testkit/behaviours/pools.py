"""Pools: the connector's own when it is exhausted, and pools or engines of the application's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from procrastinate import errors
from procrastinate_connector_testkit.adapter import LimitsPool, Opener, OwnedPool, TakesPools
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import both_modes
from procrastinate_connector_testkit.behaviours.losses import (
    fill_pool,
    terminate,
    terminate_all,
)
from procrastinate_connector_testkit.behaviours.sessions import scratch, stored
from procrastinate_connector_testkit.databases import create, drop, new_name
from procrastinate_connector_testkit.driving import called, entered
from procrastinate_connector_testkit.subject import Subject


async def limited(db: Subject) -> Subject:
    """Return an open connector that has one connection."""
    assert isinstance(db.adapter, LimitsPool)
    subject = db.another(db.adapter.limited(db.dsn))
    await subject.open()
    return subject


class OwnPool:
    """A pool of one connection."""

    @behaviour(6, ways="own")
    async def test_pools_that_are_exhausted_time_out(self, db: Subject) -> None:
        """After a wait, with an error of their own; and work again once a connection is free."""
        subject = await limited(db)
        async with entered(subject.session()):
            began = time.monotonic()
            with pytest.raises(errors.PoolTimeout):
                async with entered(subject.session()):
                    pass
            waited = time.monotonic() - began
        assert 0.1 < waited < 30, f"it waited {waited:.2f} seconds"
        assert await subject.value("select 1") == 1

    @behaviour(12, ways="own")
    async def test_pools_that_are_exhausted_wait_as_long_as_asked(self, db: Subject) -> None:
        """Longer than the pool's own time, twice over, or not at all."""
        subject = await limited(db)
        held, gave_up = db.signal(), [db.signal() for _ in range(2)]

        async def holder() -> None:
            async with entered(subject.session()):
                held.set()
                for each in gave_up:
                    await each.wait()

        async def patient() -> object:
            await held.wait()
            async with entered(subject.session(timeout=25)) as session:
                return await session.value("select 1")

        async def impatient() -> None:
            await held.wait()
            await refused(0)
            for each in gave_up:
                await refused(None)
                each.set()

        async def refused(timeout: float | None) -> None:
            with pytest.raises(errors.PoolTimeout):
                async with entered(subject.session(timeout=timeout)):
                    pass

        assert (await db.together(holder(), patient(), impatient()))[1] == 1

    @behaviour("session: an exhausted pool waits", ways="own")
    async def test_pools_that_are_exhausted_wait(self, db: Subject) -> None:
        """A thread that waits gets the connection that is given back."""
        subject = await limited(db)
        held = db.signal()

        async def holder() -> None:
            async with entered(subject.session()):
                held.set()
                await db.sleep(0.2)

        async def waiter() -> object:
            await held.wait()
            return await subject.value("select 1")

        _, *values = await db.together(holder(), waiter(), waiter())
        assert values == [1, 1]

    @both_modes
    @behaviour(3, 6, ways="own")
    async def test_pools_lose_no_connection_to_errors(self, db: Subject, transaction: bool) -> None:
        """Of the server, of the caller, of values, and of the way."""
        subject = await limited(db)
        for sql in ("select 1 / 0", "nonsense", "lost", "caller"):
            with pytest.raises((errors.ConnectorException, ZeroDivisionError)):
                async with entered(subject.session(transaction=transaction)) as session:
                    if sql == "lost":
                        await terminate_all(db)
                    if sql == "caller":
                        raise ZeroDivisionError
                    await session.sql(sql)
            assert await subject.value("select 1") == 1

    @behaviour(3, ways="own")
    async def test_pools_reuse_connections(self, db: Subject) -> None:
        """A pool of one connection serves many sessions with it, in either mode.

        An ordinary error of the server is no reason to connect again.
        """
        subject = await limited(db)
        pids = set()
        for n in range(6):
            with pytest.raises(errors.InvalidData):
                async with entered(subject.session(transaction=n % 2 == 0)) as session:
                    pids.add(await session.value("select pg_backend_pid()"))
                    await session.sql("select 1 / 0")
        assert len(pids) == 1


class ForeignPools:
    """Pools that were handed in."""

    @behaviour(5, ways="own")
    async def test_foreign_pools_are_used(self, db: Subject, pool_kind: str) -> None:
        """And nothing else: the connector's own settings lead to no server here."""
        await scratch(db)
        nowhere = "postgresql://kit@127.0.0.1:1/kit?connect_timeout=3"
        async with (
            entered(_pools(db)[pool_kind](db.dsn)) as owned,
            _lent(db, owned, nowhere) as subject,
        ):
            async with entered(subject.session(transaction=True)) as session:
                await session.sql("insert into kit_rows values (%(x)s::integer)", x=1)
            async with entered(subject.session()) as session:
                await session.sql("insert into kit_rows values (%(x)s::integer)", x=2)
                assert list(await session.sql("select x, 'a'::text from kit_rows order by x")) == [
                    (1, "a"),
                    (2, "a"),
                ]
            with pytest.raises(ZeroDivisionError):
                async with entered(subject.session(transaction=True)) as session:
                    await session.sql("insert into kit_rows values (3)")
                    raise ZeroDivisionError
        assert await stored(db) == [1, 2]

    @behaviour(5, ways="own")
    async def test_foreign_pools_are_never_closed(self, db: Subject, pool_kind: str) -> None:
        """They serve their owner while the connector is open and after it was closed."""
        async with entered(_pools(db)[pool_kind](db.dsn)) as owned:
            before = _plain(await called(owned.query, "select 41 as answer"))
            async with _lent(db, owned) as subject:
                assert await subject.value("select 1") == 1
                assert _plain(await called(owned.query, "select 41 as answer")) == before
            assert _plain(await called(owned.query, "select 41 as answer")) == before
            async with _lent(db, owned) as again:
                assert await again.value("select 2") == 2
            assert _plain(await called(owned.query, "select 41 as answer")) == before

    @behaviour(3, 5, ways="own")
    async def test_foreign_pools_keep_their_owner_s_settings(
        self, db: Subject, pool_kind: str
    ) -> None:
        """Autocommit, isolation level, factories and the session's settings are as they were."""
        settings = "select name, setting from pg_settings where source = 'session' order by name"
        async with entered(_pools(db)[pool_kind](db.dsn)) as owned:
            before = (await called(owned.state), _plain(await called(owned.query, settings)))
            async with _lent(db, owned) as subject:
                for transaction in (True, False, True):
                    async with entered(subject.session(transaction=transaction)) as session:
                        await session.sql("select 1")
                    with pytest.raises(errors.ConnectorException):
                        async with entered(subject.session(transaction=transaction)) as session:
                            await session.sql("select 1 / 0")
                    after = (await called(owned.state), _plain(await called(owned.query, settings)))
                    assert after == before

    @behaviour(5, ways="own")
    async def test_foreign_pools_in_another_encoding_are_refused(
        self, db: Subject, pool_kind: str
    ) -> None:
        """With a message that names the setting. The pool serves its owner as before.

        A driver whose connections are always in UTF8 takes the pool.
        """
        referee = await db.referee()
        name = new_name()
        dsn = await create(referee, name, {"client_encoding": "LATIN1"})
        try:
            async with entered(_pools(db)[pool_kind](dsn)) as owned:
                before = (await called(owned.state), _plain(await called(owned.query, "select 1")))
                if "LATIN1" in repr(await called(owned.query, "show client_encoding")):
                    with pytest.raises(errors.InvalidOption, match="client_encoding=LATIN1"):
                        async with _lent(db, owned):
                            pass
                else:
                    async with _lent(db, owned) as subject:
                        assert await subject.value("select %(x)s::text", x="雪") == "雪"
                after = (await called(owned.state), _plain(await called(owned.query, "select 1")))
                assert after == before
        finally:
            await drop(referee, name)

    @behaviour(3, ways="own")
    async def test_foreign_pools_get_connections_back_idle(
        self, db: Subject, pool_kind: str
    ) -> None:
        """Far more sessions than connections, some of which fail: none is kept or left busy."""
        async with entered(_pools(db)[pool_kind](db.dsn)) as owned, _lent(db, owned) as subject:
            for n in range(24):
                with pytest.raises((errors.InvalidData, ZeroDivisionError)):
                    async with entered(subject.session(transaction=n % 2 == 0)) as session:
                        if n % 3 == 0:
                            await session.sql("select 1 / 0")
                        raise ZeroDivisionError
            busy = await db.outside(
                "select state, query from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and state like 'idle in transaction%%'"
                " and %(x)s::integer = 1",
                x=1,
            )
            assert list(busy) == []

    @behaviour(6, 7, ways="own")
    async def test_foreign_pools_full_of_dead_connections(
        self, db: Subject, pool_kind: str
    ) -> None:
        """Connections that the server ended are replaced before a statement is sent."""
        async with entered(_pools(db)[pool_kind](db.dsn)) as owned, _lent(db, owned) as subject:
            await fill_pool(subject, 3)
            await terminate_all(db)
            for n in range(5):
                async with entered(subject.session(transaction=n % 2 == 0)) as session:
                    assert await session.value("select %(n)s::integer", n=n) == n

    @both_modes
    @behaviour(3, 6, 7, ways="own")
    async def test_foreign_pools_whose_connections_are_ended_in_use(
        self, db: Subject, pool_kind: str, transaction: bool
    ) -> None:
        """Each session ends with ConnectionLost, and its place in the pool is free again."""
        async with entered(_pools(db)[pool_kind](db.dsn)) as owned, _lent(db, owned) as subject:
            for n in range(8):  # more often than the pool has connections
                with pytest.raises(errors.ConnectionLost):
                    async with entered(subject.session(transaction=transaction)) as session:
                        await terminate(db, [await session.value("select pg_backend_pid()")])
                        await session.sql("select 1")
                assert await subject.value("select %(n)s::integer", n=n) == n


def _pools(db: Subject) -> Mapping[str, Opener[OwnedPool]]:
    assert isinstance(db.adapter, TakesPools)
    return db.adapter.pools()


@asynccontextmanager
async def _lent(db: Subject, owned: OwnedPool, dsn: str = "") -> AsyncIterator[Subject]:
    """A new connector, opened with the pool and closed at the end."""
    subject = db.another(db.adapter.connector(dsn or db.dsn))
    await subject.open(owned.pool)
    try:
        yield subject
    finally:
        await subject.close()


def _plain(rows: Any) -> list[tuple[str, Any]]:
    """Return what an owner gets: the type of each row, and what it holds, in whatever shape."""
    return [(type(row).__qualname__, repr(row)) for row in rows]
