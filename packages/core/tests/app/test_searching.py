"""Searching, counting, grouping and explaining jobs, in the database and in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from procrastinate import AiopgConnector, App, errors
from procrastinate.model.job import Job
from procrastinate.model.monitoring.search import Count
from procrastinate.testing import InMemoryConnector

DAY = timedelta(days=1)


@pytest.fixture(params=["database", "memory"])
def app(request: pytest.FixtureRequest, dsn: str) -> Iterator[App]:
    connector = AiopgConnector(dsn=dsn) if request.param == "database" else InMemoryConnector()
    with App(connector=connector).open() as app:
        yield app


class Failure(Exception):
    """What the task raises that always fails."""


@pytest.fixture
def filled(app: App) -> dict[str, list[int]]:
    """Three jobs in each state but `running`: their ids by state, in the order of deferring."""

    @app.task(name="fine", queue="work")
    def fine() -> None:
        pass

    @app.task(name="bad", queue="work")
    def bad(n: int) -> None:
        raise Failure(f"host 'db-{n}' did not answer within {n} s\nsecond line")

    found = {
        "succeeded": [fine.defer() for _ in range(3)],
        "failed": [bad.defer(n=n) for n in range(3)],
    }
    app.run_worker(wait=False, queues=["work"])
    found["cancelled"] = [fine.defer() for _ in range(3)]
    for job_id in found["cancelled"]:
        assert app.job_manager.cancel_job_by_id(job_id)
    found["ready"] = [
        fine.configure(priority=priority, queue=queue).defer()
        for priority, queue in [(0, "b"), (0, "a"), (1, "a")]
    ]
    found["scheduled"] = [fine.configure(schedule_in={"days": n}).defer() for n in (3, 1, 2)]
    return found


def ids(jobs: list[Job]) -> list[int]:
    return [job.id for job in jobs]


def pages(app: App, limit: int, **filters: Any) -> list[int]:
    """The ids of all pages of a search."""
    found: list[int] = []
    cursor = None
    for _ in range(100):
        page = app.job_manager.search_jobs(cursor=cursor, limit=limit, **filters)
        assert len(page.jobs) <= limit
        found += ids(page.jobs)
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("there is no end")


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_every_state_is_found_in_its_order(
    app: App, filled: dict[str, list[int]], limit: int
) -> None:
    _, a, first = filled["ready"]
    third, first_due, second_due = filled["scheduled"]
    newest = [job_id for state in ("cancelled", "failed") for job_id in reversed(filled[state])]
    in_order = {
        "succeeded": filled["succeeded"][::-1],
        "failed": filled["failed"][::-1],
        "scheduled": [first_due, second_due, third],
    }
    for state, expected in in_order.items():
        assert pages(app, limit, state=state) == expected
    ready = pages(app, limit, state="ready")
    assert sorted(ready) == sorted(filled["ready"])
    assert ready.index(first) < ready.index(a) or app.job_manager.get_job(a).priority == 0
    assert pages(app, limit, state=["failed", "cancelled"]) == sorted(newest, reverse=True)
    everything = sorted((each for some in filled.values() for each in some), reverse=True)
    assert pages(app, limit) == everything


def test_a_search_stops_at_its_budget_and_goes_on(app: App, filled: dict[str, list[int]]) -> None:
    page = app.job_manager.search_jobs(task="none", budget=2)
    assert (page.jobs, page.is_complete) == ([], False)
    assert page.cursor is not None
    rounds = 0
    while page.cursor is not None:
        page = app.job_manager.search_jobs(task="none", budget=2, cursor=page.cursor)
        rounds += 1
    assert page.is_complete
    assert rounds > 0
    assert app.job_manager.search_jobs(task="none").looked_at == sum(map(len, filled.values()))


def test_filters_by_time_and_error(app: App, filled: dict[str, list[int]]) -> None:
    manager = app.job_manager
    failed = filled["failed"]
    ends: list[datetime] = []
    for job_id in failed:
        end = manager.get_job(job_id).finished_at
        assert end is not None
        ends.append(end)
    late = {job_id for job_id, end in zip(failed, ends, strict=True) if end >= ends[1]}
    for find in (manager.list_jobs, lambda **given: manager.search_jobs(**given).jobs):
        assert set(ids(find(state="failed", since=ends[1]))) == late
        assert ids(find(since=max(ends) + DAY)) == []
        assert failed[0] not in ids(find(until=ends[0]))
        assert set(ids(find(error="FAILURE: host 'DB-"))) == set(failed)
        assert ids(find(error="host 'db-*' did*within 1 s")) == [failed[1]]
        assert ids(find(error="100%")) == ids(find(error="db_1")) == []
        assert ids(find(error="second line", queue="other")) == []


def test_counts_are_complete_or_say_that_they_are_not(
    app: App, filled: dict[str, list[int]]
) -> None:
    manager = app.job_manager
    assert manager.count_jobs(error="second line") == Count(3)
    assert manager.count_jobs(state=["ready", "scheduled", "failed"]) == Count(9)
    assert manager.count_jobs(state="succeeded", id=filled["succeeded"][:2]) == Count(2)
    assert manager.count_jobs(status=[]) == Count(0)
    some = manager.count_jobs(budget=2)
    assert (some.is_complete, str(some)) == (False, "2+")


@pytest.mark.parametrize(
    "given",
    [
        {"state": "waiting"},
        {"since": datetime(2026, 1, 1)},
        {"until": "yesterday"},
        {"error": ""},
        {"error": 7},
        {"limit": 0},
        {"budget": 0},
        {"cursor": "x"},
        {"cursor": 7},
        {"cursor": "WyJuZXdlc3QiLG51bGwsInh4Il0"},
        {"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_what_makes_no_sense_is_refused(app: App, given: dict[str, Any]) -> None:
    with pytest.raises((errors.InvalidOption, errors.InvalidTimestamp)):
        app.job_manager.search_jobs(**given)


def test_a_cursor_fits_the_search_that_gave_it(app: App, filled: dict[str, list[int]]) -> None:
    cursor = app.job_manager.search_jobs(state="failed", limit=1).cursor
    assert cursor is not None
    with pytest.raises(errors.InvalidOption, match="same filters"):
        app.job_manager.search_jobs(state="ready", cursor=cursor)


def test_failures_come_in_groups_that_can_be_retried(
    app: App, filled: dict[str, list[int]]
) -> None:
    manager = app.job_manager
    (group,) = manager.list_failures()
    assert (group.task_name, group.error_text, str(group.count), group.newest_job_id) == (
        "bad",
        "host * did not answer within * s",
        "3",
        filled["failed"][-1],
    )
    assert group.error_type.endswith("Failure")
    assert manager.list_failures(task="fine") == manager.list_failures(queue="a") == []
    assert group.first_at is not None
    assert manager.list_failures(until=group.first_at) == []
    assert manager.count_jobs(**group.filters) == group.count
    assert manager.retry_jobs(**group.filters) == sorted(filled["failed"])
    assert manager.list_failures() == []


def test_bulk_changes_take_the_same_filters(app: App, filled: dict[str, list[int]]) -> None:
    manager = app.job_manager
    assert manager.retry_jobs(error="within 1 s") == [filled["failed"][1]]
    assert manager.cancel_jobs(state="scheduled") == sorted(filled["scheduled"])
    with pytest.raises(errors.InvalidOption, match="succeeded cannot be retried"):
        manager.retry_jobs(state="succeeded")


def test_queues_are_seen_at_a_glance(app: App, filled: dict[str, list[int]]) -> None:
    app.queue_manager.pause("a", reason="because")
    app.queue_manager.pause("empty")
    seen = {info.name: info for info in app.queue_manager.list_queues()}
    counts = {
        name: [str(each) for each in (info.ready, info.scheduled, info.running, info.failed)]
        for name, info in seen.items()
    }
    assert counts == {
        "a": ["2", "0", "0", "0"],
        "b": ["1", "0", "0", "0"],
        "empty": ["0", "0", "0", "0"],
        "work": ["0", "3", "0", "3"],
    }
    oldest = min(app.job_manager.list_jobs(queue="a"), key=lambda job: job.id)
    assert seen["a"].oldest_ready_since == oldest.deferred_at
    assert [name for name, info in seen.items() if info.pause] == ["a", "empty"]


def kinds(app: App, job_id: int) -> list[str]:
    return [reason.kind for reason in app.job_manager.why_waiting(job_id)]


def test_why_a_job_waits(app: App, filled: dict[str, list[int]]) -> None:
    manager = app.job_manager
    assert kinds(app, filled["failed"][0]) == ["ended"]
    assert kinds(app, filled["ready"][0]) == ["no-worker"]
    assert kinds(app, filled["scheduled"][0]) == ["schedule", "no-worker"]
    (reason, _) = manager.why_waiting(filled["scheduled"][0])
    assert reason.until == manager.get_job(filled["scheduled"][0]).scheduled_at
    app.queue_manager.pause("b", reason="no more mail", by="me")
    assert next(each.text for each in manager.why_waiting(filled["ready"][0])) == (
        "its queue 'b' is paused by me: no more mail"
    )
    with pytest.raises(errors.JobNotFound, match="there is no job"):
        manager.why_waiting(2**62)
