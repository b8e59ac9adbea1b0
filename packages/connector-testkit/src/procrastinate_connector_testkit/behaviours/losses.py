"""Connections that cannot be made, and connections that break."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import pytest

from procrastinate import errors
from procrastinate.connector import Connector
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import both_modes, check_cause
from procrastinate_connector_testkit.behaviours.sessions import scratch, stored
from procrastinate_connector_testkit.databases import dsn_for
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject

SECRET = "s3cr3t-kit-pa55word"


async def terminate(db: Subject, pids: Sequence[int]) -> None:
    """End server processes, and wait until they are gone."""
    await db.outside(
        "select pg_terminate_backend(pid, 30000) from unnest(%(pids)s::integer[]) as pid",
        pids=list(pids),
    )


async def terminate_all(db: Subject) -> int:
    """End all connections to the database but the referee's own; return how many there were."""
    rows = await db.outside(
        "select pg_terminate_backend(pid, 30000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    return len(rows)


async def fill_pool(db: Subject, count: int = 2) -> set[int]:
    """Use some connections at the same time, so that the pool holds them; return their pids.

    Two is what every connector has, also one that serves plain code by an event loop in a thread.
    """
    pids: set[int] = set()

    async def use(own: int) -> None:
        async with entered(db.session()) as session:
            pids.add(await session.value("select pg_backend_pid()"))
            entrances[own].set()
            for entrance in entrances:
                await entrance.wait()

    entrances = [db.signal() for _ in range(count)]
    await db.together(*(use(own) for own in range(count)))
    return pids


async def connect(db: Subject, connector: Connector, dsn: str) -> None:
    subject = db.another(connector, dsn)
    await subject.open()
    await subject.value("select 1")


class Losses:
    """The way to the server."""

    @pytest.mark.parametrize("problem", ["no server", "no database", "no role", "no socket"])
    @behaviour(6)
    async def test_connecting_in_vain_is_connection_failed(self, db: Subject, problem: str) -> None:
        dsn = {
            "no server": f"postgresql://kit:{SECRET}@127.0.0.1:1/kit?connect_timeout=3",
            "no database": dsn_for(db.dsn, "procrastinate_testkit_missing"),
            "no role": _with_role(db.dsn, "procrastinate_testkit_missing"),
            "no socket": f"postgresql://kit:{SECRET}@/kit?host=/nonexistent-kit&connect_timeout=3",
        }[problem]
        with pytest.raises(errors.ConnectionFailed) as caught:
            await connect(db, db.adapter.connector(dsn), dsn)
        check_cause(caught.value)
        shown = "".join(traceback.format_exception(caught.value, limit=0)) + repr(caught.value)
        assert SECRET not in shown, "the password is shown"

    @both_modes
    @behaviour(6)
    async def test_losing_the_connection_in_a_statement(
        self, db: Subject, transaction: bool
    ) -> None:
        """The statement ends with ConnectionLost, and the next session works at once."""

        async def sleep() -> errors.ConnectionLost:
            with pytest.raises(errors.ConnectionLost) as caught:
                async with entered(db.session(transaction=transaction)) as session:
                    await session.sql("select pg_sleep(4.5)")
            return caught.value

        async def kill() -> None:
            sql = (
                "select pg_terminate_backend(pid, 30000) from pg_stat_activity"
                " where datname = current_database() and state = 'active'"
                " and query like '%pg_sleep(4.5)%' and pid <> pg_backend_pid()"
            )
            await db.eventually("the statement runs", lambda: db.outside(sql))

        lost, _ = await db.together(sleep(), kill())
        assert lost is not None
        check_cause(lost)
        assert await db.value("select 1") == 1

    @both_modes
    @behaviour(6, 7)
    async def test_losing_the_connection_between_statements(
        self, db: Subject, transaction: bool
    ) -> None:
        """A session does not reconnect; the next session works at once."""
        await scratch(db)
        with pytest.raises(errors.ConnectionLost) as caught:
            async with entered(db.session(transaction=transaction)) as session:
                await terminate(db, [await session.value("select pg_backend_pid()")])
                await session.sql("insert into kit_rows values (1)")
        check_cause(caught.value)
        assert await stored(db) == []
        assert await db.value("select 1") == 1

    @behaviour(6, 7)
    async def test_losing_the_connection_before_the_commit(self, db: Subject) -> None:
        """A block whose COMMIT did not get through does not end as if it had."""
        await scratch(db)
        with pytest.raises(errors.ConnectionLost):
            async with entered(db.session(transaction=True)) as session:
                await session.sql("insert into kit_rows values (1)")
                await terminate(db, [await session.value("select pg_backend_pid()")])
        assert await stored(db) == []
        assert await db.value("select 1") == 1

    @behaviour(3, 6)
    async def test_losing_the_connection_at_once_is_no_commit(self, db: Subject) -> None:
        """A block that goes on after its first statement was lost does not end as if committed."""
        with pytest.raises(errors.ConnectorException):
            async with entered(db.session(transaction=True)) as session:
                with pytest.raises(errors.ConnectionLost):
                    await session.sql("select pg_terminate_backend(pg_backend_pid())")
        assert await db.value("select 1") == 1

    @behaviour(3, 6)
    async def test_losing_the_connection_does_not_hide_the_caller_s_exception(
        self, db: Subject
    ) -> None:
        """Where the rollback fails, what the block raised still comes out."""
        with pytest.raises(ZeroDivisionError):
            async with entered(db.session(transaction=True)) as session:
                await terminate(db, [await session.value("select pg_backend_pid()")])
                raise ZeroDivisionError
        assert await db.value("select 1") == 1

    @both_modes
    @behaviour(6, 7)
    async def test_dead_connections_are_replaced_before_use(
        self, db: Subject, transaction: bool
    ) -> None:
        """All idle connections ended by the server: no session notices."""
        before = await fill_pool(db)
        await terminate_all(db)
        for n in range(len(before) + 2):
            async with entered(db.session(transaction=transaction)) as session:
                assert await session.value("select %(n)s::integer", n=n) == n
        assert not before & await fill_pool(db)


def _with_role(dsn: str, role: str) -> str:
    if "://" not in dsn:
        return f"{dsn} user={role} password={SECRET}"
    scheme, _, rest = dsn.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{role}:{SECRET}@{authority.rpartition('@')[2]}{slash}{path}"
