"""Many users of one connector at the same time: threads, or tasks on a loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from procrastinate.connector import Query, Rows, SyncConnector
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.sessions import until_idle
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject, SyncSubject, synchronous

USERS = 16
ROUNDS = 15
#: Long enough for the others to find that all connections are in use.
IN_USE_FOR_A_WHILE = "select %(w)s::int, pg_backend_pid(), pg_sleep(0.003)"


STANDS_STILL = 10.0  # seconds until an event loop that does not turn is taken for held up


class Threads:
    """Sixteen users, more than a small pool has connections."""

    @behaviour("SyncConnector: threads may share it")
    async def test_threads_share_a_connector(self, db: Subject) -> None:
        """Each gets its own answers, each transaction is whole, and no connection is kept."""
        await db.outside("drop table if exists kit_shared; create table kit_shared (who integer)")
        pids: set[int] = set()

        async def user(who: int) -> int:
            mine = 0
            for n in range(ROUNDS):
                async with entered(db.session(transaction=n % 2 == 0)) as session:
                    row = (await session.sql(IN_USE_FOR_A_WHILE, w=who))[0]
                    pids.add(row[1])
                    mine += row[0] == who
                    await session.sql("insert into kit_shared values (%(w)s::integer)", w=who)
            return mine

        right = await db.together(*(user(who) for who in range(USERS)))
        assert right == [ROUNDS] * USERS
        rows = await db.outside("select who, count(*) from kit_shared group by who order by who")
        assert list(rows) == [(who, ROUNDS) for who in range(USERS)]
        await until_idle(db, list(pids))

    @behaviour("SyncConnector.call_async: it runs a function that blocks", ways="own")
    def test_calls_for_an_event_loop_do_not_hold_it_up(self, db: Subject) -> None:
        """The function uses the connector, and what it returns or raises comes back."""
        subject = SyncSubject(db.adapter, db.dsn, synchronous(db.adapter.connector(db.dsn)))
        subject.run(subject.open())
        try:
            assert asyncio.run(_called(subject.connector)) == [(1,)]
        finally:
            subject.run(subject.end())


async def _called(connector: SyncConnector) -> Rows:
    has_turned = threading.Event()

    def blocks() -> Rows:
        assert has_turned.wait(STANDS_STILL), "the event loop stood still"
        with connector.session() as session:
            return session.execute(Query("testkit", "select 1"))

    def raises() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await connector.call_async(raises)
    asyncio.get_running_loop().call_later(0.05, has_turned.set)
    return list(await connector.call_async(blocks))
