from __future__ import annotations

from orders.models import Order
from procrastinate.contrib.django import app


@app.task(queue="mail", retry=1)
def confirm(order_id):
    order = Order.objects.get(pk=order_id)
    order.confirmed += 1
    order.save()


@app.task(queue="mail", name="confirm-async")
async def confirm_async(order_id):
    order = await Order.objects.aget(pk=order_id)
    order.confirmed += 1
    await order.asave()


@app.task
def fail():
    raise ValueError("as it should")


@app.periodic(cron="0 3 * * *", periodic_id="nightly")
@app.task(queueing_lock="sweep", pass_context=True)
def sweep(context, timestamp):
    pass
