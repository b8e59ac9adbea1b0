"""The tasks: workers and web processes find them, because the module is called ``tasks``."""

from __future__ import annotations

import logging

from django.utils import timezone

from orders.models import Order
from procrastinate_django import app

logger = logging.getLogger(__name__)


@app.task(queue="mail", retry=3)
def confirm(order_id: int) -> None:
    """Confirm an order by mail: a plain function, which uses the ORM as a view does."""
    order = Order.objects.get(pk=order_id)
    logger.info("mail to %s: %d x %s", order.email, order.quantity, order.item)
    Order.objects.filter(pk=order_id).update(confirmed_at=timezone.now())


@app.task
async def weigh(order_id: int) -> None:
    """Weigh an order: a coroutine, with the asynchronous half of the ORM."""
    await Order.objects.filter(pk=order_id).aupdate(weighed_at=timezone.now())
