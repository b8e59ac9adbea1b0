"""The errors of earlier attempts, for a task, a retry strategy or middleware that asks for them.

`Job.errors` is an attribute, so the code that asks waits for the answer. In a thread that is all.
On the event loop everything waits along: so the question is asked in its own thread, and an answer
that does not come soon is given up. Code on the loop that wants to await the answer asks
``await app.job_manager.get_job_async(job.id)``.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from procrastinate.errors import ConnectorException
from procrastinate.gateway import Gateway
from procrastinate.model.job import Error
from procrastinate.storage.jobs import get_errors
from procrastinate.storage.places import found

LOOP_WAITS_FOR = 2.0  # seconds


class PastErrors:
    """Reads the errors of a job; from any thread, also from that of the event loop."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def __call__(self, job_id: int) -> list[Error]:
        """Return a job's errors. Raises `ConnectorException`."""
        if asyncio._get_running_loop() is None:
            return self._read(job_id)
        answer: Future[list[Error]] = Future()
        threading.Thread(target=self._answer, args=(job_id, answer), daemon=True).start()
        try:
            return answer.result(LOOP_WAITS_FOR)
        except TimeoutError as exc:
            raise ConnectorException(
                f"the errors of job {job_id} could not be read within {LOOP_WAITS_FOR:g} s"
            ) from exc

    def _answer(self, job_id: int, answer: Future[list[Error]]) -> None:
        try:
            answer.set_result(self._read(job_id))
        except BaseException as exc:
            answer.set_exception(exc)

    def _read(self, job_id: int) -> list[Error]:
        partitions = self._gateway.statements.partitions
        return self._gateway.run(found(job_id, partitions, get_errors(job_id)))
