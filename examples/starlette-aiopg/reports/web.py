"""The web application: ``uvicorn reports.web:web``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiopg
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reports.database import DSN
from reports.tasks import app as queue
from reports.tasks import write_report


@asynccontextmanager
async def lifespan(web: Starlette) -> AsyncIterator[None]:
    """Share one pool between the application and the queue, for as long as the server runs."""
    async with aiopg.create_pool(DSN) as pool, queue.open_async(pool):
        web.state.pool = pool
        yield


async def order_report(request: Request) -> Response:
    """Insert a report and defer the job that writes it, in one transaction."""
    title, pages = await wanted_report(request)
    pool = request.app.state.pool
    async with pool.acquire() as connection, connection.cursor() as cursor, cursor.begin():
        await cursor.execute(
            "insert into reports (title, pages) values (%s, %s) returning id",
            [title, pages],
        )
        (report_id,) = await cursor.fetchone()
        job_id = await write_report.configure(connection=connection).defer_async(
            report_id=report_id
        )
        await cursor.execute("update reports set job_id = %s where id = %s", [job_id, report_id])
    headers = {"Location": f"/reports/{report_id}"}
    return JSONResponse({"report": report_id, "job": job_id}, status_code=202, headers=headers)


async def wanted_report(request: Request) -> tuple[str, int]:
    """Return the title and the number of pages in the request's body, or answer 400."""
    try:
        wanted = await request.json()
        return str(wanted["title"]), int(wanted["pages"])
    except (KeyError, TypeError, ValueError) as exc:
        raise HTTPException(400, "a report has a title and a number of pages") from exc


async def show_report(request: Request) -> Response:
    """Tell how far a report is, and what its job does."""
    title, pages, written, job_id = await report_row(request)
    job = await queue.job_manager.get_job_async(job_id)
    return JSONResponse(
        {"title": title, "pages": pages, "written": written, "job": job.status}
        | {"attempts": job.attempts}
    )


async def cancel_report(request: Request) -> Response:
    """Cancel a report that waits, or ask for the one that is being written to be aborted."""
    *_, job_id = await report_row(request)
    if not await queue.job_manager.cancel_job_by_id_async(job_id, abort=True):
        raise HTTPException(409, "the report has ended already")
    return Response(status_code=202)


async def report_row(request: Request) -> tuple[str, int, int, int]:
    """Return title, pages, pages written and job of the report in the path, or answer 404."""
    async with request.app.state.pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(
            "select title, pages, written, job_id from reports where id = %s",
            [request.path_params["report_id"]],
        )
        row: tuple[str, int, int, int] | None = await cursor.fetchone()
    if row is None:
        raise HTTPException(404)
    return row


routes = [
    Route("/reports", order_report, methods=["POST"]),
    Route("/reports/{report_id:int}", show_report),
    Route("/reports/{report_id:int}", cancel_report, methods=["DELETE"]),
]
web = Starlette(lifespan=lifespan, routes=routes)
