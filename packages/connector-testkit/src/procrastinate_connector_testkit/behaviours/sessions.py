"""Sessions: one connection, one transaction or none, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest

from procrastinate import errors
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import both_modes
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject


class Interruption(BaseException):
    """What ends a block from outside, as KeyboardInterrupt does."""


async def scratch(db: Subject) -> None:
    """Make an empty table for the test."""
    await db.outside("create table if not exists kit_rows (x integer); truncate kit_rows")


async def stored(db: Subject) -> list[int]:
    """Return what another connection sees in the table."""
    return [row[0] for row in await db.outside("select x from kit_rows order by x")]


async def states(db: Subject, pids: list[int]) -> list[Any]:
    """Return the states of server processes that are anything but idle."""
    rows = await db.outside(
        "select state from pg_stat_activity where pid = any(%(pids)s::integer[])"
        " and state <> 'idle'",
        pids=pids,
    )
    return [row[0] for row in rows]


async def until_idle(db: Subject, pids: list[int]) -> None:
    """Wait until no transaction is open: the process of a closed connection ends a bit later."""

    async def idle() -> bool:
        return not await states(db, pids)

    await db.eventually("no transaction is left open", idle)


class Sessions:
    """Commit, rollback, and what the next session finds."""

    @behaviour(3)
    async def test_transactions_commit_when_the_block_ends(self, db: Subject) -> None:
        await scratch(db)
        async with entered(db.session(transaction=True)) as session:
            await session.sql("insert into kit_rows values (1)")
            await session.sql("insert into kit_rows values (%(x)s::integer)", x=2)
            assert await stored(db) == []
        assert await stored(db) == [1, 2]

    @pytest.mark.parametrize("error", [ZeroDivisionError, Interruption])
    @behaviour(3)
    async def test_transactions_roll_back_when_the_block_raises(
        self, db: Subject, error: type[BaseException]
    ) -> None:
        """Whatever it raises; and that exception is what comes out."""
        await scratch(db)
        raised = error("stop")
        with pytest.raises(error) as caught:
            async with entered(db.session(transaction=True)) as session:
                await session.sql("insert into kit_rows values (1)")
                raise raised
        assert caught.value is raised
        assert await stored(db) == []

    @behaviour(3)
    async def test_transactions_are_one(self, db: Subject) -> None:
        """All statements of the block see the same transaction on the same connection."""
        async with entered(db.session(transaction=True)) as session:
            query = "select pg_current_xact_id()::text, pg_backend_pid(), now()"
            seen = {tuple((await session.sql(query))[0]) for _ in range(3)}
        assert len(seen) == 1

    @behaviour(3)
    async def test_autocommit_commits_each_statement(self, db: Subject) -> None:
        await scratch(db)
        async with entered(db.session()) as session:
            await session.sql("insert into kit_rows values (1)")
            assert await stored(db) == [1]
            await session.sql("insert into kit_rows values (%(x)s::integer)", x=2)
            assert await stored(db) == [1, 2]

    @behaviour(3)
    async def test_autocommit_keeps_what_was_done_before_an_error(self, db: Subject) -> None:
        await scratch(db)
        with pytest.raises(ZeroDivisionError):
            async with entered(db.session()) as session:
                await session.sql("insert into kit_rows values (1)")
                raise ZeroDivisionError
        assert await stored(db) == [1]

    @behaviour(3)
    async def test_autocommit_goes_on_after_an_error(self, db: Subject) -> None:
        """An error of one statement spoils neither the ones before nor those after."""
        await scratch(db)
        async with entered(db.session()) as session:
            await session.sql("insert into kit_rows values (1)")
            with pytest.raises(errors.InvalidData):
                await session.sql("select 1 / 0")
            await session.sql("insert into kit_rows values (2)")
        assert await stored(db) == [1, 2]

    @behaviour(3)
    async def test_autocommit_is_one_connection_without_a_transaction(self, db: Subject) -> None:
        async with entered(db.session()) as session:
            seen = [
                (await session.sql("select pg_current_xact_id()::text, pg_backend_pid()"))[0]
                for _ in range(3)
            ]
            assert len({row[0] for row in seen}) == 3, "one transaction for several statements"
            assert len({row[1] for row in seen}) == 1, "several connections in one session"
            assert await states(db, [row[1] for row in seen]) == [], "a transaction was left open"

    @behaviour(3)
    async def test_autocommit_runs_what_refuses_a_transaction(self, db: Subject) -> None:
        await scratch(db)
        async with entered(db.session()) as session:
            assert list(await session.sql("vacuum kit_rows")) == []

    @behaviour(3)
    async def test_sessions_at_the_same_time_are_isolated(self, db: Subject) -> None:
        await scratch(db)
        async with (
            entered(db.session(transaction=True)) as one,
            entered(db.session(transaction=True)) as two,
        ):
            await one.sql("insert into kit_rows values (1)")
            assert await two.value("select count(*) from kit_rows") == 0
            pids = [await each.value("select pg_backend_pid()") for each in (one, two)]
        assert pids[0] != pids[1]
        assert await stored(db) == [1]

    @behaviour(3)
    async def test_transactions_refuse_statements_after_an_error(self, db: Subject) -> None:
        """Until the block ends, as PostgreSQL does; then all is undone and the next one works."""
        await scratch(db)
        with pytest.raises(errors.ConnectorException) as caught:
            async with entered(db.session(transaction=True)) as session:
                await session.sql("insert into kit_rows values (1)")
                with pytest.raises(errors.InvalidData):
                    await session.sql("select 1 / 0")
                await session.sql("insert into kit_rows values (2)")
        assert caught.value.sqlstate == "25P02"
        assert await stored(db) == []
        assert await db.value("select 1") == 1

    @behaviour(3)
    async def test_transactions_that_failed_do_not_end_as_if_committed(self, db: Subject) -> None:
        """PostgreSQL answers COMMIT with a rollback then; the block must not end in silence."""
        await scratch(db)
        with pytest.raises(errors.ConnectorException) as caught:
            async with entered(db.session(transaction=True)) as session:
                await session.sql("insert into kit_rows values (1)")
                with pytest.raises(errors.InvalidData):
                    await session.sql("select 1 / 0")
        assert not isinstance(caught.value, errors.ConnectionLost)
        assert await stored(db) == []
        assert await db.value("select 1") == 1

    @pytest.mark.parametrize("value", ["nonsense", "nul"])
    @behaviour(3)
    async def test_transactions_roll_back_also_when_their_first_statement_failed(
        self, db: Subject, value: str
    ) -> None:
        """In the parser, or before anything was sent: what follows is still one transaction."""
        await scratch(db)
        with pytest.raises((errors.ConnectorException, ZeroDivisionError)):
            async with entered(db.session(transaction=True)) as session:
                with pytest.raises(errors.ConnectorException):
                    if value == "nul":
                        await session.sql("select %(x)s::text", x="a\0b")
                    else:
                        await session.sql("nonsense")
                await session.sql("insert into kit_rows values (1)")
                raise ZeroDivisionError
        assert await stored(db) == []

    @behaviour(3)
    async def test_read_only_transactions_refuse_what_writes(self, db: Subject) -> None:
        """With the server's error; what reads before it works, and the next session may write."""
        await scratch(db)
        with pytest.raises(errors.ConnectorException) as caught:
            async with entered(db.session(transaction=True, read_only=True)) as session:
                assert await session.value("select count(*) from kit_rows") == 0
                assert await session.value("show transaction_read_only") == "on"
                await session.sql("insert into kit_rows values (1)")
        assert caught.value.sqlstate == "25006"
        async with entered(db.session(transaction=True)) as session:
            await session.sql("insert into kit_rows values (2)")
        await db.sql("insert into kit_rows values (3)")
        assert await stored(db) == [2, 3]

    @behaviour(3)
    async def test_read_only_transactions_leave_connections_writable(self, db: Subject) -> None:
        """After a good end, whichever connection is used next and in whichever mode."""
        await scratch(db)
        for turn in range(3):
            async with entered(db.session(transaction=True, read_only=True)) as session:
                assert await session.value("select count(*) from kit_rows") == turn
            async with entered(db.session(transaction=turn % 2 == 0)) as session:
                await session.sql("insert into kit_rows values (%(x)s::integer)", x=turn)
        assert await stored(db) == [0, 1, 2]

    @behaviour(3)
    async def test_savepoints_work_in_a_transaction(self, db: Subject) -> None:
        await scratch(db)
        async with entered(db.session(transaction=True)) as session:
            await session.sql("insert into kit_rows values (1)")
            await session.sql("savepoint kit")
            with pytest.raises(errors.InvalidData):
                await session.sql("select 1 / 0")
            await session.sql("rollback to savepoint kit")
            await session.sql("insert into kit_rows values (2)")
        assert await stored(db) == [1, 2]

    @both_modes
    @behaviour(3)
    async def test_sessions_leave_no_transaction_open(self, db: Subject, transaction: bool) -> None:
        """Neither after a good end nor after an error of the server's or of the caller's."""
        pids = []
        for sql in ("select 1", "select 1 / 0", "caller"):
            with pytest.raises((errors.InvalidData, ZeroDivisionError)):
                async with entered(db.session(transaction=transaction)) as session:
                    pids.append(await session.value("select pg_backend_pid()"))
                    if sql != "caller":
                        await session.sql(sql)
                    raise ZeroDivisionError
        async with entered(db.session(transaction=transaction)) as session:
            pids.append(await session.value("select pg_backend_pid()"))
        await until_idle(db, pids)

    @pytest.mark.parametrize(
        "change",
        [
            "select set_config('statement_timeout', '77s', true)",
            "set local statement_timeout = '77s'",
        ],
        ids=["set_config_local", "set_local"],
    )
    @both_modes
    @behaviour(3)
    async def test_sessions_leave_no_settings(
        self, db: Subject, transaction: bool, change: str
    ) -> None:
        async with entered(db.session(transaction=transaction)) as session:
            await session.sql(change)
        for _ in range(3):
            assert await db.value("select current_setting('statement_timeout')") != "77s"

    @both_modes
    @behaviour(3)
    async def test_sessions_leave_no_prepared_statements(
        self, db: Subject, transaction: bool
    ) -> None:
        """The driver makes none by itself, or under its own names or ours."""
        for _ in range(3):
            async with entered(db.session(transaction=transaction)) as session:
                for n in range(20):
                    await session.sql("select %(n)s::integer", n=n)
        for _ in range(3):
            names = await db.sql(
                "select name from pg_prepared_statements"
                " where name !~ '^(__asyncpg|procrastinate)_'"
            )
            assert list(names) == []

    @both_modes
    @behaviour(3)
    async def test_sessions_leave_no_transaction_locks(
        self, db: Subject, transaction: bool
    ) -> None:
        """An advisory lock of a transaction is free again when the transaction is over."""
        async with entered(db.session(transaction=transaction)) as session:
            await session.sql("select pg_advisory_xact_lock(77)")
            taken = await db.outside("select pg_try_advisory_xact_lock(77)")
            assert list(taken) == [(not transaction,)]
        assert list(await db.outside("select pg_try_advisory_xact_lock(77)")) == [(True,)]
