"""Creating, migrating and checking procrastinate's tables."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from procrastinate import drive
from procrastinate.connector import AsyncConnector
from procrastinate.errors import SchemaNotApplied
from procrastinate.gateway import Gateway
from procrastinate.storage import distributing, importing, migrating
from procrastinate.storage import schema as flows
from procrastinate.threads import in_thread

LOOK_AGAIN = 0.1  # seconds, while another process migrates


class SchemaManager:
    """The schema of one app's database. Many processes may call any of this at once."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def apply_schema(self) -> list[str]:
        """Create the tables, or bring those that are there up to date.

        Returns the names of the migrations that it ran: none if all was done. "records" comes first
        if it wrote missing records of migrations. If it ran none, "settings" and "functions" say
        that these were made anew. New tables are made in one transaction. Each migration has
        its own, and those that read many rows have none, so that jobs are deferred and run
        meanwhile. What was interrupted goes on the next time. Migrations take two connections.
        Raises `SchemaError`, `InsufficientPrivilege`.
        """
        return self._migrate(create=True)

    async def apply_schema_async(self) -> list[str]:
        """Create the tables, or bring them up to date; see `apply_schema`."""
        return await self._migrate_async(create=True)

    def migrate(self) -> list[str]:
        """Run the migrations that existing tables lack; see `apply_schema`.

        Raises `SchemaNotApplied` where there are no tables.
        """
        return self._migrate(create=False)

    async def migrate_async(self) -> list[str]:
        """Run the migrations that existing tables lack; see `migrate`."""
        return await self._migrate_async(create=False)

    def distribute(self) -> distributing.Distribution:
        """Distribute the jobs over the nodes of a Citus cluster, in 64 partitions, for good.

        That is one transaction, for which all who defer have to wait: some seconds for a million
        jobs. No worker may live. The connector must lead to the cluster's coordinator, with the
        role that owns the tables. If it was done before, nothing is changed. Raises `SchemaError`
        if it cannot be done; then nothing was changed either.
        """
        while True:
            with self._gateway.held(self._begin(create=False)) as begun:
                if begun.is_locked:
                    return self._know(drive.run_steps(distributing.distribute(), self._run))
            time.sleep(LOOK_AGAIN)

    async def distribute_async(self) -> distributing.Distribution:
        """Distribute the jobs over the nodes of a Citus cluster; see `distribute`."""
        if not isinstance(self._gateway.connector, AsyncConnector):
            return await in_thread(self.distribute)
        while True:
            async with self._gateway.held_async(self._begin(create=False)) as begun:
                if begun.is_locked:
                    steps = distributing.distribute()
                    return self._know(await drive.run_steps_async(steps, self._run_async))
            await asyncio.sleep(LOOK_AGAIN)

    def prepare_import(self, from_schema: str = "public") -> int:
        """Let the ids of new jobs begin above those of an old release's tables; return that id.

        For the time in which both releases defer jobs: with it, old jobs can keep their ids when
        they are imported. Does nothing if they are above already. Raises `SchemaError`.
        """
        return drive.run_steps(importing.prepare(from_schema), self._run)

    async def prepare_import_async(self, from_schema: str = "public") -> int:
        """Let the ids of new jobs begin above the old ones; see `prepare_import`."""
        if not isinstance(self._gateway.connector, AsyncConnector):
            return await in_thread(lambda: self.prepare_import(from_schema))
        return await drive.run_steps_async(importing.prepare(from_schema), self._run_async)

    def import_jobs(
        self,
        from_schema: str = "public",
        *,
        history: bool = False,
        leave_running: bool = False,
        dry_run: bool = False,
    ) -> importing.Imported:
        """Take over the jobs that wait in the tables of a release from 0.33 to 3.x.

        They are in another schema of the same database. Jobs keep their ids; the old tables keep
        all rows, and those that were taken are ``cancelled`` there. The marks of schedules are
        copied, and with ``history`` jobs that have ended. It is one transaction, and can be done
        again. With ``dry_run`` nothing is changed. Raises `SchemaError` if it cannot be done, also
        if jobs run there, unless these are to be left behind (``leave_running``).
        """
        options = {"history": history, "leave_running": leave_running, "dry_run": dry_run}
        return drive.run_steps(importing.import_jobs(from_schema, **options), self._run)

    async def import_jobs_async(
        self,
        from_schema: str = "public",
        *,
        history: bool = False,
        leave_running: bool = False,
        dry_run: bool = False,
    ) -> importing.Imported:
        """Take over the jobs of an old release; see `import_jobs`."""
        options = {"history": history, "leave_running": leave_running, "dry_run": dry_run}
        if not isinstance(self._gateway.connector, AsyncConnector):
            return await in_thread(lambda: self.import_jobs(from_schema, **options))
        steps = importing.import_jobs(from_schema, **options)
        return await drive.run_steps_async(steps, self._run_async)

    def _know(self, done: distributing.Distribution) -> distributing.Distribution:
        self._gateway.learn(done.partitions)
        return done

    def check(self) -> flows.SchemaState:
        """Return the schema's state if it fits this code, or raise a `SchemaError`.

        It also raises if a check or an index is missing, without which a worker goes on.
        """
        return self._gateway.run(flows.check_schema(whole=True))

    async def check_async(self) -> flows.SchemaState:
        """Return the schema's state if it fits this code; see `check`."""
        return await self._gateway.run_async(flows.check_schema(whole=True))

    def check_connection(self) -> bool:
        """Whether the tables are there; raises a `SchemaError` if this code cannot use them."""
        try:
            self._gateway.run(flows.check_schema())
        except SchemaNotApplied:
            return False
        return True

    async def check_connection_async(self) -> bool:
        """Whether the tables are there; raises a `SchemaError` if this code cannot use them."""
        try:
            await self._gateway.run_async(flows.check_schema())
        except SchemaNotApplied:
            return False
        return True

    def get_schema(self) -> str:
        """Return the whole current schema as an SQL script."""
        return flows.current_schema_sql(self._gateway.connector.schema)

    @staticmethod
    def get_migrations_path() -> Path:
        """Return the folder of the migrations, numbered SQL files."""
        return Path(flows.__file__).parent / "migrations"

    def _migrate(self, *, create: bool) -> list[str]:
        if self._is_done(self._gateway.run(flows.schema_state())):
            return []
        while True:
            with self._gateway.held(self._begin(create)) as begun:
                if begun.created is not None:
                    return _names(begun.created)
                if begun.is_locked:
                    return _names(drive.run_steps(migrating.migrate(), self._run))
            time.sleep(LOOK_AGAIN)

    async def _migrate_async(self, *, create: bool) -> list[str]:
        if not isinstance(self._gateway.connector, AsyncConnector):
            return await in_thread(lambda: self._migrate(create=create))
        if self._is_done(await self._gateway.run_async(flows.schema_state())):
            return []
        while True:
            async with self._gateway.held_async(self._begin(create)) as begun:
                if begun.created is not None:
                    return _names(begun.created)
                if begun.is_locked:
                    steps = migrating.migrate()
                    return _names(await drive.run_steps_async(steps, self._run_async))
            await asyncio.sleep(LOOK_AGAIN)

    @staticmethod
    def _is_done(state: flows.SchemaState) -> bool:
        return flows.problem_with(state) is None

    def _begin(self, create: bool) -> drive.Flow[migrating.Begun]:
        return migrating.begin(schema=self._gateway.connector.schema, create=create)

    def _run(self, step: drive.Step) -> Any:
        return self._gateway.run(step.flow, transaction=step.transaction)

    async def _run_async(self, step: drive.Step) -> Any:
        return await self._gateway.run_async(step.flow, transaction=step.transaction)


def _names(migrations: list[flows.Migration]) -> list[str]:
    return [migration.title for migration in migrations]
