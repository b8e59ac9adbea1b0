"""Queries whose plan may be kept (rule 11), by connectors that do and by those that do not."""

from __future__ import annotations

import contextlib

import pytest

from procrastinate import errors
from procrastinate.connector import GENERIC, Query, Value
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.behaviours.errors import both_modes
from procrastinate_connector_testkit.databases import other_database
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject

TIMES = 12  # more than any driver waits for before it prepares a statement


def kept(sql: str, **params: Value) -> Query:
    return Query("testkit", sql, params, {"plan_cache_mode": GENERIC})


class Plans:
    """Whether a plan is kept makes no difference to the caller."""

    @both_modes
    @behaviour(11)
    async def test_plans_that_are_kept_fit_all_values(self, db: Subject, transaction: bool) -> None:
        """In one session and in those after it; also beside the same text without a kept plan."""
        sql = "select %(n)s::integer, %(t)s::text, %(n)s::integer = any (%(ns)s::integer[])"
        for _ in range(2):
            async with entered(db.session(transaction=transaction)) as session:
                for n in range(TIMES):
                    values: dict[str, Value] = {"n": n, "t": f"it's {n}", "ns": [n]}
                    rows = [
                        *await session.execute(kept(sql, **values)),
                        *await session.execute(Query("testkit", sql, values)),
                    ]
                    assert rows == [(n, f"it's {n}", True)] * 2

    @behaviour(9, 11)
    async def test_plans_of_calls_run_with_their_settings_each_time(self, db: Subject) -> None:
        """Whatever the database says otherwise, and also if a transaction was rolled back."""
        sql = (
            "select concat(current_setting('transaction_isolation'), ' ', current_setting('jit'),"
            " %(n)s::integer)"
        )
        settings = {"jit": "off", "transaction_isolation": "read committed"}
        others = {"default_transaction_isolation": "serializable", "jit": "on"}
        async with other_database(db, others) as there:
            for n in range(TIMES):
                query = Query("testkit", sql, {"n": n}, settings)
                with contextlib.suppress(ZeroDivisionError):
                    async with entered(there.session(transaction=n % 3 == 1)) as session:
                        assert await session.execute(query) == [(f"read committed off{n}",)]
                        raise ZeroDivisionError

    @behaviour(11)
    async def test_plans_that_are_kept_go_on_after_an_error(self, db: Subject) -> None:
        """Of the server's, and of a value that cannot be sent."""
        async with entered(db.session()) as session:
            for n in range(TIMES):
                assert await session.execute(kept("select 12 / %(n)s::integer", n=n + 1))
                with pytest.raises(errors.InvalidData):
                    await session.execute(kept("select 12 / %(n)s::integer", n=0))
                with pytest.raises(errors.InvalidData):
                    await session.execute(kept("select %(t)s::text", t="\0"))

    @behaviour(11)
    async def test_plans_that_are_kept_follow_a_change_of_the_table(self, db: Subject) -> None:
        """A migration changes what a statement returns: at most one session has an error of it."""
        await db.outside(
            "drop table if exists kit_plans; create table kit_plans (x integer);"
            " insert into kit_plans values (1)"
        )
        query = kept("select * from kit_plans where x = %(x)s::integer", x=1)
        async with entered(db.session()) as session:
            for _ in range(TIMES):
                assert await session.execute(query) == [(1,)]
        await db.outside("alter table kit_plans add column y integer default 2")
        try:
            async with entered(db.session()) as session:
                assert await session.execute(query) == [(1, 2)]
        except errors.ConnectorException:
            pass
        for _ in range(3):
            async with entered(db.session()) as session:
                assert await session.execute(query) == [(1, 2)]
