"""The part of the queue manager that lists queues."""

from __future__ import annotations

from procrastinate.connector import CallerConnection
from procrastinate.gateway import Gateway
from procrastinate.model.queue_info import QueueInfo
from procrastinate.storage.glance import glance_at_queues


class ListingQueues:
    """Queues at a glance."""

    _gateway: Gateway

    def list_queues(self, *, connection: CallerConnection | None = None) -> list[QueueInfo]:
        """Return the queues that have jobs to see or are paused, in order of their names.

        It looks at no more than 20,000 jobs, so that it is fast however many there are: counts
        that stop there say so. A queue of which all jobs have succeeded is not listed. Exact counts
        of everything are `JobManager.list_queues`, which reads the whole table.
        """
        return self._gateway.run_by_hand(glance_at_queues, connection=connection)

    async def list_queues_async(
        self, *, connection: CallerConnection | None = None
    ) -> list[QueueInfo]:
        """Return the queues that have jobs to see or are paused; see `list_queues`."""
        return await self._gateway.run_by_hand_async(glance_at_queues, connection=connection)
