"""The end of a campaign: what is stored, and whether connections and memory came back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psutil

from chaos.books.windows import AFTERMATH
from chaos.records import TICK, Complaint, Effect, Stored, Trouble

if TYPE_CHECKING:
    from chaos.cluster import Database
    from chaos.world import World

MOST_CONNECTIONS = 8  # of one idle worker process
GROWTH = 1.6  # times the memory of an idle worker process at the start
MEGABYTE = 2**20
GONE_WITHIN = 10.0  # seconds for the server to end the sessions of processes that have ended

#: Ticks that were deferred just before the workers stopped still wait, and that is right.
_STORED = """
    select id, status::text, attempts, task_name, (args ->> 'n')::integer,
        (args ->> 'timestamp')::bigint, lock, finished_at, errors -> -1 ->> 'type',
        result #>> '{}'
    from procrastinate_jobs
    where not (task_name = 'tick' and status = 'todo' and (args ->> 'timestamp')::bigint > (
        select coalesce(max((args ->> 'timestamp')::bigint), 0) - %s
        from procrastinate_jobs where task_name = 'tick'))
    order by id
"""
LAST_TICKS = 5  # ticks
WAITS_LAST = timedelta(seconds=60)  # as `procrastinate.waiting.keeper.LASTING_US`


def read_stored(cluster: Database) -> list[Stored]:
    """Return all jobs as the database has them."""
    return [Stored(*row) for row in cluster.query(_STORED, LAST_TICKS * TICK)]


def memory(world: World) -> Mapping[str, float]:
    """Return the resident memory of the worker processes, in MiB, by process."""
    world.census.look()
    found = {}
    for member in world.census.alive():
        try:
            found[member.process] = psutil.Process(member.pid).memory_info().rss / MEGABYTE
        except psutil.Error:
            continue
    return found


def check_idle(world: World, at_start: Mapping[str, float]) -> list[Complaint]:
    """Return what idle workers have kept that they should have given back."""
    complaints = []
    (connections,) = world.cluster.query(
        "select count(*) from pg_stat_activity where usename = 'chaos'"
    )[0]
    processes = len(world.census.alive())
    if connections > processes * MOST_CONNECTIONS:
        text = f"{connections} connections of {processes} idle processes"
        complaints.append(Complaint("connections", text))
    usual = max(at_start.values(), default=0.0)
    for process, used in memory(world).items():
        if used > usual * GROWTH:
            text = f"{process} uses {used:.0f} MiB, and {usual:.0f} MiB were usual at the start"
            complaints.append(Complaint("memory", text))
    return complaints


def is_excused(registered_at: datetime, troubles: Iterable[Trouble]) -> bool:
    """Return whether the row of a wait may be left, because nobody heard that it was written.

    If the connection breaks meanwhile, the server may write it after it was to be removed. Then it
    is void after `WAITS_LAST`, and workers remove it.
    """
    return any(
        each.began - AFTERMATH <= registered_at <= each.ended + AFTERMATH
        for each in troubles
        if each.processes is None or Effect.AWAY in each.effects
    )


def check_stopped(world: World) -> list[Complaint]:
    """Return what is left in the database of workers that have all ended."""
    complaints = []
    rows = world.cluster.query("select * from procrastinate_locks")
    if rows:
        complaints.append(Complaint("left behind", f"locks: {rows}"))
    rows = world.cluster.query("select job_id, expires_at from procrastinate_waits")
    waits = [row for row in rows if not is_excused(row[1] - WAITS_LAST, world.troubles())]
    if waits:
        complaints.append(Complaint("left behind", f"{len(waits)} waits: {waits[:5]}"))
    sql = "select application_name, state, query from pg_stat_activity where usename = 'chaos'"
    if not world.until(lambda: not world.cluster.query(sql), GONE_WITHIN):
        left = world.cluster.query(sql)
        complaints.append(Complaint("connections", f"of ended processes: {left}"))
    return complaints
