"""The web application: ``gunicorn 'shop.web:create_app()'``."""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request
from sqlalchemy import update

import procrastinate
from shop.database import Item, Order, Session, engine
from shop.tasks import app as queue
from shop.tasks import send_confirmation

Answer = tuple[dict[str, Any], int]


def create_app() -> Flask:
    """Return the application, with the queue open on the shop's own engine."""
    queue.open(engine)
    web = Flask("shop")
    web.add_url_rule("/orders", view_func=place_order, methods=["POST"])
    web.add_url_rule("/orders/<int:order_id>", view_func=show_order)
    web.add_url_rule("/jobs/<int:job_id>", view_func=show_job)
    return web


def place_order() -> Answer:
    """Take an order and defer its confirmation, in one transaction."""
    order = order_from(request.get_json())
    with Session.begin() as session:
        session.add(order)
        session.flush()  # now it has an id
        job_id = send_confirmation.configure(connection=session).defer(order_id=order.id)
        take_from_shelf(session, order)
    # Committed: the order is there and so is its job. No worker could see either before.
    return {"order": order.id, "job": job_id}, 202


def order_from(form: dict[str, Any]) -> Order:
    """Return the order that was asked for, or answer 400."""
    try:
        order = Order(item=form["item"], quantity=int(form["quantity"]), email=form["email"])
    except (KeyError, TypeError, ValueError):
        abort(400, "an order has an item, a quantity and an email")
    if order.quantity < 1:
        abort(400, "the quantity must be at least 1")
    return order


def take_from_shelf(session: Any, order: Order) -> None:
    """Take the items, or answer 409: the exception rolls back the order, and the job with it."""
    enough = (Item.name == order.item) & (Item.left >= order.quantity)
    taken = update(Item).where(enough).values(left=Item.left - order.quantity)
    if session.execute(taken).rowcount == 0:
        abort(409, f"there are not {order.quantity} of {order.item} left")


def show_order(order_id: int) -> Answer:
    """Tell whether an order was confirmed."""
    with Session() as session:
        order = session.get(Order, order_id)
        if order is None:
            abort(404)
        confirmed = order.confirmed_at and order.confirmed_at.isoformat()
        return {"item": order.item, "quantity": order.quantity, "confirmed_at": confirmed}, 200


def show_job(job_id: int) -> Answer:
    """Tell how a job is doing."""
    try:
        job = queue.job_manager.get_job(job_id)
    except procrastinate.JobNotFound:
        abort(404)
    last_error = job.errors[-1]["message"] if job.errors else None
    return {"status": job.status, "attempts": job.attempts, "last_error": last_error}, 200
