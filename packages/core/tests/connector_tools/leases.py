"""A connection and a source without a server, which write down what is asked of them."""

from __future__ import annotations

from procrastinate.connector import Query, Rows
from procrastinate.errors import ConnectionLost, ConnectorException

QUERY = Query("ask", "select 1")
WRITE = Query("write", "update")


class Line:
    """A connection to nowhere. ``answers`` are the outcomes of what is executed, in their order."""

    def __init__(self, *answers: ConnectorException | str) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []
        self.in_transaction = False
        self.broken = False
        self.under_way = False

    @property
    def reusable(self) -> bool:
        return not (self.broken or self.in_transaction or self.under_way)

    def sever(self) -> None:
        self.sent.append("sever")

    def take(self, sql: str) -> str:
        self.sent.append(sql)
        if sql.startswith("BEGIN"):
            self.in_transaction = True
        answer = self.answers.pop(0) if self.answers else sql
        if isinstance(answer, ConnectorException):
            if isinstance(answer, ConnectionLost) and answer.sqlstate is None:
                self.broken, self.in_transaction = True, False  # closed
            raise answer
        if sql in ("COMMIT", "ROLLBACK"):
            self.in_transaction = False
        return answer


class SyncLine(Line):
    def run(self, query: Query, begin: str) -> Rows:
        return [(self.take(begin + query.sql),)]

    def end(self, command: str) -> str:
        return self.take(command)


class AsyncLine(Line):
    async def run(self, query: Query, begin: str) -> Rows:
        return [(self.take(begin + query.sql),)]

    async def end(self, command: str) -> str:
        return self.take(command)


class Taker:
    """Notes what comes back: ``kept``, ``discarded``; and that idle ones were closed."""

    inherited = False

    def __init__(self) -> None:
        self.events: list[str] = []
        self.timeouts: list[float | None] = []

    def release(self, lease: Line, *, discard: bool = False) -> None:
        self.events.append("discarded" if discard else "kept")

    def discard_idle(self) -> None:
        self.events.append("idle closed")


class SyncSource(Taker):
    def __init__(self, line: SyncLine) -> None:
        super().__init__()
        self.line = line

    def acquire(self, timeout: float | None = None) -> SyncLine:
        self.timeouts.append(timeout)
        return self.line


class AsyncSource(Taker):
    def __init__(self, line: AsyncLine) -> None:
        super().__init__()
        self.line = line

    async def acquire(self, timeout: float | None = None) -> AsyncLine:
        self.timeouts.append(timeout)
        return self.line
