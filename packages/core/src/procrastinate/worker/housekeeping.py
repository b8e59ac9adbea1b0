"""A worker's signs of life, and its care for the jobs of workers that show none.

This is the duty of a companion (`procrastinate.worker.companion`): a busy event loop must not make
a living worker look dead. Code that holds the interpreter's lock for longer than
``stalled_worker_timeout`` does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from procrastinate.errors import ConnectorException
from procrastinate.model.alarm import Alarm
from procrastinate.model.job import Status
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.storage import workers as flows
from procrastinate.storage.statements import Statements
from procrastinate.worker.companion import Line
from procrastinate.worker.log import logger

CRASH_LIMIT = 5  # times that a job may lose its worker before it is failed
ONE_BY_ONE_MAY_TAKE = 2.0  # seconds for recovering jobs that somebody else may be in the way of
LOOP_BLOCKED_AFTER = 5.0  # seconds without a turn of the event loop that are worth a warning
#: The server's codes where another transaction was in the way of a recovery: a twin with the same
#: queueing lock was committed, or something was waited for too long, or in a circle.
IN_THE_WAY = ("23505", "55P03", "40P01", "40001")


class Housekeeping:
    """The duty of one worker's companion: heartbeat, recovery and abort requests."""

    name = "housekeeping"
    undone = "no sign of life can be given"

    def __init__(
        self,
        sql: Statements,
        worker_id: int,
        worker_name: str,
        options: WorkerOptions,
        *,
        on_aborts: Callable[[set[int]], None],
        seconds_since_loop_turned: Callable[[], float],
    ) -> None:
        self._sql = sql
        self._worker_id = worker_id
        self._worker_name = worker_name
        self._options = options
        self._on_aborts = on_aborts
        self._seconds_since_loop_turned = seconds_since_loop_turned
        self._aborts_asked = False
        self._beat = Alarm()
        self._recovery = Alarm()
        self._aborts = Alarm()

    def look_for_aborts(self) -> None:
        """Look for abort requests in the next round; from any thread."""
        self._aborts_asked = True

    def failed(self) -> None:
        """Leave everything due that was not done."""

    def round(self, line: Line) -> float:
        """Do what is due, and return the seconds until the next round."""
        now = time.monotonic()
        if self._beat.due(now):
            self._give_sign_of_life(line)
            self._beat.set(now + self._options.update_heartbeat_interval)
        if self._aborts_asked or self._aborts.due(now):
            self._aborts_asked = False
            self._look_for_aborts(line)
            self._aborts.set(now + self._options.abort_job_polling_interval)
        if self._recovery.due(now):
            self._recover(line)
            # Spread, so that a fleet started at once does not look for the dead in step.
            spread = random.uniform(0.5, 1.0)
            self._recovery.set(now + spread * self._options.update_heartbeat_interval)
        self._watch_loop()
        due = min(self._beat.at, self._recovery.at, self._aborts.at)
        return max(0.0, min(1.0, due - time.monotonic()))

    def _give_sign_of_life(self, line: Line) -> None:
        reborn = line.run(flows.heartbeat(self._sql, self._worker_id, self._worker_name))
        if reborn:
            logger.warning(
                "worker %s had been taken for dead; jobs that it held may run elsewhere too",
                self._worker_name,
            )

    def _look_for_aborts(self, line: Line) -> None:
        ids = line.run(flows.abort_requests(self._sql, self._worker_id))
        if ids:
            self._on_aborts(ids)

    def _recover(self, line: Line) -> None:
        timeout_us = int(self._options.stalled_worker_timeout * 1e6)
        try:
            while len(self._recovered(line, timeout_us)) == flows.RECOVERED_AT_ONCE:
                pass
        except ConnectorException as exc:
            if exc.sqlstate not in IN_THE_WAY:
                raise
            self._recover_one_by_one(line, timeout_us)
        line.run(flows.prune_workers(self._sql, timeout_us=timeout_us))
        line.run(flows.mend_lines(self._sql), transaction=True)

    def _recover_one_by_one(self, line: Line, timeout_us: int) -> None:
        """Recover what can be, where somebody's open transaction is in the way of some jobs.

        In random order and for a short time: those that have to wait keep neither the others nor
        the heartbeat waiting.
        """
        ids = line.run(flows.stalled_ids(self._sql, timeout_us=timeout_us))
        random.shuffle(ids)
        deadline = time.monotonic() + ONE_BY_ONE_MAY_TAKE
        while ids and time.monotonic() < deadline:
            job_id = ids.pop()
            try:
                self._recovered(line, timeout_us, [job_id])
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
        self, line: Line, timeout_us: int, ids: Sequence[int] | None = None
    ) -> list[flows.Recovered]:
        flow = flows.recover_jobs(
            self._sql,
            timeout_us=timeout_us,
            crash_limit=CRASH_LIMIT,
            ids=ids,
            delete_ended=self._options.delete_jobs == "always",
        )
        recovered = line.run(flow, transaction=True)
        _log_recovered(recovered, deleted=self._options.delete_jobs == "always")
        return recovered

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
