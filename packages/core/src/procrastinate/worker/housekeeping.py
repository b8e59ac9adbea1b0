"""A worker's signs of life, and its care for the jobs of workers that show none.

This runs in a thread of its own, on a connection of its own: a task that blocks the event loop, or
a pool that the tasks have exhausted, must not make a living worker look dead. It can do nothing
about code that holds the interpreter's lock for longer than ``stalled_worker_timeout``.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from procrastinate import drive
from procrastinate.connector import SyncConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.model.job import Status
from procrastinate.model.options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.statements import Statements

logger = logging.getLogger("procrastinate.worker")

CRASH_LIMIT = 5  # times that a job may lose its worker before it is failed
RETRY_AFTER = 1.0  # seconds after which a failed round is tried again
ONE_BY_ONE_MAY_TAKE = 2.0  # seconds for recovering jobs that somebody else may be in the way of
STOP_MAY_TAKE = 5.0  # seconds
LOOP_BLOCKED_AFTER = 5.0  # seconds without a turn of the event loop that are worth a warning
#: The server's codes where another transaction was in the way of a recovery: a twin with the same
#: queueing lock was committed, or something was waited for too long, or in a circle.
IN_THE_WAY = ("23505", "55P03", "40P01", "40001")


class Housekeeping:
    """Heartbeat, recovery and abort requests of one worker."""

    def __init__(
        self,
        connector: SyncConnector,
        sql: Statements,
        worker_id: int,
        worker_name: str,
        options: WorkerOptions,
        *,
        on_aborts: Callable[[set[int]], None],
        seconds_since_loop_turned: Callable[[], float],
    ) -> None:
        self._connector = connector
        self._sql = sql
        self._worker_id = worker_id
        self._worker_name = worker_name
        self._options = options
        self._on_aborts = on_aborts
        self._seconds_since_loop_turned = seconds_since_loop_turned
        self._turn = threading.Event()  # set where a round may not wait for its time
        self._stopping = False
        self._aborts_asked = False
        self._beat_due = 0.0
        self._recovery_due = 0.0
        self._aborts_due = 0.0
        self._warned = False
        self._thread = threading.Thread(
            target=self._run, name=f"{worker_name}-housekeeping", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; no longer than `STOP_MAY_TAKE`, if the database hangs."""
        self._stopping = True
        self._turn.set()
        self._thread.join(STOP_MAY_TAKE)

    def look_for_aborts(self) -> None:
        """Look at once for abort requests that may not have been heard; from any thread."""
        self._aborts_asked = True
        self._turn.set()

    def _run(self) -> None:
        wait = 0.0
        while not self._stopped_within(wait):
            try:
                self._connector.open()  # twice is harmless; the first may have failed
                self._round()
                self._warned = False
                wait = self._seconds_to_next_round()
            except ConnectorException as exc:
                if not self._warned:
                    logger.warning("no sign of life can be given: %s", exc)
                self._warned = True
                wait = RETRY_AFTER
            except Exception:
                logger.exception("housekeeping failed; it goes on")
                wait = RETRY_AFTER
        self._connector.close()

    def _stopped_within(self, seconds: float) -> bool:
        self._turn.wait(seconds)
        self._turn.clear()
        return self._stopping

    def _round(self) -> None:
        now = time.monotonic()
        if now >= self._beat_due:
            self._beat()
            self._beat_due = now + self._options.update_heartbeat_interval
        if self._aborts_asked or now >= self._aborts_due:
            self._aborts_asked = False
            self._look_for_aborts()
            self._aborts_due = now + self._options.abort_job_polling_interval
        if now >= self._recovery_due:
            self._recover()
            # Spread, so that a fleet started at once does not look for the dead in step.
            spread = random.uniform(0.5, 1.0)
            self._recovery_due = now + spread * self._options.update_heartbeat_interval
        self._watch_loop()

    def _seconds_to_next_round(self) -> float:
        due = min(self._beat_due, self._recovery_due, self._aborts_due)
        return max(0.0, min(1.0, due - time.monotonic()))

    def _beat(self) -> None:
        reborn = self._do(flows.heartbeat(self._sql, self._worker_id, self._worker_name))
        if reborn:
            logger.warning(
                "worker %s had been taken for dead; jobs that it held may run elsewhere too",
                self._worker_name,
            )

    def _look_for_aborts(self) -> None:
        ids = self._do(flows.abort_requests(self._sql, self._worker_id))
        if ids:
            self._on_aborts(ids)

    def _recover(self) -> None:
        timeout_us = int(self._options.stalled_worker_timeout * 1e6)
        try:
            while len(self._recovered(timeout_us)) == flows.RECOVERED_AT_ONCE:
                pass
        except ConnectorException as exc:
            if exc.sqlstate not in IN_THE_WAY:
                raise
            self._recover_one_by_one(timeout_us)
        self._do(flows.prune_workers(self._sql, timeout_us=timeout_us))
        self._do(flows.mend_lines(self._sql), transaction=True)

    def _recover_one_by_one(self, timeout_us: int) -> None:
        """Recover what can be, where somebody's open transaction is in the way of some jobs.

        In random order and for a short time: those that have to wait keep neither the others nor
        the heartbeat waiting.
        """
        ids = self._do(flows.stalled_ids(self._sql, timeout_us=timeout_us))
        random.shuffle(ids)
        deadline = time.monotonic() + ONE_BY_ONE_MAY_TAKE
        while ids and time.monotonic() < deadline:
            job_id = ids.pop()
            try:
                self._recovered(timeout_us, [job_id])
            except ConnectorException as exc:
                if exc.sqlstate not in IN_THE_WAY:
                    raise
                logger.info(
                    "job %d lost its worker; it goes back to the queue once another transaction"
                    " is no longer in the way (%s)",
                    job_id,
                    exc,
                    extra={"action": "recover", "job_id": job_id},
                )

    def _recovered(
        self, timeout_us: int, ids: Sequence[int] | None = None
    ) -> list[flows.Recovered]:
        flow = flows.recover_jobs(
            self._sql,
            timeout_us=timeout_us,
            crash_limit=CRASH_LIMIT,
            ids=ids,
            delete_ended=self._options.delete_jobs == "always",
        )
        recovered = self._do(flow, transaction=True)
        _log_recovered(recovered, deleted=self._options.delete_jobs == "always")
        return recovered

    def _do(self, flow: Flow[drive.T], *, transaction: bool = False) -> drive.T:
        with self._connector.session(transaction=transaction) as executor:
            return drive.run(flow, executor)

    def _watch_loop(self) -> None:
        seconds = self._seconds_since_loop_turned()
        if seconds > LOOP_BLOCKED_AFTER:
            logger.warning(
                "the event loop has been blocked for %.0f s: an `async def` task does work that"
                " should be in a plain function, or in a thread",
                seconds,
            )


def _log_recovered(recovered: list[flows.Recovered], *, deleted: bool) -> None:
    """Say in one line what was taken over, and name each job that goes no further."""
    if not recovered:
        return
    again = [each for each in recovered if each.status is Status.TODO]
    logger.warning(
        "%d jobs lost their worker; %d of them go back to the queue",
        len(recovered),
        len(again),
        extra={"action": "recover", "job_ids": [each.job_id for each in recovered]},
    )
    for each in recovered:
        if each.status is not Status.TODO:
            logger.error(
                "job %d (%s) lost its worker and is now %s: %s",
                each.job_id,
                each.task_name,
                each.status.value,
                "deleted, as with delete_jobs=always" if deleted else "see its errors",
                extra={"action": "recover", "job_id": each.job_id},
            )
