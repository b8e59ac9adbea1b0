"""Sending one message to the server, and collecting its answer, without waiting.

libpq does the talking, through psycopg's `PGconn`. psycopg's cursors are not used on connections
that a session holds. They would depend on what the connection's owner set up (row factory,
adapters, prepare_threshold, autocommit), and cost 8 to 12 µs more for each statement. The two
kinds of connector differ only in how they wait (`leases`).
"""

from __future__ import annotations

import psycopg
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_COPY = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


class Answer:
    """What the server answers to one message: the result of its last statement, or an error."""

    __slots__ = ("_error", "_pgconn", "_result")

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._result: PGresult | None = None
        self._error: psycopg.Error | None = None

    def collect(self) -> bool:
        """Take what has arrived, and return whether that is all."""
        pgconn = self._pgconn
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return True
            if result.status in _COPY:
                raise psycopg.OperationalError("COPY is not supported here")
            if result.status in _FAILED:
                if self._error is None:
                    self._error = psycopg.errors.error_from_result(result)
            else:
                self._result = result
        return False

    def read_and_collect(self) -> bool:
        """Read what lies ready on the socket, take it, and return whether that is all."""
        try:
            self._pgconn.consume_input()
        except psycopg.Error as exc:
            self._note_end(exc)
            return True
        return self.collect()

    def _note_end(self, exc: psycopg.Error) -> None:
        """Prefer what the server said last to the bare end of the connection."""
        try:
            if self._pgconn.status == ConnStatus.BAD:
                self.collect()
        except psycopg.Error:
            pass
        self._error = self._error or exc

    def checked(self) -> PGresult:
        """Return the result. Raises the error that the server, or libpq, has reported."""
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise psycopg.OperationalError("the server sent no result")
        return self._result
