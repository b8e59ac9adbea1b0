"""A companion: a thread beside the event loop, with a connection of its own.

A task that blocks the event loop, or a pool that the tasks have exhausted, must not delay what a
companion does. It can do nothing about code that holds the interpreter's lock.
"""

from __future__ import annotations

import threading
from typing import Protocol

from procrastinate import drive
from procrastinate.connector import SyncConnector
from procrastinate.drive import Flow
from procrastinate.errors import ConnectorException
from procrastinate.worker.backoff import Backoff
from procrastinate.worker.log import logger

STOP_MAY_TAKE = 5.0  # seconds until a companion that does not end is left to itself


class Line:
    """A companion's way to the database."""

    def __init__(self, connector: SyncConnector) -> None:
        self._connector = connector

    def run(self, flow: Flow[drive.T], *, transaction: bool = False) -> drive.T:
        """Run a flow to its end and return its value."""
        with self._connector.session(transaction=transaction) as executor:
            return drive.run(flow, executor)

    def open(self) -> None:
        """Connect. Twice is harmless."""
        self._connector.open()

    def close(self) -> None:
        """Leave the database."""
        self._connector.close()


class Duty(Protocol):
    """What a companion does, round by round."""

    @property
    def name(self) -> str:
        """What its thread is called."""

    @property
    def undone(self) -> str:
        """What is not done while the database is away, for the log."""

    def round(self, line: Line) -> float:
        """Do what is due, and return the seconds until the next round."""

    def failed(self) -> None:
        """Note that a round failed: what it wanted to do is still due."""


class Companion:
    """Runs a duty in a thread until it is told to end."""

    def __init__(
        self, duty: Duty, line: Line, *, worker_name: str, backoff: Backoff | None = None
    ) -> None:
        self._duty = duty
        self._line = line
        self._backoff = backoff or Backoff()
        self._turn = threading.Event()  # set when a round must not wait for its time
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name=f"{worker_name}-{duty.name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hurry(self) -> None:
        """Let the next round begin now; from any thread."""
        self._turn.set()

    def let_go(self) -> None:
        """Let the thread end, without waiting for it."""
        self._stopping = True
        self._turn.set()

    def stop(self) -> None:
        """End the thread and wait for it; no longer than `STOP_MAY_TAKE`, if the database hangs."""
        self.let_go()
        if self._thread.ident is not None:
            self._thread.join(STOP_MAY_TAKE)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopped_within(wait):
            wait = self._round()
        self._line.close()

    def _stopped_within(self, seconds: float) -> bool:
        self._turn.wait(seconds)
        self._turn.clear()
        return self._stopping

    def _round(self) -> float:
        try:
            self._line.open()  # twice is harmless; the first may have failed
            wait = self._duty.round(self._line)
        except ConnectorException as exc:
            if not self._backoff.failing:
                logger.warning("%s: %s", self._duty.undone, exc)
        except Exception:
            logger.exception("%s; it goes on", self._duty.undone)
        else:
            self._backoff.reset()
            return wait
        self._duty.failed()
        return self._backoff.next_wait()
