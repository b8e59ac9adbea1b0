"""A worker on a database that is not in UTF8: some characters are refused, and no job is lost."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate.errors import InvalidArguments
from procrastinate.model.endings.outcome import RESULT_REFUSED
from procrastinate.worker.writing import writer
from procrastinate_embedded import Server

NAME = f"in_latin1_{secrets.token_hex(8)}"  # other runs may have the same server


@pytest.fixture
def latin1(procrastinate_server: Server) -> Iterator[str]:
    """A database in LATIN1 with procrastinate's tables."""
    connection = psycopg2.connect(procrastinate_server.dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            provider = "locale_provider libc" if connection.server_version >= 150_000 else ""
            cursor.execute(
                f"create database {NAME} template template0"
                f" encoding 'LATIN1' {provider} lc_collate 'C' lc_ctype 'C'"
            )
            dsn = psycopg2.extensions.make_dsn(procrastinate_server.dsn, dbname=NAME)
            app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn))
            with app.open():
                app.schema_manager.apply_schema()
            yield dsn
            cursor.execute(f"drop database {NAME} with (force)")
    finally:
        connection.close()


Of = Callable[[str], Any]


@pytest.mark.parametrize(
    "connector_of",
    [
        lambda dsn: procrastinate.PsycopgConnector(conninfo=dsn),
        lambda dsn: procrastinate.AiopgConnector(dsn=dsn),
        lambda dsn: procrastinate.AsyncpgConnector(dsn=dsn),
    ],
    ids=["psycopg", "aiopg", "asyncpg"],
)
async def test_what_the_encoding_lacks_costs_a_text_and_no_job(
    latin1: str,
    connector_of: Of,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer, "REFUSED_AGAIN_AFTER", 0.01)
    app = procrastinate.App(connector=connector_of(latin1))

    @app.task(name="fails", retry=1)
    async def fails() -> None:
        raise ValueError("日" + 3_000 * "é")

    @app.task(name="keeps", result=True)
    async def keeps(fine: bool) -> str:
        return "é" if fine else "日本"

    @app.task(name="strict", result="strict", retry=1)
    async def strict() -> str:
        return "日本"

    async with app.open_async():
        ids = [
            await fails.defer_async(),
            await keeps.defer_async(fine=True),
            await keeps.defer_async(fine=False),
            await strict.defer_async(),
        ]
        with pytest.raises(InvalidArguments, match="refused the arguments of keeps"):
            await app.configure_task("keeps").defer_async(fine="日")
        with pytest.raises(InvalidArguments, match="refused the arguments or the lock of keeps"):
            await app.configure_task("keeps", lock="日").defer_async(fine=True)
        async with asyncio.timeout(60):
            await app.run_worker_async(wait=False, install_signal_handlers=False)
        jobs = [await app.job_manager.get_job_async(each) for each in ids]

    assert [(job.status, job.attempts, job.result, job.result_error) for job in jobs] == [
        ("failed", 2, None, None),
        ("succeeded", 1, "é", None),
        ("succeeded", 1, None, RESULT_REFUSED),
        ("failed", 2, None, None),
    ]
    messages = [[each["message"] for each in job.errors] for job in jobs]
    assert [each[:10] for each in messages[0]] == [r"\u65e5\xe9"] * 2
    assert messages[3] == [RESULT_REFUSED] * 2
    said = [each for each in caplog.records if " ending of job " in each.getMessage()]
    assert all("the database refused a value" in each.getMessage() for each in said)
    about = sorted((each.levelname, each.args[0]) for each in said if isinstance(each.args, tuple))
    refused = [ids[0], ids[0], ids[2], ids[3], ids[3]]
    assert about == [("WARNING", job_id) for job_id in refused]
