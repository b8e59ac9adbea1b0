"""The harness's own calls: jobs that a fault needs, and probes. They reach the server directly."""

from __future__ import annotations

import threading
import time
import uuid

import procrastinate
from chaos import jobs
from chaos.ledger import Ledger
from chaos.records import Spec
from procrastinate.errors import ConnectorException


class Caller:
    """Defers single jobs, from any thread, and keeps the ledger."""

    def __init__(self, dsn: str, ledger: Ledger) -> None:
        self._app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
        self._ledger = ledger
        self._lock = threading.Lock()

    def defer(self, spec: Spec) -> None:
        """Defer a job; if the answer is lost, the books shall find out what became of it."""
        self._ledger.asked(uuid.uuid4().hex, [spec])
        try:
            job_id = self._defer(spec)
        except ConnectorException:
            self._ledger.answered([spec], "unknown", [None])
            time.sleep(0.2)
        else:
            self._ledger.answered([spec], "acknowledged", [job_id])

    def _defer(self, spec: Spec) -> int:
        with self._lock:
            self._app.open()
            task = self._app.configure_task(spec.task, queue=spec.queue, priority=spec.priority)
            return task.defer(**jobs.arguments(spec))

    def has_begun(self, n: int) -> bool:
        """Return whether a run of a job is on record, or none is to be expected."""
        rows = self._ledger.query(
            "select answers.job_id is null or exists ("
            " select from began where began.job_id = answers.job_id)"
            " from answers where n = %s",
            n,
        )
        return bool(rows and rows[0][0])

    def close(self) -> None:
        """Close its connections."""
        self._app.close()
