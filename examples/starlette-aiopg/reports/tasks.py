"""The job that writes a report."""

from __future__ import annotations

import asyncio

import procrastinate
from reports.database import DSN

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=DSN))


@app.task(queue="reports", pass_context=True, retry=3)
async def write_report(context: procrastinate.JobContext, report_id: int) -> None:
    """Write the pages that are still missing.

    Each page is committed, so that a run which follows a crash goes on where that one ended. The
    pool is the worker's; see `reports.worker`.
    """
    pool = context.additional_context["pool"]
    async with pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute("select written, pages from reports where id = %s", [report_id])
        written, pages = await cursor.fetchone()
        for page in range(written + 1, pages + 1):
            await asyncio.sleep(0.02)  # stands for work; an abortion is raised from here
            await cursor.execute("update reports set written = %s where id = %s", [page, report_id])
