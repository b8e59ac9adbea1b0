"""The demo told in this process, its workers in processes of their own."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from rich.console import Console

import procrastinate
from procrastinate_embedded.demo import story


@dataclass(frozen=True)
class Told:
    """What the demo printed, and whether all was well."""

    good: bool
    text: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for files."""
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def tell(procrastinate_dsn: str, folder: Path) -> Callable[..., Told]:
    """Run the demo on the files of `folder`, in the test's own database."""

    def tell(**options: Any) -> Told:
        console = Console(file=io.StringIO(), width=200, highlight=False)
        chosen = story.Options(folder=os.fsencode(folder), dsn=procrastinate_dsn, **options)
        good = story.tell(chosen, console)
        assert isinstance(console.file, io.StringIO)
        return Told(good, console.file.getvalue())

    return tell


@pytest.fixture
def query(procrastinate_dsn: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Run SQL on a connection of its own; commit each statement."""
    connection = psycopg2.connect(procrastinate_dsn, application_name="test")
    connection.autocommit = True

    def run(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


@pytest.fixture
def sync_app(procrastinate_dsn: str) -> Iterator[procrastinate.App]:
    """An open app on psycopg2, in the database that the demo uses too."""
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()
        yield app
