"""Flows that search jobs with a bounded effort: see `procrastinate.model.monitoring.search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from procrastinate.drive import Flow, Request, at
from procrastinate.model.checks import EARLIEST
from procrastinate.model.monitoring import search
from procrastinate.model.monitoring.search import Count, JobPage, Key, Round, Slice, Stop, Walk
from procrastinate.model.partitions import Partitions
from procrastinate.storage.jobs import JobFilter, filter_params
from procrastinate.storage.rows import Loads, in_utc, jobs_from

BUDGET = 10_000  # jobs that a search reads before it gives up
AT_ONCE = 20_000  # jobs that one statement reads at most while it counts

_STATEMENTS: Mapping[Walk, str] = {
    Walk.IDS: "search_ids",
    Walk.RUNNING: "search_running",
    Walk.READY: "search_ready",
    Walk.SCHEDULED: "search_scheduled",
    Walk.BEHIND_LOCKS: "search_behind_locks",
    Walk.NEWEST_ENDED: "search_newest_ended",
    Walk.NEWEST: "search_newest",
}
#: Below all ids, and above all priorities and ids.
_NO_ID, _TOP, _ABOVE = -1, 2**31 - 1, 2**63 - 1
_COLUMNS = 8  # of a row, before those of the job
_SPARE = 4  # jobs that each of many partitions is asked for, besides its share of the page


def search_jobs(
    which: JobFilter,
    cursor: str | None,
    *,
    limit: int,
    budget: int,
    partitions: Partitions,
    loads: Loads,
) -> Flow[JobPage]:
    """Return a page of jobs. Raises `InvalidOption` for a cursor of another search."""
    walks = search.walks(by_id=which.ids is not None, statuses=which.statuses, holds=which.holds)
    stops = search.stops(walks, partitions)
    if not stops:
        return JobPage([], None, 0, True)
    place, key = search.located(cursor, stops)
    page = JobPage([], None, 0, True)
    rest = stops[place]  # of a stop: the partitions in which there is more
    while True:
        room = limit - len(page.jobs)
        here = yield from _round(which, rest, key, room, budget - page.looked_at, loads)
        key = here.goes_on
        page = JobPage([*page.jobs, *here.jobs], None, page.looked_at + here.looked_at, True)
        if key is not None:
            rest = replace(rest, partitions=[rest.partitions[each] for each in here.still_open])
        else:
            place += 1
            if place == len(stops):
                return page
            rest = stops[place]
        is_full = len(page.jobs) == limit
        if is_full or page.looked_at >= budget:
            return JobPage(page.jobs, search.cursor(stops[place], key), page.looked_at, is_full)


def _round(
    which: JobFilter, stop: Stop, key: Key | None, limit: int, budget: int, loads: Loads
) -> Flow[Round]:
    several = len(stop.partitions)
    share = limit if several == 1 else min(limit, limit // several + _SPARE)
    params = {
        **_params(which, stop, key),
        "limit": share,
        "shown": share,
        "scanned": max(budget // several, 1),
    }
    slices = []
    for partition in stop.partitions:
        slices.append((yield from at(partition, _slice(stop.walk, params, loads))))
    return search.merged(stop.walk, slices, limit)


def count_jobs(which: JobFilter, *, budget: int, partitions: Partitions) -> Flow[Count]:
    """Return how many jobs match, as far as they can be read."""
    walks = search.walks(by_id=which.ids is not None, statuses=which.statuses, holds=which.holds)
    value, left = 0, budget
    for stop in search.stops(walks, partitions):
        for partition in stop.partitions:
            key: Key | None = None
            while left > 0:
                scanned = min(left, AT_ONCE)
                params = {
                    **_params(which, stop, key),
                    "limit": scanned,
                    "shown": 0,
                    "scanned": scanned,
                }
                here = yield from at(partition, _slice(stop.walk, params, _unread))
                value, left, key = value + here.matching, left - here.looked_at, here.last
                if here.at_end:
                    break
            else:
                return Count(value, False)
    return Count(value)


def _unread(text: str) -> None:
    """No job is shown, so no arguments are read."""


def _params(which: JobFilter, stop: Stop, key: Key | None) -> dict[str, Any]:
    return {
        **filter_params(which),
        **({"ids": list(which.ids or ())} if stop.walk is Walk.IDS else {}),
        "statuses": None if stop.statuses is None else [each.value for each in stop.statuses],
        **_AFTER[stop.walk](which, key),
    }


def _slice(walk: Walk, params: Mapping[str, Any], loads: Loads) -> Flow[Slice]:
    rows = yield Request(_STATEMENTS[walk], **params)
    looked_at, at_end, queue, priority, lock, moment, last_id, matching = rows[0][:_COLUMNS]
    reached = {
        "queue": queue,
        "priority": priority,
        "lock": lock,
        "moment": in_utc(moment),
        "id": last_id,
    }
    last = tuple(reached[field] for field in walk.fields) if looked_at else None
    jobs = [row[_COLUMNS:] for row in rows if row[_COLUMNS] is not None]
    return Slice(jobs_from(jobs, loads), int(looked_at), bool(at_end), last, int(matching))


def _before(which: JobFilter, key: Key | None) -> dict[str, Any]:
    return {"before_id": key[0] if key else _ABOVE}


def _after_moment(which: JobFilter, key: Key | None) -> dict[str, Any]:
    after, after_id = key or (EARLIEST, _NO_ID)
    return {"after": after, "after_id": after_id}


def _after_ready(which: JobFilter, key: Key | None) -> dict[str, Any]:
    queue, priority, job_id = key or (which.queue or "", _TOP, _NO_ID)
    return {"after_queue": queue, "after_priority": priority, "after_id": job_id}


def _after_parked(which: JobFilter, key: Key | None) -> dict[str, Any]:
    lock, *rest = key or (which.lock or "", "", _TOP, _NO_ID)
    queue, priority, job_id = rest
    ready = {"after_queue": queue, "after_priority": priority, "after_id": job_id}
    return {"after_lock": lock, **ready}


_AFTER: Mapping[Walk, Callable[[JobFilter, Key | None], dict[str, Any]]] = {
    Walk.IDS: _before,
    Walk.NEWEST: _before,
    Walk.NEWEST_ENDED: _before,
    Walk.RUNNING: _after_moment,
    Walk.SCHEDULED: _after_moment,
    Walk.READY: _after_ready,
    Walk.BEHIND_LOCKS: _after_parked,
}
