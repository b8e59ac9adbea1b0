"""What keeps a worker from working, for those who ask from other threads."""

from __future__ import annotations

import time

from procrastinate.worker.companions.companions import Companions
from procrastinate.worker.process.probes import BLOCKED_AFTER, STUCK_AFTER
from procrastinate.worker.shift.crew import Crew
from procrastinate.worker.stopping import StopRequests


class Health:
    """Knows how a run is. All methods may be called from any thread, but `turned` by the loop."""

    def __init__(self, crew: Crew, companions: Companions, stop: StopRequests) -> None:
        self._crew = crew
        self._companions = companions
        self._stop = stop
        self._loop_turned = time.monotonic()

    def turned(self) -> None:
        """Note that the event loop turns."""
        self._loop_turned = time.monotonic()

    def silence(self) -> float:
        """Return for how many seconds the event loop has not turned."""
        return time.monotonic() - self._loop_turned

    def sicknesses(self) -> list[str]:
        """Return why only a restart can help; nothing if it is well."""
        found = [f"the thread of {name} is dead" for name in self._companions.dead()]
        silence = self.silence()
        if silence >= STUCK_AFTER:
            found.append(f"the event loop has not turned for {silence:.0f} s")
        return found

    def hindrances(self) -> list[str]:
        """Return why no job could be started now."""
        found = []
        if self._stop.gracefully.is_set():
            found.append("the worker stops")
        if not self._crew.vitals.answered:
            found.append("the database does not answer")
        if not self._crew.vitals.trusted():
            found.append("no sign of life has been confirmed in time")
        if not self._crew.paused.is_known:
            found.append("it was not read yet which queues are paused")
        if BLOCKED_AFTER <= (silence := self.silence()) < STUCK_AFTER:
            found.append(f"the event loop has not turned for {silence:.0f} s")
        return found
