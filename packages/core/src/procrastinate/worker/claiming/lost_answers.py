"""Claims whose answer was lost: the worker may hold jobs of which it knows nothing.

The database is asked which jobs it gave to this worker. Those that are not known here are handed
back.
"""

from __future__ import annotations

from collections.abc import Container

from procrastinate.storage import claim as flows
from procrastinate.storage.finish import Keeps, hand_back, needs_transaction
from procrastinate.worker.database.calls import Calls


class LostAnswers:
    """Whether an answer was lost, and how that is set right."""

    def __init__(self, calls: Calls, worker_id: int, *, delete_ended: bool, keeps: Keeps) -> None:
        self._calls = calls
        self._worker_id = worker_id
        self._delete_ended = delete_ended
        self._keeps = keeps
        self._lost = False

    def note(self) -> None:
        """Note that the answer of a claim was lost."""
        self._lost = True

    async def hand_back(self, known: Container[int]) -> None:
        """After a lost answer, hand back the jobs that this worker holds without knowing it."""
        if not self._lost:
            return
        held = await self._calls.run_async(flows.held_jobs(worker_id=self._worker_id))
        unknown = [job for job in held if job.id not in known]
        if unknown:
            await self._calls.run_async(
                hand_back(
                    unknown,
                    worker_id=self._worker_id,
                    delete_ended=self._delete_ended,
                    keeps=self._keeps,
                ),
                transaction=self._delete_ended or needs_transaction(unknown),
            )
        self._lost = False
