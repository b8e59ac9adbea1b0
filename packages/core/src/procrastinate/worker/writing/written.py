"""What a write has made of the jobs that it was about, for the log.

Every write is fenced by (worker, lease). If it matches no row, the row says why: the outcome was
written before and only the answer was lost, or the job was taken from this worker.
"""

from __future__ import annotations

from procrastinate.model.endings.outcome import Standing, was_written
from procrastinate.model.job import Job, Status
from procrastinate.observing.job_log import about
from procrastinate.storage.finish import Ended, Settled
from procrastinate.worker.log import logger


def is_lost(job: Job, settled: Settled) -> bool:
    """Return whether a write did not change a job because the job was taken from this worker."""
    return job.id not in settled.changed and not was_written(job, settled.standings.get(job.id))


def log_what_was_written(entry: Ended, settled: Settled) -> None:
    """Say what a write has made of a job, if it is not what the entry says."""
    job = entry.job
    if job.id not in settled.changed:
        _log_unchanged(entry, settled.standings.get(job.id))
    elif settled.changed[job.id] not in (None, entry.outcome.status):
        logger.info(
            "job %d, attempt %d: it is %s, because %s",
            job.id,
            job.attempts,
            settled.changed[job.id],
            "abortion had been asked for"
            if settled.changed[job.id] is Status.ABORTED
            else "a job with the same queueing lock waits",
            extra=about(job, "settled_otherwise", status=settled.changed[job.id]),
        )


def _log_unchanged(entry: Ended, standing: Standing | None) -> None:
    job = entry.job
    if was_written(job, standing):
        logger.debug(
            "job %d, attempt %d: its ending was written already",
            *(job.id, job.attempts),
            extra=about(job, "written_already"),
        )
        return
    assert standing is not None
    logger.warning(
        "job %d, attempt %d: its ending was not written, because this worker lost the job: %s",
        job.id,
        job.attempts,
        _told(standing),
        extra=about(job, "lost_lease"),
    )


def _told(standing: Standing) -> str:
    if standing.status is Status.DOING:
        return f"worker {standing.worker_id} runs it now"
    if standing.status is Status.TODO:
        return "it waits in the queue again"
    return f"it has ended as {standing.status}"
