"""The statements that pause queues: see ``sql/queues.sql``."""

from __future__ import annotations

from dataclasses import astuple

from procrastinate.connector import Rows
from procrastinate.testing._engine.values import PauseRow
from procrastinate.testing._engine.view import Function, Params, View


def pause_queue(view: View, p: Params) -> Rows:
    until = p["until"]
    if until is not None and until <= view.now:
        return []
    before = view.pause(p["queue_name"])
    paused_at = before.paused_at if before and view.is_in_force(before) else view.now
    row = PauseRow(p["queue_name"], paused_at, until, p["by"], p["reason"])
    view.write_pause(row)
    return [astuple(row)]


def resume_queue(view: View, p: Params) -> Rows:
    row = view.pause(p["queue_name"])
    if row is None:
        return []
    view.delete_pause(row.queue_name)
    return [(int(view.is_in_force(row)),)]


def drop_ended_pauses(view: View, p: Params) -> Rows:
    for row in view.ended_pauses():
        view.delete_pause(row.queue_name)
    return []


def list_pauses(view: View, p: Params) -> Rows:
    return [
        (
            *astuple(row),
            None if row.paused_until is None else (row.paused_until - view.now).total_seconds(),
        )
        for row in view.pauses()
    ]


_FUNCTIONS: tuple[Function, ...] = (pause_queue, resume_queue, drop_ended_pauses, list_pauses)

STATEMENTS: dict[str, Function] = {function.__name__: function for function in _FUNCTIONS}
