"""The program of the demo's worker: ``python -m procrastinate_embedded.demo.worker_process``.

The DSN comes in the environment, where other users of the machine cannot see its password.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading

from procrastinate.connector import AsyncConnector
from procrastinate_embedded.demo import visits
from procrastinate_embedded.demo.files import Content
from procrastinate_embedded.demo.tables import Tables, tables_of
from procrastinate_embedded.demo.tasks import QUEUE, make_app

DSN_VARIABLE = "PROCRASTINATE_DEMO_DSN"


def main() -> None:
    """Run a worker until it gets a signal, or until the process that started it is gone."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO)
    _end_with_parent()
    app = make_app(
        os.environ[DSN_VARIABLE], arguments.schema, application_name=arguments.application_name
    )
    assert isinstance(app.connector, AsyncConnector)
    with tables_of(app.connector, arguments.schema) as tables:
        hold_after = arguments.hold_after
        app.run_worker(
            queues=[QUEUE, visits.QUEUE],
            concurrency=arguments.concurrency,
            additional_context={
                "tables": tables if hold_after is None else HoldingTables(tables, hold_after)
            },
            shutdown_graceful_timeout=1,
            # Short, so that the jobs of a killed worker are missed within seconds. A worker on a
            # busy machine of yours should be given the default, half a minute.
            update_heartbeat_interval=0.5,
            stalled_worker_timeout=2,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schema", required=True)
    parser.add_argument("--application-name", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--hold-after", type=int)
    return parser.parse_args()


def _end_with_parent() -> None:
    """Stop when stdin ends: the process that started this one has died."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


class HoldingTables:
    """Stands in for the tables in the tasks: lets a number of results pass, and holds all others.

    It gives ``--crash`` something to kill, however few files there are and however fast.
    """

    def __init__(self, tables: Tables, hold_after: int) -> None:
        self._tables = tables
        self._may_pass = threading.Semaphore(hold_after)

    def store(self, path: str, content: Content) -> None:
        """Store a result, or wait for the end of the process."""
        self._may_pass.acquire()
        self._tables.store(path, content)


if __name__ == "__main__":
    main()
