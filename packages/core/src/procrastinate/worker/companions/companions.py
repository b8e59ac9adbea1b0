"""All companions of one shift, with the watchdog that ends their waits."""

from __future__ import annotations

from collections.abc import Callable

from procrastinate.connector import AsyncConnector, SyncConnector
from procrastinate.storage.statements import Statements
from procrastinate.watchdog import Watchdog
from procrastinate.worker.companions.companion import Companion, Duty
from procrastinate.worker.database.backoff import Backoff
from procrastinate.worker.database.line import Line

#: Seconds for a companion to connect. Short, because a try that began in an outage goes on for as
#: long after its end, and nothing is claimed before a beat is confirmed.
CONNECT_MAY_TAKE = 3.0


class Companions:
    """Makes companions, starts and ends them, and says which are dead."""

    def __init__(
        self,
        connector: AsyncConnector,
        statements: Statements,
        worker_name: str,
        *,
        on_giving_up: Callable[[str, BaseException], None],
    ) -> None:
        self._connector = connector
        self._statements = statements
        self._worker_name = worker_name
        self._on_giving_up = on_giving_up
        self._watchdog = Watchdog(worker_name)
        self._companions: list[Companion] = []
        self._reported: set[str] = set()
        self._stopped = False

    def start(self, duty: Duty, *, longest_wait: float) -> Companion:
        """Start a companion; after failures it tries again within ``longest_wait`` seconds."""
        if not self._companions:
            self._watchdog.start()
        companion = Companion(
            duty,
            Line(self._new_connector, self._statements, self._watchdog),
            worker_name=self._worker_name,
            backoff=Backoff(longest=longest_wait),
            on_giving_up=self._on_giving_up,
        )
        self._companions.append(companion)
        companion.start()
        return companion

    def _new_connector(self) -> SyncConnector:
        return self._connector.sync_connector(connect_timeout=CONNECT_MAY_TAKE)

    def dead(self) -> list[str]:
        """Return the names of threads that are gone without a word; none once they were ended."""
        if self._stopped:
            return []
        alive = {each.name: each.is_alive for each in self._companions}
        if self._companions:
            alive["watchdog"] = self._watchdog.is_alive
        return [name for name, lives in alive.items() if not lives]

    def newly_dead(self) -> list[str]:
        """Return the names of those that are dead, once each."""
        dead = [name for name in self.dead() if name not in self._reported]
        self._reported.update(dead)
        return dead

    def let_go(self) -> None:
        """Let all threads end, without waiting for them."""
        self._stopped = True
        for companion in self._companions:
            companion.let_go()

    @property
    def are_running(self) -> bool:
        """Whether a thread has not ended yet."""
        return any(companion.is_running for companion in self._companions)

    def leave_alone(self) -> None:
        """Wait no longer for threads that have not ended: they send nothing more."""
        for companion in self._companions:
            companion.leave_alone()
        self._watchdog.stop()
