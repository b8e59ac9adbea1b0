"""The statement by which a worker goes on with the lines before locks: see ``sql/locks.sql``."""

from __future__ import annotations

from dataclasses import replace

from procrastinate.connector import Rows
from procrastinate.testing._engine.claim import CLAIMED_COLUMNS, begun, is_known
from procrastinate.testing._engine.defer import in_claim_order
from procrastinate.testing._engine.finish import NOBODY_WAITS, finish, held, said_of_ended
from procrastinate.testing._engine.locks import first_of_lines
from procrastinate.testing._engine.values import claimed_columns
from procrastinate.testing._engine.view import Function, Params, View


def hand_over(view: View, p: Params) -> Rows:
    leaving = {job.id: (job, *said) for job, *said in held(view, p, *said_of_ended(p))}
    slots = {lock: job_id for lock, job_id in view.held_locks().items() if job_id in leaving}
    for lock in sorted(slots):
        view.grip_lock(lock)
    heads = [
        job
        for lock, job in first_of_lines(view, None, p).items()
        if lock in slots and (p["served"] is None or job.queue_name in p["served"])
    ]
    known = (job for job in in_claim_order(heads) if is_known(job, p))
    following = view.unlocked(known)[: p["limit"]]
    moment_us = round(view.now.timestamp() * 1e6)
    ended = []
    for job in following:
        assert job.lock is not None
        finish(view, *leaving[slots[job.lock]])
        ended.append((slots[job.lock], *[None] * (CLAIMED_COLUMNS - 1), NOBODY_WAITS, moment_us))
        view.hold_lock(job.lock, job.id)
    claimed = [
        view.write_job(begun(view, replace(job, hold=None), p["worker_id"])) for job in following
    ]
    return [*sorted(ended), *((*claimed_columns(job), None, None) for job in claimed)]


STATEMENTS: dict[str, Function] = {
    "hand_over": hand_over,
    "hand_over_with_results": hand_over,
}
