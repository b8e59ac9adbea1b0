"""Databases with procrastinate's tables for tests, each of which is a copy of a first one.

To make the tables takes longer than to copy the database, and longer than most tests.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg2

from procrastinate_embedded.databases import dsn_for


class Copies:
    """Copies of a database on one server, which ``fill`` makes when the first one is asked for."""

    def __init__(self, server_dsn: str, fill: Callable[[str], None]) -> None:
        self._server_dsn = server_dsn
        self._fill = fill
        self._original = ""
        self._made: set[str] = set()

    @contextmanager
    def copy(self) -> Iterator[str]:
        """The DSN of a copy, which is dropped at the end with all of its sessions."""
        if not self._original:
            self._original = self._make_original()
        name = _new_name()
        self._run(f"create database {name} template {self._original}")
        self._made.add(dsn_for(self._server_dsn, name))
        try:
            yield dsn_for(self._server_dsn, name)
        finally:
            self._drop(name)

    def has(self, dsn: str) -> bool:
        """Whether a database is a copy, and so has the tables."""
        return dsn in self._made

    def drop(self) -> None:
        """Drop the original."""
        if self._original:
            self._run(f"alter database {self._original} allow_connections true")
            self._drop(self._original)

    def _make_original(self) -> str:
        name = _new_name()
        self._run(f"create database {name}")
        self._fill(dsn_for(self._server_dsn, name))
        # Nobody can be connected to what is copied, autovacuum included.
        self._run(f"alter database {name} allow_connections false")
        return name

    def _drop(self, name: str) -> None:
        self._run(f"drop database if exists {name} with (force)")

    def _run(self, sql: str) -> None:
        connection = psycopg2.connect(self._server_dsn)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
        finally:
            connection.close()


def _new_name() -> str:
    return f"procrastinate_{secrets.token_hex(8)}"
