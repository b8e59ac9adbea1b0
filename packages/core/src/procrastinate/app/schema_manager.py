"""Creating, migrating and checking procrastinate's tables."""

from __future__ import annotations

from pathlib import Path

from procrastinate.drive import Flow
from procrastinate.errors import SchemaNotApplied
from procrastinate.gateway import Gateway
from procrastinate.storage import schema as flows


class SchemaManager:
    """The schema of one app's database. Many processes may call any of this at once."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def apply_schema(self) -> list[str]:
        """Create the tables, or bring those that are there up to date.

        Returns the names of the migrations that it ran: none where all was done. Everything runs
        in one transaction. Raises `SchemaTooNew`, `InsufficientPrivilege`.
        """
        return _names(self._gateway.run(self._migrate(create=True), transaction=True))

    async def apply_schema_async(self) -> list[str]:
        """Create the tables, or bring them up to date; see `apply_schema`."""
        flow = self._migrate(create=True)
        return _names(await self._gateway.run_async(flow, transaction=True))

    def migrate(self) -> list[str]:
        """Run the migrations that existing tables lack; see `apply_schema`.

        Raises `SchemaNotApplied` where there are no tables.
        """
        return _names(self._gateway.run(self._migrate(create=False), transaction=True))

    async def migrate_async(self) -> list[str]:
        """Run the migrations that existing tables lack; see `migrate`."""
        flow = self._migrate(create=False)
        return _names(await self._gateway.run_async(flow, transaction=True))

    def check(self) -> flows.SchemaState:
        """Return the schema's state where it fits this code, or raise a `SchemaError`."""
        return self._gateway.run(flows.check_schema())

    async def check_async(self) -> flows.SchemaState:
        """Return the schema's state where it fits this code, or raise a `SchemaError`."""
        return await self._gateway.run_async(flows.check_schema())

    def check_connection(self) -> bool:
        """Whether the tables are there; raises a `SchemaError` where they do not fit this code."""
        try:
            self.check()
        except SchemaNotApplied:
            return False
        return True

    async def check_connection_async(self) -> bool:
        """Whether the tables are there; raises a `SchemaError` where they do not fit this code."""
        try:
            await self.check_async()
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

    def _migrate(self, *, create: bool) -> Flow[list[flows.Migration]]:
        return flows.migrate(schema=self._gateway.connector.schema, create=create)


def _names(migrations: list[flows.Migration]) -> list[str]:
    return [f"{migration.version:04}_{migration.name}" for migration in migrations]
