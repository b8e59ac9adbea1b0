"""Statements and rows: what is sent, and the shape in which the answer comes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from procrastinate.connector import Query
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject


class Results:
    """The text of a query, and its rows."""

    @behaviour(2)
    async def test_results_rows_are_tuples(self, db: Subject) -> None:
        """Also of columns that have the same name, or none."""
        rows = await db.sql("select 1, 'a'::text, 2 as x, 3 as x union all select 4, 'b', 5, 6")
        assert isinstance(rows, Sequence)
        assert all(isinstance(row, tuple) for row in rows), f"{rows!r} are not tuples"
        assert sorted(rows) == [(1, "a", 2, 3), (4, "b", 5, 6)]

    @behaviour(2)
    async def test_results_none_where_there_are_none(self, db: Subject) -> None:
        async with entered(db.session(transaction=True)) as session:
            assert list(await session.sql("create temp table kit_r (x int) on commit drop")) == []
            assert list(await session.sql("insert into kit_r values (1), (2)")) == []
            assert list(await session.sql("update kit_r set x = %(x)s::int", x=3)) == []
            assert list(await session.sql("select x from kit_r where false")) == []
            returned = await session.sql("delete from kit_r where x = %(x)s::int returning x", x=3)
            assert list(returned) == [(3,), (3,)]

    @behaviour(2)
    async def test_results_numbers_are_int_and_float(self, db: Subject) -> None:
        row = (await db.sql("select 1::smallint, 2::bigint, count(*), 0.5::real, 1.5::numeric"))[0]
        assert row == (1, 2, 1, 0.5, 1.5)
        assert [type(value) for value in row] == [int, int, int, float, float]

    @behaviour(2)
    async def test_results_texts_are_str(self, db: Subject) -> None:
        row = (await db.sql("select 'a'::text, 'b'::varchar(9), 'c'::name, 'd'::char(2)"))[0]
        assert row == ("a", "b", "c", "d ")
        assert all(type(value) is str for value in row)

    @behaviour(2)
    async def test_results_moments_are_aware(self, db: Subject) -> None:
        moment = await db.value("select statement_timestamp()")
        assert isinstance(moment, datetime)
        assert moment.utcoffset() is not None, f"{moment!r} has no time zone"

    @behaviour(2)
    async def test_results_arrays_are_lists(self, db: Subject) -> None:
        rows = await db.sql("select array[1, null], array['a', null], '{}'::bigint[], array[true]")
        assert list(rows) == [([1, None], ["a", None], [], [True])]

    @behaviour(2)
    async def test_results_many_rows_come_in_order(self, db: Subject) -> None:
        rows = await db.sql("select n from generate_series(1, 20000) as n order by n")
        assert list(rows) == [(n,) for n in range(1, 20001)]

    @behaviour(1)
    async def test_statements_percent_means_itself_without_parameters(self, db: Subject) -> None:
        sql = "select 10 % 4, '%'::text, '%%'::text, '%s'::text, '%(x)s'::text"
        assert list(await db.sql(sql)) == [(2, "%", "%%", "%s", "%(x)s")]

    @behaviour(1)
    async def test_statements_percent_is_doubled_beside_parameters(self, db: Subject) -> None:
        sql = "select %(x)s::integer %% 4, '%%'::text, '%%%%'::text"
        assert list(await db.sql(sql, x=10)) == [(2, "%", "%%")]

    @behaviour(1)
    async def test_statements_hold_what_other_drivers_take_for_placeholders(
        self, db: Subject
    ) -> None:
        sql = "select ':a'::text, '?'::text, '$1'::text, '{a}'::text, '@a'::text, '\\:a'::text"
        expected = [(":a", "?", "$1", "{a}", "@a", "\\:a")]
        assert list(await db.sql(sql)) == expected
        assert list(await db.sql(f"{sql}, %(x)s::integer", x=1)) == [(*expected[0], 1)]

    @behaviour(1)
    async def test_statements_may_repeat_a_parameter(self, db: Subject) -> None:
        sql = "select %(x)s::integer + %(x)s::integer, %(y)s::text, %(x)s::bigint"
        assert list(await db.sql(sql, y="y", x=2)) == [(4, "y", 2)]

    @behaviour(1)
    async def test_statements_without_parameters_may_be_several(self, db: Subject) -> None:
        """A script, as migrations are: with semicolons, percent signs and bodies of functions."""
        script = """
            create function pg_temp.kit_remainder(a integer) returns integer language plpgsql as $$
            begin
                -- a comment; with a semicolon and 100%
                return a % 4;
            end
            $$;
            create temp table kit_script on commit drop as select pg_temp.kit_remainder(10) as x;
            insert into kit_script values (%s);
        """.replace("%s", "7")
        async with entered(db.session(transaction=True)) as session:
            await session.sql(script)
            rows = await session.sql("select x from kit_script order by x")
            await session.sql("drop function pg_temp.kit_remainder(integer)")
        assert list(rows) == [(2,), (7,)]

    @behaviour(7)
    async def test_statements_run_exactly_once(self, db: Subject) -> None:
        await db.outside("create sequence if not exists kit_once; alter sequence kit_once restart")
        async with entered(db.session()) as session:
            counts = [await session.value("select nextval('kit_once')") for _ in range(5)]
        async with entered(db.session(transaction=True)) as session:
            query = "select nextval('kit_once') + %(x)s::integer"
            counts += [await session.value(query, x=0) for _ in range(5)]
        assert counts == list(range(1, 11))

    @behaviour(1)
    async def test_statements_with_numbers_for_other_drivers(self, db: Subject) -> None:
        """``Query.numbered`` says the same with ``$1``: checked by preparing it on the server."""
        query = Query("kit", "select %(a)s::int %% 7, %(b)s::text, %(a)s::int", {"b": "x", "a": 9})
        sql, values = query.numbered()
        assert values == [9, "x"]
        async with entered(db.session(transaction=True)) as session:
            await session.sql(f"prepare kit_numbered as {sql}")
            rows = await session.sql("execute kit_numbered(9, 'x')")
            await session.sql("deallocate kit_numbered")
        assert list(rows) == [(2, "x", 9)]

    @pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "transaction"])
    @behaviour(2)
    async def test_results_of_one_query_stay_when_the_next_runs(
        self, db: Subject, transaction: bool
    ) -> None:
        async with entered(db.session(transaction=transaction)) as session:
            first = await session.sql("select 1")
            second = await session.sql("select 2")
        assert (list(first), list(second)) == ([(1,)], [(2,)])
