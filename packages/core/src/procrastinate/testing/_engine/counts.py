"""The statements that count the jobs in one state."""

from __future__ import annotations

import functools
from collections import Counter

from procrastinate.connector import Rows
from procrastinate.model.states import State, state_of
from procrastinate.storage.counting import statement_of
from procrastinate.testing._engine.view import Function, Params, View


def _count(state: State, view: View, p: Params) -> Rows:
    jobs = view.jobs()
    return list(
        Counter(job.queue_name for job in jobs if state_of(job.status, job.hold) is state).items()
    )


STATEMENTS: dict[str, Function] = {
    statement_of(state): functools.partial(_count, state) for state in State
}
