"""Sessions over connections to nowhere: what is sent, and what becomes of the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from procrastinate.connector import Rows
from procrastinate.connector_tools.sessions import AsyncSession, Session
from procrastinate.errors import ConnectionLost, ConnectorException, InvalidData

from .leases import QUERY, WRITE, AsyncLine, AsyncSource, SyncLine, SyncSource

LOST = ConnectionLost("gone")
FAILED = InvalidData("zero", sqlstate="22012")
STANDBY = ConnectionLost("standby", sqlstate="25006")


class Threaded:
    """A synchronous session used like an asynchronous one, so that a test is written once."""

    def __init__(self, session: Session[SyncLine]) -> None:
        self.session = session
        self.sever = session.sever

    async def execute(self, query: Any) -> Rows:
        return self.session.execute(query)

    async def __aenter__(self) -> Threaded:
        self.session.__enter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        self.session.__exit__(*raised)


class Form:
    """One of the two forms, with one connection."""

    def __init__(self, form: str, *answers: Any) -> None:
        self.form = form
        self.line: Any = (SyncLine if form == "sync" else AsyncLine)(*answers)
        self.source: Any = (SyncSource if form == "sync" else AsyncSource)(self.line)

    def session(self, **options: Any) -> Any:
        if self.form == "sync":
            return Threaded(Session(self.source, **options))
        return AsyncSession(self.source, **options)


Made = Callable[..., Form]


@pytest.fixture(params=["sync", "async"])
def form(request: pytest.FixtureRequest) -> Made:
    return lambda *answers: Form(request.param, *answers)


async def test_a_query_without_a_transaction_is_all_that_is_sent(form: Made) -> None:
    it = form("row")
    async with it.session() as session:
        assert await session.execute(QUERY) == [("row",)]
    assert it.line.sent == ["select 1"]
    assert it.source.events == ["kept"]


async def test_a_transaction_begins_with_its_first_query_and_is_committed(form: Made) -> None:
    it = form()
    async with it.session(transaction=True) as session:
        await session.execute(QUERY)
        await session.execute(WRITE)
    assert it.line.sent == ["BEGIN;select 1", "update", "COMMIT"]
    assert it.source.events == ["kept"]


async def test_a_transaction_without_queries_sends_nothing(form: Made) -> None:
    it = form()
    async with it.session(transaction=True):
        pass
    assert it.line.sent == []


async def test_a_read_only_transaction_says_so_with_begin(form: Made) -> None:
    it = form()
    async with it.session(transaction=True, read_only=True) as session:
        await session.execute(QUERY)
    assert it.line.sent == ["BEGIN READ ONLY;select 1", "COMMIT"]


async def test_the_time_to_wait_for_a_connection_is_passed_on(form: Made) -> None:
    it = form()
    for timeout in (None, 2.5):
        async with it.session(timeout=timeout):
            pass
    assert it.source.timeouts == [None, 2.5]


async def test_a_block_that_raises_rolls_back(form: Made) -> None:
    it = form()
    with pytest.raises(KeyError):
        async with it.session(transaction=True) as session:
            await session.execute(QUERY)
            raise KeyError
    assert it.line.sent == ["BEGIN;select 1", "ROLLBACK"]
    assert it.source.events == ["kept"]


async def test_a_commit_that_became_a_rollback_is_an_error(form: Made) -> None:
    it = form(FAILED, "ROLLBACK")
    with pytest.raises(ConnectorException) as caught:
        async with it.session(transaction=True) as session:
            with pytest.raises(InvalidData):
                await session.execute(QUERY)
    assert caught.value.sqlstate == "25P02"
    assert it.source.events == ["kept"]


async def test_a_commit_that_fails_is_an_error_and_rolled_back(form: Made) -> None:
    it = form("row", ConnectorException("deferred constraint", sqlstate="23503"))
    with pytest.raises(ConnectorException, match="deferred"):
        async with it.session(transaction=True) as session:
            await session.execute(QUERY)
    assert it.line.sent[-2:] == ["COMMIT", "ROLLBACK"]
    assert it.source.events == ["kept"]


async def test_a_commit_on_a_lost_connection_is_an_error(form: Made) -> None:
    it = form("row", LOST)
    with pytest.raises(ConnectionLost):
        async with it.session(transaction=True) as session:
            await session.execute(QUERY)
    assert it.line.sent[-1] == "COMMIT"
    assert it.source.events == ["discarded"]


async def test_a_rollback_that_fails_discards_the_connection(form: Made) -> None:
    it = form("row", ConnectorException("no"))
    with pytest.raises(KeyError):
        async with it.session(transaction=True) as session:
            await session.execute(QUERY)
            raise KeyError
    assert it.source.events == ["discarded"]


async def test_a_lost_connection_is_discarded_alone(form: Made) -> None:
    it = form(LOST)
    with pytest.raises(ConnectionLost):
        async with it.session() as session:
            await session.execute(QUERY)
    assert it.source.events == ["discarded"]


async def test_a_loss_that_the_block_swallows_is_no_commit(form: Made) -> None:
    it = form(LOST)
    with pytest.raises(ConnectionLost, match="gone"):
        async with it.session(transaction=True) as session:
            with pytest.raises(ConnectionLost):
                await session.execute(QUERY)
    assert it.line.sent == ["BEGIN;select 1"]
    assert it.source.events == ["discarded"]


async def test_a_standby_s_other_connections_are_closed_too(form: Made) -> None:
    it = form(STANDBY)
    with pytest.raises(ConnectionLost):
        async with it.session() as session:
            await session.execute(WRITE)
    assert it.source.events == ["idle closed", "discarded"]


async def test_a_write_in_a_read_only_session_says_nothing_of_the_server(form: Made) -> None:
    it = form(STANDBY)
    with pytest.raises(ConnectionLost):
        async with it.session(transaction=True, read_only=True) as session:
            await session.execute(WRITE)
    assert it.source.events == ["discarded"]


async def test_the_others_of_a_severed_connection_are_closed_too(form: Made) -> None:
    it = form(LOST)
    with pytest.raises(ConnectionLost):
        async with it.session() as session:
            session.sever()
            await session.execute(QUERY)
    assert it.line.sent == ["sever", "select 1"]
    assert it.source.events == ["idle closed", "discarded"]


async def test_a_severed_connection_is_not_given_back_whatever_it_looks_like(form: Made) -> None:
    it = form()
    async with it.session() as session:
        await session.execute(QUERY)
        session.sever()
    assert it.source.events == ["discarded"]


async def test_severing_does_nothing_after_the_end(form: Made) -> None:
    it = form()
    async with it.session() as session:
        pass
    session.sever()
    assert it.line.sent == []


async def test_a_commit_under_way_can_be_severed(form: Made) -> None:
    it = form()
    session = it.session(transaction=True)
    async with session:
        await session.execute(QUERY)
        taking = it.line.take

        def sever_first(sql: str) -> Any:
            session.sever()
            return taking(sql)

        it.line.take = sever_first
    assert it.line.sent == ["BEGIN;select 1", "sever", "COMMIT"]
    assert it.source.events == ["discarded"]


async def test_a_connection_with_something_under_way_is_discarded(form: Made) -> None:
    it = form()
    async with it.session() as session:
        await session.execute(QUERY)
        it.line.under_way = True
    assert it.source.events == ["discarded"]


async def test_no_query_after_the_end(form: Made) -> None:
    it = form()
    async with it.session() as session:
        pass
    with pytest.raises(ConnectorException, match="ask: this session has ended"):
        await session.execute(QUERY)


async def test_a_child_leaves_its_parent_s_connection_alone() -> None:
    it = Form("sync")
    async with it.session(transaction=True) as session:
        await session.execute(QUERY)
        it.source.inherited = True
    assert it.line.sent == ["BEGIN;select 1"]
    assert it.source.events == []


async def test_a_coroutine_that_is_closed_does_not_wait_for_a_rollback() -> None:
    it = Form("async")
    session = it.session(transaction=True)
    await session.__aenter__()
    await session.execute(QUERY)
    await session.__aexit__(GeneratorExit, GeneratorExit(), None)
    assert it.line.sent == ["BEGIN;select 1"]
    assert it.source.events == ["discarded"]
