"""The ledger: the truth about every run, on a server that no fault touches.

Rules

1. Rows are only inserted, each in a transaction of its own, and their time is the ledger server's.
2. A process writes through a plain psycopg2 connection per thread that shares nothing with the
   queue under test. It writes again until the row is there: a token makes that harmless.
3. A process that cannot write for `PATIENCE` raises; then the campaign is worth nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import psycopg2
from psycopg2.extras import execute_values

from chaos.nasty import DEEDS
from chaos.records import Asked, Effect, Run, Spec, Trouble, Wait

PATIENCE = 60.0  # seconds

TABLES = """
    create table processes (
        process text primary key, pid integer not null, parent integer not null,
        at timestamptz not null default clock_timestamp()
    );
    create table began (
        token text primary key, job_id bigint not null, attempt integer not null,
        process text not null, clock float8 not null,
        at timestamptz not null default clock_timestamp()
    );
    create table ended (
        token text primary key, outcome text not null,
        at timestamptz not null default clock_timestamp()
    );
    create table asked (
        n integer primary key, call text not null, spec jsonb not null,
        at timestamptz not null default clock_timestamp()
    );
    create table answers (
        n integer primary key, answer text not null, job_id bigint,
        at timestamptz not null default clock_timestamp()
    );
    create table nasty (
        token text primary key, n integer not null, deed text not null, process text not null,
        at timestamptz not null default clock_timestamp()
    );
    create table waits (
        n integer primary key, way text not null,
        at timestamptz not null default clock_timestamp()
    );
    create table told (
        n integer primary key, answer text not null, result text,
        at timestamptz not null default clock_timestamp()
    );
"""


class Ledger:
    """Writes rows, from any thread of any process."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._local = threading.local()

    def _connection(self) -> Any:
        if getattr(self._local, "connection", None) is None:
            self._local.connection = psycopg2.connect(self._dsn)
            self._local.connection.autocommit = True
        return self._local.connection

    def _insert(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows until the ledger has them (rule 2)."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self._connection().cursor() as cursor:
                    execute_values(cursor, f"{sql} on conflict do nothing", rows)
                return
            except psycopg2.OperationalError:
                self._local.connection = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def make_tables(self) -> None:
        """Make the tables of an empty ledger."""
        with self._connection().cursor() as cursor:
            cursor.execute(TABLES)

    def process(self, process: str, pid: int, parent: int) -> None:
        """Tell that a process has come to life."""
        rows = [(process, pid, parent)]
        self._insert("insert into processes (process, pid, parent) values %s", rows)

    def began(self, token: str, job_id: int, attempt: int, process: str) -> None:
        """Tell that a run has begun, and what the clock of its process shows."""
        rows = [(token, job_id, attempt, process, time.time())]
        self._insert("insert into began (token, job_id, attempt, process, clock) values %s", rows)

    def ended(self, token: str, outcome: str) -> None:
        """Tell that a run has ended."""
        self._insert("insert into ended (token, outcome) values %s", [(token, outcome)])

    def nasty(self, token: str, n: int, deed: str, process: str) -> None:
        """Tell that a run is about to do something to its own process."""
        rows = [(token, n, deed, process)]
        self._insert("insert into nasty (token, n, deed, process) values %s", rows)

    def asked(self, call: str, specs: Sequence[Spec]) -> None:
        """Tell which jobs one call is about to defer."""
        rows = [(spec.n, call, json.dumps(asdict(spec))) for spec in specs]
        self._insert("insert into asked (n, call, spec) values %s", rows)

    def answered(self, specs: Sequence[Spec], answer: str, ids: Sequence[int | None]) -> None:
        """Tell what the caller was told."""
        rows = [(spec.n, answer, job_id) for spec, job_id in zip(specs, ids, strict=True)]
        self._insert("insert into answers (n, answer, job_id) values %s", rows)

    def waits(self, n: int, way: str) -> None:
        """Tell that somebody begins to wait for a job."""
        self._insert("insert into waits (n, way) values %s", [(n, way)])

    def told(self, n: int, answer: str, result: str | None) -> None:
        """Tell what a wait has come to."""
        self._insert("insert into told (n, answer, result) values %s", [(n, answer, result)])

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._connection().cursor() as cursor:
            cursor.execute(sql, values or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


# --- Reading it all -------------------------------------------------------------------------------


def read_runs(ledger: Ledger) -> list[Run]:
    """Return all runs."""
    rows = ledger.query(
        "select began.token, job_id, attempt, process, began.at, ended.at, outcome"
        " from began left join ended on ended.token = began.token"
    )
    return [Run(*row) for row in rows]


def read_asked(ledger: Ledger) -> list[Asked]:
    """Return all jobs that deferrers asked for."""
    rows = ledger.query(
        "select spec, call, asked.at, answer, answers.at, job_id"
        " from asked left join answers on answers.n = asked.n order by asked.n"
    )
    return [Asked(Spec(**spec), *rest) for spec, *rest in rows]


def read_waits(ledger: Ledger) -> list[Wait]:
    """Return all waits for results."""
    rows = ledger.query(
        "select waits.n, way, waits.at, told.at, answer, result"
        " from waits left join told on told.n = waits.n order by waits.n"
    )
    return [Wait(*row) for row in rows]


def read_deaths_by_jobs(ledger: Ledger, deaths: Mapping[str, datetime]) -> list[Trouble]:
    """Return the processes that jobs have ended. They explain runs, and count as no faults."""
    rows = ledger.query("select deed, process, at from nasty order by at")
    return [
        Trouble(deed, "", at, deaths[process], frozenset({Effect.ENDS}), frozenset({process}))
        for deed, process, at in rows
        if DEEDS[deed][1] and process in deaths
    ]
