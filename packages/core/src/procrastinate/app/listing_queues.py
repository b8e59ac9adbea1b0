"""The part of the queue manager that lists queues."""

from __future__ import annotations

from procrastinate.connector import CallerConnection
from procrastinate.drive import Flow
from procrastinate.errors import InvalidOption
from procrastinate.gateway import Gateway
from procrastinate.model import checks
from procrastinate.model.monitoring.queue_info import QueueInfo
from procrastinate.model.states import State
from procrastinate.model.text.printable import shown
from procrastinate.storage.counting import count_by_queue
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

    def count(self, state: State | str, *, timeout: float = 5.0) -> dict[str, int]:
        """Return how many jobs of each queue are in a state, exactly; queues without are left out.

        Raises `ConnectorException` if it takes longer than ``timeout`` seconds: that is 0.2 to 0.7
        seconds for a million jobs of the state. It is for metrics; `list_queues` is for people.
        """
        flow = _count(state, timeout)
        return self._gateway.run_by_hand(lambda _: flow)

    async def count_async(self, state: State | str, *, timeout: float = 5.0) -> dict[str, int]:
        """Return how many jobs of each queue are in a state; see `count`."""
        flow = _count(state, timeout)
        return await self._gateway.run_by_hand_async(lambda _: flow)

    async def list_queues_async(
        self, *, connection: CallerConnection | None = None
    ) -> list[QueueInfo]:
        """Return the queues that have jobs to see or are paused; see `list_queues`."""
        return await self._gateway.run_by_hand_async(glance_at_queues, connection=connection)


def _count(state: State | str, timeout: float) -> Flow[dict[str, int]]:
    try:
        checked = State(state)
    except Exception as exc:  # ValueError, TypeError, or what the repr in their message raises
        known = ", ".join(State)
        raise InvalidOption(f"state must be one of {known}, not {shown(state)}") from exc
    return count_by_queue(checked, timeout=checks.check_seconds("timeout", timeout))
