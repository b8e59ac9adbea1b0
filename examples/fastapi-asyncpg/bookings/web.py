"""The web application: ``uvicorn bookings.web:web``."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic import AwareDatetime, BaseModel, Field

from bookings.database import DSN
from bookings.tasks import app as queue
from bookings.tasks import remind, send_ticket
from procrastinate.errors import JobNotFound

A_DAY = datetime.timedelta(days=1)


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    """Share one pool between the application and the queue, for as long as the server runs."""
    async with asyncpg.create_pool(DSN) as pool, queue.open_async(pool):
        web.state.pool = pool
        yield


async def transaction(request: Request) -> AsyncIterator[asyncpg.Connection]:
    """Give a request a connection in a transaction, which commits if the request succeeds."""
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        yield connection


# The scope "function" commits before the answer is sent. With FastAPI's default, the answer goes
# first, and says that a booking exists whose commit may still fail.
Transaction = Annotated[asyncpg.Connection, Depends(transaction, scope="function")]


class Booking(BaseModel):
    """What a client asks for."""

    event: str = Field(min_length=1, max_length=200)
    email: str = Field(min_length=1, max_length=200)
    begins_at: AwareDatetime


class Booked(BaseModel):
    """What a client is told."""

    booking: int
    ticket_job: int
    reminder_job: int


router = APIRouter()


@router.post("/bookings", status_code=202)
async def book(wanted: Booking, connection: Transaction) -> Booked:
    """Insert a booking and defer its jobs, in one transaction."""
    booking_id = await connection.fetchval(
        "insert into bookings (event, email) values ($1, $2) returning id",
        wanted.event,
        wanted.email,
    )
    ticket_job = await send_ticket.configure(connection=connection).defer_async(
        booking_id=booking_id
    )
    reminder_job = await remind.configure(
        connection=connection, schedule_at=wanted.begins_at - A_DAY
    ).defer_async(email=wanted.email, event=wanted.event)
    await connection.execute(
        "update bookings set reminder_job = $1 where id = $2", reminder_job, booking_id
    )
    return Booked(booking=booking_id, ticket_job=ticket_job, reminder_job=reminder_job)


@router.delete("/bookings/{booking_id}", status_code=204)
async def call_off(booking_id: int, connection: Transaction) -> None:
    """Delete a booking and cancel its reminder, in one transaction."""
    reminder_job = await connection.fetchval(
        "delete from bookings where id = $1 returning reminder_job", booking_id
    )
    if reminder_job is None:
        raise HTTPException(404)
    await queue.job_manager.cancel_job_by_id_async(reminder_job, connection=connection)


@router.get("/jobs/{job_id}")
async def show_job(job_id: int) -> dict[str, str | int | None]:
    """Tell what became of a job."""
    try:
        job = await queue.job_manager.get_job_async(job_id)
    except JobNotFound as exc:
        raise HTTPException(404) from exc
    last_error = job.errors[-1]["message"] if job.errors else None
    return {"status": job.status, "attempts": job.attempts, "last_error": last_error}


web = FastAPI(title="Bookings", lifespan=lifespan)
web.include_router(router)
