"""The jobs of a booking: its ticket at once, and a reminder a day before the event."""

from __future__ import annotations

import asyncio
import logging

import procrastinate
from bookings.database import DSN

logger = logging.getLogger(__name__)
app = procrastinate.App(connector=procrastinate.AsyncpgConnector(dsn=DSN))


@app.task(
    queue="mail",
    pass_context=True,
    retry=procrastinate.RetryStrategy(max_attempts=10, exponential_wait=2),
)
async def send_ticket(context: procrastinate.JobContext, booking_id: int) -> None:
    """Send the ticket and note that it was sent. The pool is the worker's.

    A run that follows a crash sees the note, and sends nothing twice that was noted.
    """
    pool = context.additional_context["pool"]
    booking = await pool.fetchrow(
        "select event, email from bookings where id = $1 and ticket_sent_at is null", booking_id
    )
    if booking is None:
        return
    await send(booking["email"], f"Your ticket for {booking['event']}")
    await pool.execute("update bookings set ticket_sent_at = now() where id = $1", booking_id)


@app.task(queue="mail")
async def remind(email: str, event: str) -> None:
    """Send a reminder."""
    await send(email, f"Tomorrow: {event}")


async def send(email: str, subject: str) -> None:
    """Stand for a mail server, which is not always there."""
    await asyncio.sleep(0.01)
    if "@" not in email:
        raise ValueError(f"there is no way to {email}")
    logger.info("mail to %s: %s", email, subject)
