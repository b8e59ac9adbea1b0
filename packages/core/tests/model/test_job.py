"""The transition table, and how a job is shown."""

from __future__ import annotations

import pytest

from procrastinate.model.job import TRANSITIONS, Job, Status, may_become


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_a_job_that_succeeded_never_changes() -> None:
    assert not any(may_become(Status.SUCCEEDED, status) for status in Status)


@pytest.mark.parametrize("ended", [Status.FAILED, Status.CANCELLED, Status.ABORTED])
def test_other_ended_jobs_can_only_be_retried(ended: Status) -> None:
    assert [status for status in Status if may_become(ended, status)] == [Status.TODO]


def test_only_waiting_and_running_jobs_have_not_ended() -> None:
    assert [status for status in Status if not status.is_final] == [Status.TODO, Status.DOING]


def test_call_string_cuts_long_arguments() -> None:
    job = Job(7, Status.TODO, "default", "mail", {"to": "a@b", "text": "x" * 100})

    assert job.call_string == "mail[7](to='a@b', text='" + "x" * 58 + "…)"
