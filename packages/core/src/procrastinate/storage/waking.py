"""Waking who waits for the ends of jobs: see ``wake_waiters`` in ``sql/finish.sql``.

Rules

1. A statement that ends or removes jobs says in its rows whether a wait may exist for one of them.
   Most often none does, and that is all that it costs. Else `wake` follows: in the same
   transaction if there is one, else right after the commit.
2. What is done by hand, and for dead workers, is always followed by `wake`.
3. No wait is woken when a job that has ended is removed, because that was told when it ended.
4. A wait may begin while a job ends, and a notification may be lost with its connection. So who
   waits also looks for itself, after a moment and then now and again.
"""

from __future__ import annotations

from collections.abc import Sequence

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Request
from procrastinate.storage.news import tell


def wake(ended: Sequence[int]) -> Flow[None]:
    """Notify each process that waits for the end of any of these jobs of one partition."""
    if ended:
        rows = yield Request("wake_waiters", ids=list(ended))
        yield from tell(rows, 1)


def wake_if_awaited(rows: Rows, place: int, ended: Sequence[int]) -> Flow[None]:
    """The same if a statement's rows say at this place that anybody may wait."""
    if rows and rows[0][place] is not None:
        yield from wake(ended)
