"""Errors of the server: the right class, the SQLSTATE, the constraint, and the driver's cause."""

from __future__ import annotations

import pytest

from procrastinate import errors
from procrastinate.errors import ConnectorException
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.databases import other_database
from procrastinate_connector_testkit.driving import entered
from procrastinate_connector_testkit.subject import Subject

both_modes = pytest.mark.parametrize(
    "transaction", [False, True], ids=["autocommit", "transaction"]
)


def check_cause(error: BaseException) -> None:
    """Assert that an error was raised from the driver's own."""
    cause = error.__cause__
    assert cause is not None, f"{error!r} has no cause: raise it from the driver's exception"
    assert not isinstance(cause, errors.ProcrastinateException), f"{cause!r} is not the driver's"


async def error_of(db: Subject, sql: str, *, transaction: bool = False) -> ConnectorException:
    """Return the error that a statement ends with; the connector must be usable afterwards."""
    with pytest.raises(ConnectorException) as caught:
        async with entered(db.session(transaction=transaction)) as session:
            await session.sql(sql)
    check_cause(caught.value)
    assert await db.value("select 1") == 1
    return caught.value


def raising(sqlstate: str, *, message: str = "message", constraint: str = "") -> str:
    """Return SQL that raises an error of the user's own."""
    named = f", constraint = '{constraint}'" if constraint else ""
    return (
        "do $$ begin raise exception using"
        f" errcode = '{sqlstate}', message = '{message}'{named}; end $$"
    )


class Errors:
    """What the server refuses."""

    @both_modes
    @behaviour(6)
    async def test_errors_unique_violation_names_the_constraint(
        self, db: Subject, transaction: bool
    ) -> None:
        await db.outside(
            "drop table if exists kit_unique;"
            " create table kit_unique (x integer constraint kit_unique_x unique);"
            " insert into kit_unique values (1)"
        )
        error = await error_of(db, "insert into kit_unique values (1)", transaction=transaction)
        assert type(error) is errors.UniqueViolation
        assert (error.sqlstate, error.constraint) == ("23505", "kit_unique_x")

    @behaviour(6)
    async def test_errors_constraint_names_may_be_strange(self, db: Subject) -> None:
        """Names with quotes, spaces and other alphabets arrive as they are."""
        name = 'Ключ "a" b%'
        quoted = name.replace('"', '""')
        await db.outside(
            "drop table if exists kit_strange;"
            f' create table kit_strange (x integer constraint "{quoted}" unique);'
            " insert into kit_strange values (1)"
        )
        error = await error_of(db, "insert into kit_strange values (1)")
        assert (type(error), error.constraint) == (errors.UniqueViolation, name)

    @behaviour(6)
    async def test_errors_do_not_depend_on_the_language(self, db: Subject) -> None:
        """Neither on what a message says nor on the language in which the server says it."""
        prose = 'doppelter Schluessel verletzt «constraint» "falsch"'
        error = await error_of(db, raising("23505", message=prose, constraint="kit_richtig"))
        assert (type(error), error.constraint) == (errors.UniqueViolation, "kit_richtig")
        misleading = 'duplicate key value violates unique constraint "kit_wrong"'
        error = await error_of(db, raising("PX001", message=misleading))
        assert (type(error), error.constraint) == (ConnectorException, None)

    @behaviour(6)
    async def test_errors_of_a_server_that_speaks_another_language(self, db: Subject) -> None:
        """With every language of the server's among these; plain C at the least."""
        await db.outside(
            "drop table if exists kit_lang;"
            " create table kit_lang (x integer constraint kit_lang_x unique);"
            " insert into kit_lang values (1)"
        )
        for language in ("C", "de_DE.UTF-8", "fr_FR.UTF-8", "ru_RU.UTF-8", "ja_JP.UTF-8"):
            script = f"set local lc_messages = '{language}'; insert into kit_lang values (1)"
            error = await error_of(db, script)
            if error.sqlstate != "22023":  # the server does not have this language
                assert (type(error), error.constraint) == (errors.UniqueViolation, "kit_lang_x")

    @pytest.mark.parametrize(
        "sql,kind,sqlstate",
        [
            ("select * from kit_missing", errors.SchemaNotApplied, "42P01"),
            ("select kit_missing()", errors.SchemaNotApplied, "42883"),
            ("select * from kit_missing.jobs", errors.SchemaNotApplied, "42P01"),
            ("select kit_missing from pg_class", errors.SchemaOutdated, "42703"),
            ("select 'x'::text::integer", errors.InvalidData, "22P02"),
            ("select 99999999999::bigint::integer", errors.InvalidData, "22003"),
            ("select 1 / 0", errors.InvalidData, "22012"),
            ("select '{'::jsonb", errors.InvalidData, "22P02"),
            ("syntax error", ConnectorException, "42601"),
            (raising("40001"), ConnectorException, "40001"),
            (raising("40P01"), ConnectorException, "40P01"),
            (raising("PX001"), ConnectorException, "PX001"),
            (raising("08006"), errors.PartitionAway, "08006"),
            (raising("57P01"), errors.PartitionAway, "57P01"),
        ],
        ids=lambda value: value if isinstance(value, str) and len(value) == 5 else "",
    )
    @both_modes
    @behaviour(6)
    async def test_errors_by_sqlstate(
        self,
        db: Subject,
        transaction: bool,
        sql: str,
        kind: type[ConnectorException],
        sqlstate: str,
    ) -> None:
        """Each SQLSTATE has the class that ``database_error`` gives it, and is kept."""
        error = await error_of(db, sql, transaction=transaction)
        assert (type(error), error.sqlstate) == (kind, sqlstate)

    @behaviour(6)
    async def test_errors_missing_privilege(self, db: Subject) -> None:
        """The role exists only inside the transaction that fails."""
        await db.outside("create table if not exists kit_private (x integer)")
        name = "procrastinate_testkit_nobody"
        script = f"create role {name}; set local role {name}; select * from kit_private"
        error = await error_of(db, script, transaction=True)
        assert (type(error), error.sqlstate) == (errors.InsufficientPrivilege, "42501")

    @behaviour(3, 6)
    async def test_errors_at_commit_are_raised(self, db: Subject) -> None:
        """A constraint that is checked at the end of the transaction fails the block."""
        await db.outside(
            "drop table if exists kit_deferred;"
            " create table kit_deferred (x integer constraint kit_deferred_x"
            " unique deferrable initially deferred)"
        )
        error = await error_of(db, "insert into kit_deferred values (1), (1)", transaction=True)
        assert (type(error), error.constraint) == (errors.UniqueViolation, "kit_deferred_x")
        assert list(await db.outside("select * from kit_deferred")) == []

    @both_modes
    @behaviour(6)
    async def test_errors_statement_timeout_is_query_canceled(
        self, db: Subject, transaction: bool
    ) -> None:
        async with other_database(db, {"statement_timeout": "500ms"}) as there:
            error = await error_of(there, "select pg_sleep(5)", transaction=transaction)
        assert (type(error), error.sqlstate) == (errors.QueryCanceled, "57014")

    @behaviour(6)
    async def test_errors_cancelled_by_somebody_is_query_canceled(self, db: Subject) -> None:
        async def somebody() -> None:
            cancel = (
                "select pg_cancel_backend(pid) from pg_stat_activity"
                " where datname = current_database() and state = 'active'"
                " and query like '%pg_sleep(5.5)%' and pid <> pg_backend_pid()"
            )
            await db.eventually("the statement runs", lambda: db.outside(cancel))

        error, _ = await db.together(error_of(db, "select pg_sleep(5.5)"), somebody())
        assert type(error) is errors.QueryCanceled

    @behaviour(6)
    async def test_errors_have_the_driver_s_exception_as_cause(self, db: Subject) -> None:
        error = await error_of(db, "select 1 / 0")
        check_cause(error)
        assert "zero" in str(error) or error.sqlstate == "22012"
