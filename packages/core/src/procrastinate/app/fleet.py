"""The job manager's lists of workers and schedules."""

from __future__ import annotations

from procrastinate.connector import CallerConnection
from procrastinate.gateway import Gateway
from procrastinate.model.monitoring.fleet import ScheduleInfo, WorkerInfo
from procrastinate.storage import fleet as flows


class ListingFleet:
    """Looking at who works, and at what comes by itself."""

    _gateway: Gateway

    def list_workers(self, *, connection: CallerConnection | None = None) -> list[WorkerInfo]:
        """Return the workers that have a row in the database, in order of id.

        A worker enters its row when it starts and removes it when it stops. The row of one that
        died stays until another worker has recovered its jobs.
        """
        return self._gateway.run(flows.list_workers(), connection=connection)

    async def list_workers_async(
        self, *, connection: CallerConnection | None = None
    ) -> list[WorkerInfo]:
        """Return the workers that have a row in the database; see `list_workers`."""
        return await self._gateway.run_async(flows.list_workers(), connection=connection)

    def list_schedules(self, *, connection: CallerConnection | None = None) -> list[ScheduleInfo]:
        """Return the schedules of periodic tasks, in order of task and periodic_id.

        They are those that a worker has seen at least once; none is removed by itself.
        """
        return self._gateway.run(flows.list_schedules(), connection=connection)

    async def list_schedules_async(
        self, *, connection: CallerConnection | None = None
    ) -> list[ScheduleInfo]:
        """Return the schedules of periodic tasks; see `list_schedules`."""
        return await self._gateway.run_async(flows.list_schedules(), connection=connection)
