"""Binders: queries inside the caller's own transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import pytest

from procrastinate import errors
from procrastinate.model.job import NewJob
from procrastinate.storage import defer
from procrastinate_connector_testkit.adapter import Binds, OwnedConnection
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import check_cause
from procrastinate_connector_testkit.behaviours.pools import _plain
from procrastinate_connector_testkit.behaviours.sessions import scratch, stored
from procrastinate_connector_testkit.driving import called, entered
from procrastinate_connector_testkit.queue import Queue
from procrastinate_connector_testkit.subject import Subject


@asynccontextmanager
async def caller(db: Subject, kind: str) -> AsyncIterator[OwnedConnection]:
    """The caller with a connection of theirs."""
    assert isinstance(db.adapter, Binds)
    async with entered(db.adapter.connections()[kind](db.dsn)) as owned:
        yield owned


class Raising:
    """A proxy without a target, which raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no target to ask for {name}")


class BindQueue:
    """What holds for any queue, also for one without SQL."""

    @behaviour(4, ways="own")
    async def test_bind_refuses_what_is_no_connection(
        self, db: Subject, connection_kind: str
    ) -> None:
        async with caller(db, connection_kind) as owned:
            binder = db.binder(owned.connection)
            strangers = (object(), None, "postgresql://", 7, mock.call, mock.MagicMock(), Raising())
            for thing in strangers:
                with pytest.raises(errors.InvalidOption):
                    db.bind(thing, binder)

    @behaviour("Binder.words", ways="own")
    async def test_bind_is_announced_in_words(self, db: Subject, connection_kind: str) -> None:
        async with caller(db, connection_kind) as owned:
            binder = db.binder(owned.connection)
            assert isinstance(binder.words, str)
            assert binder.words

    @behaviour(4, ways="own")
    async def test_bind_defers_with_the_caller_s_transaction(
        self, db: Subject, queue: Queue, connection_kind: str
    ) -> None:
        """A job is there for others when the caller commits, and never when they roll back."""
        async with caller(db, connection_kind) as owned:
            bound = db.bind(owned.connection)
            await bound.flow(queue.defer_flow("undone"))
            assert await queue.ids() == []
            await called(owned.rollback)
            assert await queue.ids() == []
            job_id = await db.bind(owned.connection).flow(queue.defer_flow("done"))
            assert await queue.ids() == []
            await called(owned.commit)
            assert await queue.ids() == [job_id]

    @behaviour(4, ways="own")
    async def test_bind_survives_already_enqueued(
        self, db: Subject, queue: Queue, connection_kind: str
    ) -> None:
        """The caller's transaction goes on after a clash of queueing locks."""
        await queue.defer(queueing_lock="q")
        async with caller(db, connection_kind) as owned:
            bound = db.bind(owned.connection)
            with pytest.raises(errors.AlreadyEnqueued):
                await bound.flow(queue.defer_flow(queueing_lock="q"))
            await bound.flow(queue.defer_flow(queue="other"))
            await called(owned.commit)
        assert await queue.ready_queues() == ["default", "other"]

    @behaviour(4, ways="own")
    async def test_bind_keeps_nothing_of_a_large_batch_that_is_refused(
        self,
        db: Subject,
        queue: Queue,
        connection_kind: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Also of the statements before; what the caller did before and after stays."""
        monkeypatch.setattr(defer, "ROWS_PER_STATEMENT", 2)
        await queue.defer()
        new = [NewJob(name) for name in "abcd"] + [NewJob("e", args='{"x": "\\u0000"}')]
        async with caller(db, connection_kind) as owned:
            bound = db.bind(owned.connection)
            await bound.flow(queue.defer_flow("before"))
            with pytest.raises(errors.InvalidArguments):
                await bound.flow(queue.defer_all_flow(*new))
            await bound.flow(queue.defer_flow("after"))
            await called(owned.commit)
        assert await queue.task_names() == ["task", "before", "after"]

    @behaviour(4, ways="own")
    async def test_bind_survives_a_large_batch(
        self,
        db: Subject,
        queue: Queue,
        connection_kind: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """All of it is part of the caller's transaction, and goes with it."""
        monkeypatch.setattr(defer, "ROWS_PER_STATEMENT", 2)
        new = [NewJob(name) for name in "abcde"]
        async with caller(db, connection_kind) as owned:
            await db.bind(owned.connection).flow(queue.defer_all_flow(*new))
            await called(owned.rollback)
            assert await queue.ids() == []
            ids = await db.bind(owned.connection).flow(queue.defer_all_flow(*new))
            await called(owned.commit)
        assert await queue.ids() == ids
        assert await queue.task_names() == list("abcde")


class Bind(BindQueue):
    """What holds for any SQL."""

    @behaviour(4, ways="own")
    async def test_bind_commit_and_rollback_are_the_caller_s(
        self, db: Subject, connection_kind: str
    ) -> None:
        await scratch(db)
        async with caller(db, connection_kind) as owned:
            await called(owned.query, "insert into kit_rows values (1)")
            bound = db.bind(owned.connection)
            await bound.sql("insert into kit_rows values (%(x)s::integer)", x=2)
            assert await bound.value("select count(*) from kit_rows") == 2
            assert await stored(db) == []
            await called(owned.commit)
            assert await stored(db) == [1, 2]
            await called(owned.query, "insert into kit_rows values (3)")
            await db.bind(owned.connection).sql("insert into kit_rows values (4)")
            await called(owned.rollback)
            assert await stored(db) == [1, 2]

    @behaviour(4, ways="own")
    async def test_bind_begins_nothing_by_itself(self, db: Subject, connection_kind: str) -> None:
        """Binding alone sends nothing, and does not end what the caller began."""
        async with caller(db, connection_kind) as owned:
            query = "select pg_current_xact_id()::text as id"
            before = _plain(await called(owned.query, query))
            bound = db.bind(owned.connection)
            await bound.sql("select 1")
            assert _plain(await called(owned.query, query)) == before
            await called(owned.rollback)

    @behaviour(2, 4, ways="own")
    async def test_bind_needs_and_changes_no_row_factory(
        self, db: Subject, connection_kind: str
    ) -> None:
        """Rows are tuples for core, and what they always were for their owner."""
        async with caller(db, connection_kind) as owned:
            query = "select 1 as one, 'a'::text as letter"
            before = _plain(await called(owned.query, query))
            state = await called(owned.state)
            rows = await db.bind(owned.connection).sql(query)
            assert all(isinstance(row, tuple) for row in rows)
            assert list(rows) == [(1, "a")]
            assert _plain(await called(owned.query, query)) == before
            assert await called(owned.state) == state
            await called(owned.rollback)

    @behaviour(1, 2, 4, ways="own")
    async def test_bind_takes_the_same_values(self, db: Subject, connection_kind: str) -> None:
        async with caller(db, connection_kind) as owned:
            bound = db.bind(owned.connection)
            sql = "select %(a)s::text, %(b)s::bigint[], %(c)s::text[], 10 %% 4"
            row = (await bound.sql(sql, a="%s :x 'é'", b=[1, None], c=[]))[0]
            assert row == ("%s :x 'é'", [1, None], [], 2)
            assert await bound.value("select '%'::text") == "%"
            await called(owned.rollback)

    @behaviour(2, 4, ways="own")
    async def test_bind_sends_no_other_text_in_another_encoding(
        self, db: Subject, connection_kind: str
    ) -> None:
        """A driver that does not notice that a statement changes the encoding is refused."""
        change = "select set_config('client_encoding', '{}', false)"
        async with caller(db, connection_kind) as owned:
            await called(owned.query, change.format("LATIN1"))
            said = "LATIN1"
            try:
                sent = await db.bind(owned.connection).value("select %(x)s::text = chr(233)", x="é")
            except errors.InvalidOption as exc:
                said, sent = str(exc), True
            assert (sent, "LATIN1" in said) == (True, True)
            await called(owned.query, change.format("UTF8"))
            sent = await db.bind(owned.connection).value("select %(x)s::text = chr(38634)", x="雪")
            assert sent is True
            await called(owned.rollback)

    @behaviour(4, 6, ways="own")
    async def test_bind_raises_errors_of_the_tree(self, db: Subject, connection_kind: str) -> None:
        """And leaves the rollback to the caller: a savepoint of theirs saves the transaction."""
        await scratch(db)
        async with caller(db, connection_kind) as owned:
            await called(owned.query, "insert into kit_rows values (1)")
            await called(owned.query, "savepoint kit")
            with pytest.raises(errors.InvalidData) as caught:
                await db.bind(owned.connection).sql("select 1 / 0")
            check_cause(caught.value)
            assert caught.value.sqlstate == "22012"
            await called(owned.query, "rollback to savepoint kit")
            await called(owned.commit)
        assert await stored(db) == [1]

    @behaviour(4, ways="own")
    async def test_bind_does_not_close_the_connection(
        self, db: Subject, connection_kind: str
    ) -> None:
        """It serves its owner after the connector was closed."""
        async with caller(db, connection_kind) as owned:
            before = _plain(await called(owned.query, "select pg_backend_pid() as pid"))
            await db.bind(owned.connection).sql("select 1")
            await called(owned.commit)
            await db.close()
            assert _plain(await called(owned.query, "select pg_backend_pid() as pid")) == before
            await called(owned.rollback)
