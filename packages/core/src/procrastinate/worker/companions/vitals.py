"""What a shift's signs of life are worth: whether it may claim, start, judge others.

The heartbeat's thread notes what the database confirms; the event loop asks.
"""

from __future__ import annotations

from procrastinate.model.liveness.judging import Judge
from procrastinate.model.liveness.trust import Trust
from procrastinate.model.worker_options import WorkerOptions
from procrastinate.worker.clock import since_boot
from procrastinate.worker.log import logger


class Vitals:
    """The trust in one worker's signs of life, from its registration on."""

    def __init__(self, worker_name: str, options: WorkerOptions, *, registered_at: float) -> None:
        timeout = options.stalled_worker_timeout
        self._worker_name = worker_name
        self.trust = Trust(timeout=timeout, sent_at=registered_at)
        self.judge = Judge(
            timeout=timeout, interval=options.update_heartbeat_interval, sent_at=registered_at
        )
        self._trusted = True  # as the log says
        #: Whether the last sign of life had an answer.
        self.answered = True

    def confirmed(self, sent_at: float) -> None:
        """Note that the database has confirmed a beat that was sent then; from any thread."""
        self.answered = True
        self.trust.confirmed(sent_at, since_boot())
        self.judge.confirmed(sent_at)

    def trusted(self) -> bool:
        """Return whether jobs may be claimed now."""
        return self.trust.holds(since_boot())

    def doubtful(self) -> bool:
        """Return whether other workers may have taken over what runs here."""
        return self.trust.doubtful(since_boot())

    def may_judge(self) -> bool:
        """Return whether this worker may take others for dead."""
        return self.judge.may_judge(since_boot())

    def say(self) -> bool:
        """Log once that trust is lost, once that it is back; return whether it came back now."""
        trusted = self.trusted()
        if trusted == self._trusted:
            return False
        self._trusted = trusted
        if trusted:
            logger.info(
                "worker %s claims jobs again: its sign of life is confirmed", self._worker_name
            )
        else:
            logger.warning(
                "worker %s claims no more jobs: no sign of life has been confirmed for %g s, and"
                " after %g s others take it for dead",
                self._worker_name,
                self.trust.window,
                self.trust.timeout,
            )
        return trusted
