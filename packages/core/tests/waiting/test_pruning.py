"""Rows of processes that went away without removing them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import procrastinate

Query = Callable[..., list[tuple[Any, ...]]]


async def test_a_worker_removes_rows_that_are_void(
    app: procrastinate.App,
    query: Query,
    until: Callable[..., Awaitable[None]],
    working: Callable[..., Any],
) -> None:
    query(
        "insert into procrastinate_waits (job_id, partition, waiter, expires_at) values"
        " (1, 0, 5, now() - interval '1 s'), (2, 0, 5, now() + interval '1 hour')"
    )
    async with working(app, update_heartbeat_interval=0.2, stalled_worker_timeout=2):
        await until(lambda: query("select job_id from procrastinate_waits") == [(2,)])
