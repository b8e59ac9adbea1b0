"""The transition table, and how a job is shown."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, replace
from datetime import UTC, datetime

import pytest

from procrastinate.model.job import (
    TRANSITIONS,
    Error,
    Job,
    Status,
    errors_read_by,
    may_become,
    sources_of,
)
from procrastinate.storage.rows import claimed_job


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_a_job_that_succeeded_never_changes() -> None:
    assert not any(may_become(Status.SUCCEEDED, status) for status in Status)


@pytest.mark.parametrize("ended", [Status.FAILED, Status.CANCELLED, Status.ABORTED])
def test_other_ended_jobs_can_only_be_retried(ended: Status) -> None:
    assert [status for status in Status if may_become(ended, status)] == [Status.TODO]


def test_only_waiting_and_running_jobs_have_not_ended() -> None:
    assert [status for status in Status if not status.is_final] == [Status.TODO, Status.DOING]


def test_sources_are_the_statuses_that_may_become_all_of_these() -> None:
    assert sources_of(Status.SUCCEEDED) == (Status.DOING,)
    assert sources_of(Status.TODO, Status.CANCELLED) == (Status.TODO, Status.DOING)
    assert sources_of(Status.SUCCEEDED, Status.DOING) == ()


class Kept:
    """The errors of jobs, where they are kept; notes who is asked for."""

    def __init__(self, *errors: Error) -> None:
        self.errors = list(errors)
        self.asked: list[int] = []

    def __call__(self, job_id: int) -> list[Error]:
        self.asked.append(job_id)
        return self.errors


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def claimed(kept: Kept, *, attempts: int = 2, lease: int = 2) -> Job:
    row = (7, "q", "task", "{}", 0, None, None, attempts, NOW, None, lease, None, None)
    job = claimed_job(row, {}, 1, NOW)
    errors_read_by(job, kept)
    return job


def test_a_claimed_job_reads_its_errors_once_when_they_are_asked_for() -> None:
    kept = Kept({"message": "x"})
    job = claimed(kept)
    assert (repr(job), kept.asked) == (repr(claimed(Kept())), []), "to show it reads nothing"
    assert job.errors == job.errors == [{"message": "x"}]
    assert kept.asked == [7]


def test_a_job_in_its_first_attempt_has_no_errors_to_be_read() -> None:
    kept = Kept({"message": "x"})
    assert claimed(kept, attempts=1, lease=1).errors == []
    assert kept.asked == []
    assert claimed(kept, attempts=1, lease=2).errors == kept.errors, "it was retried by hand"


def test_copies_of_a_claimed_job_hold_its_errors_and_nothing_that_reads_them() -> None:
    kept = Kept({"message": "x"})
    whole = Job(
        7,
        Status.DOING,
        "q",
        "task",
        {},
        attempts=2,
        deferred_at=NOW,
        started_at=NOW,
        worker=1,
        errors=kept.errors,
        lease=2,
    )
    copies = [pickle.loads(pickle.dumps(claimed(kept))), copy.copy(claimed(kept)), claimed(kept)]
    assert [replace(each) for each in copies] == [whole] * 3
    assert asdict(claimed(kept)) == asdict(whole)
    assert "_read_errors" not in vars(copies[0]) | vars(copies[1])


def test_python_finds_and_sets_the_attributes_of_a_job_by_its_own_short_way() -> None:
    """Else each of some fifty accesses for a job that runs takes five times as long."""
    assert Job.__setattr__ is object.__setattr__
    assert Job.__getattribute__ is object.__getattribute__
    assert not hasattr(Job, "__getattr__")


def test_a_claimed_job_is_as_one_that_was_made_by_its_fields() -> None:
    row = (7, "q", "task", "{}", 3, "l", "ql", 2, NOW, NOW, 4, 5, '{"a": 1}')
    assert claimed_job(row, {"n": 1}, 1, NOW) == Job(
        7,
        Status.DOING,
        "q",
        "task",
        {"n": 1},
        priority=3,
        lock="l",
        queueing_lock="ql",
        attempts=2,
        deferred_at=NOW,
        scheduled_at=NOW,
        started_at=NOW,
        worker=1,
        lease=4,
        crashes=5,
        meta={"a": 1},
    )


def test_call_string_cuts_long_arguments() -> None:
    job = Job(7, Status.TODO, "default", "mail", {"to": "a@b", "text": "x" * 100})

    assert job.call_string == "mail[7](to='a@b', text='" + "x" * 58 + "…)"
