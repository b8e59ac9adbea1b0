"""The jobs, and the app that defers them: synchronous, on the engine that the shop has anyway."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import procrastinate
from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector
from shop.database import Order, Session

logger = logging.getLogger("shop")
app = procrastinate.App(connector=SQLAlchemyPsycopg2Connector())

# After 2, 4, 8, ... seconds, up to ten minutes.
patiently = procrastinate.RetryStrategy(
    max_attempts=10, exponential_wait=2, max_wait=600, jitter=0.2
)


@app.task(queue="mail", retry=patiently)
def send_confirmation(order_id: int) -> None:
    """Send an order's confirmation.

    A job runs at least once, so the order remembers what was done: a second run does nothing.
    """
    with Session.begin() as session:
        order = session.get_one(Order, order_id, with_for_update=True)
        if order.confirmed_at is None:
            send_mail(order.email, f"Your order {order.id}: {order.quantity} x {order.item}")
            order.confirmed_at = datetime.now(UTC)


def send_mail(to: str, subject: str) -> None:
    """Stand in for a mail server."""
    if not to.endswith("@example.org"):
        raise ValueError(f"there is no way to {to}")
    logger.info("mail to %s: %s", to, subject)
