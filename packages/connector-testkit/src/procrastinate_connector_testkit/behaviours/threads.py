"""Many users of one connector at the same time: threads, or tasks on a loop."""

from __future__ import annotations

from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.sessions import until_idle
from procrastinate_connector_testkit.subject import Subject, entered

USERS = 16
ROUNDS = 15


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
                    row = (await session.sql("select %(w)s::int, pg_backend_pid()", w=who))[0]
                    pids.add(row[1])
                    mine += row[0] == who
                    await session.sql("insert into kit_shared values (%(w)s::integer)", w=who)
            return mine

        right = await db.together(*(user(who) for who in range(USERS)))
        assert right == [ROUNDS] * USERS
        rows = await db.outside("select who, count(*) from kit_shared group by who order by who")
        assert list(rows) == [(who, ROUNDS) for who in range(USERS)]
        await until_idle(db, list(pids))
