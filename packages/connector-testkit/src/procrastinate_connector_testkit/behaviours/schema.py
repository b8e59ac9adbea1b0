"""The schema through the connector: its migrations are scripts, and its errors have a meaning."""

from __future__ import annotations

import pytest

from procrastinate import errors
from procrastinate.storage import schema
from procrastinate_connector_testkit.behaviour import behaviour
from procrastinate_connector_testkit.databases import other_database
from procrastinate_connector_testkit.queue import Queue
from procrastinate_connector_testkit.subject import Subject

VERSIONS = [migration.version for migration in schema.migrations()]


class Schema:
    """On databases that have none yet."""

    @behaviour(1, "schema: applying it")
    async def test_schema_is_applied_once(self, db: Subject) -> None:
        """The second time there is nothing to do, and what is there stays."""
        async with other_database(db) as there:
            queue = Queue(there)
            assert await queue.migrate() == VERSIONS
            job_id = await queue.defer()
            assert await queue.migrate() == []
            assert await queue.ids() == [job_id]
            state = await queue.run(schema.check_schema())
            assert state.versions == tuple(VERSIONS)

    @behaviour(3, "schema: applying it")
    async def test_schema_is_applied_by_many_at_once(self, db: Subject) -> None:
        async with other_database(db) as there:
            applied = await db.together(*(Queue(there).migrate() for _ in range(4)))
            assert sorted(applied) == [[], [], [], VERSIONS]

    @behaviour(6, "schema: where it is missing")
    async def test_schema_that_is_missing_is_said(self, db: Subject) -> None:
        async with other_database(db) as there:
            queue = Queue(there)
            for work in (queue.ids(), queue.defer(), queue.migrate(create=False)):
                with pytest.raises(errors.SchemaNotApplied):
                    await work

    @behaviour("Connector.schema")
    async def test_schema_may_have_any_name(self, db: Subject) -> None:
        """The tables live in the schema that the connector was given."""
        async with other_database(db) as there:
            named = there.another(db.adapter.connector(there.dsn, schema="Kit schema é"))
            await named.open()
            queue = Queue(named)
            assert await queue.migrate() == VERSIONS
            job_id = await queue.defer()
            assert await queue.claimed_ids(await queue.worker()) == [job_id]
            tables = "select distinct schemaname from pg_tables where tablename like 'procrast%'"
            assert list(await there.sql(tables)) == [("Kit schema é",)]
            await named.close()
