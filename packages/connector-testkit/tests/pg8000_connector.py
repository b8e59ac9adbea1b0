"""A whole connector over pg8000: plain functions, a pool, threads and forked processes."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any, ClassVar

from pg8000.native import Connection, DatabaseError, InterfaceError

from procrastinate.connector import Query, Rows, SyncConnector
from procrastinate.connector_tools import failures, forks, limits, sockets, urls
from procrastinate.connector_tools.literals import with_literals
from procrastinate.connector_tools.pools import WaitingPool
from procrastinate.connector_tools.sessions import Session

BROKEN = (InterfaceError, OSError, struct.error)
# What pg8000 can read depends on these, and the role or the database may have others.
STARTUP = {"client_encoding": limits.ENCODING, "datestyle": "ISO", "bytea_output": "hex"}
READ = {
    1700: float,  # numeric
    1184: lambda text: text if "inf" in text else datetime.fromisoformat(text),  # timestamptz
    **dict.fromkeys((114, 3802), str),  # json, jsonb
}


class Pg8000Connector(SyncConnector):
    contract: ClassVar[int] = 2  # the version of the contract that this was written for

    def __init__(
        self,
        url: str = "pg8000://",
        *,
        max_size: int = 10,
        pool_timeout: float | None = 30.0,
        **options: Any,  # json_dumps, json_loads, schema
    ) -> None:
        super().__init__(**options)
        self.where = urls.with_environment(urls.read_url(url))
        self.sizes: Any = {"minimum": 1, "maximum": max_size, "timeout": pool_timeout}
        self.pool: WaitingPool[Lease] | None = None
        forks.call_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> Pg8000Connector:
        own = {"max_size": int, "pool_timeout": float, "schema": str}
        rest, options = urls.split_url(url, own)
        return cls(rest, **options)

    def open(self, pool: Any = None) -> None:
        if pool is not None:
            raise failures.takes_no_pools(pool)
        if self.pool is None:
            pool = WaitingPool(self.connect, close=Lease.close, is_good=Lease.is_good, **self.sizes)
            pool.fill()
            self.pool = pool

    def close(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()

    def session(self, **options: Any) -> Session[Lease]:  # transaction, read_only, timeout
        if self.pool is None:
            raise failures.not_open()
        return Session(self.pool, **options)

    def after_fork(self) -> None:
        if self.pool is not None:
            self.pool.inherited = True
            forks.leave_to_parent(self.pool)
            self.pool = self.pool.renewed()

    def connect(self) -> Lease:
        where = {**limits.LIMITS, **self.where}
        host, port = self.where["host"], int(self.where["port"])
        try:
            raw = Connection(
                self.where["user"],
                host=host,
                port=port,
                unix_sock=f"{host}/.s.PGSQL.{port}" if host.startswith("/") else None,
                database=self.where.get("dbname"),
                password=self.where.get("password"),
                timeout=float(where["connect_timeout"]),
                startup_params=STARTUP,
            )
        except (DatabaseError, *BROKEN) as exc:
            raise failures.cannot_connect(exc, where=urls.shown(self.where)) from exc
        raw._usock.settimeout(None)  # from here on a statement may take its time
        sockets.limit(raw._usock, where)
        for oid, read in READ.items():
            raw.register_in_adapter(oid, read)
        return Lease(raw)


class Lease:
    """One connection, as sessions use it. pg8000 has no public word for its socket and status."""

    def __init__(self, raw: Connection) -> None:
        self.raw = raw

    @property
    def status(self) -> bytes:
        return self.raw._transaction_status if self.raw._usock else b"closed"

    @property
    def in_transaction(self) -> bool:
        return self.status in (b"T", b"E")

    @property
    def reusable(self) -> bool:
        return self.status == b"I"

    def is_good(self) -> bool:
        return self.reusable and not sockets.readable(self.raw._usock.fileno())

    def run(self, query: Query, begin: str) -> Rows:
        try:
            rows = self.raw.run(begin + query.set_local() + with_literals(query))
        except failures.VALUE_ERRORS as exc:
            raise failures.value_error(exc, query) from exc
        except DatabaseError as exc:
            fields = exc.args[0]
            exc.args = (fields["M"],)  # other fields may repeat values
            raise failures.reported(fields) from exc
        except BROKEN as exc:
            raise failures.lost(exc) from exc
        return [tuple(row) for row in rows or ()]

    def end(self, command: str) -> str:
        if self.status == b"E":
            command = "ROLLBACK"  # the server would make one of COMMIT
        self.run(Query(command, command), "")
        return command

    def sever(self) -> None:
        if self.raw._usock:
            sockets.shut_down(self.raw._usock.fileno())

    def close(self) -> None:
        try:
            self.raw.close()
        except (*BROKEN, AttributeError):  # it is closed, or the server has gone
            pass
