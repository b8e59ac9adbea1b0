"""What a wait gives for each way in which a job can have ended, and what its errors say."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from procrastinate.errors import (
    JobAborted,
    JobFailed,
    JobUnsuccessful,
    JobWasAborted,
    JobWasCancelled,
    ResultNotKept,
)
from procrastinate.model.endings import ended
from procrastinate.model.job import Job, Status

FIRST = {"attempt": 1, "type": "OSError", "message": "away", "traceback": "..."}
LAST = {"attempt": 2, "type": "ValueError", "message": "no such page", "traceback": "..."}


def job(status: Status, **more: Any) -> Job:
    return Job(id=12, status=status, queue="q", task_name="shop.add", task_kwargs={}, **more)


@pytest.mark.parametrize("result", [None, 0, "", [], {"sum": 3}])
def test_a_result_is_given_whatever_it_is(result: Any) -> None:
    assert ended.value_of(job(Status.SUCCEEDED, has_result=True, result=result)) == result


@pytest.mark.parametrize(
    "status, kind, happened",
    [
        (Status.FAILED, JobFailed, "has failed: "),
        (Status.CANCELLED, JobWasCancelled, "was cancelled; its last error: "),
        (Status.ABORTED, JobWasAborted, "was aborted: "),
    ],
)
def test_each_end_without_success_is_an_error_of_its_own(
    status: Status, kind: type[JobUnsuccessful], happened: str
) -> None:
    of = job(status, errors=[FIRST, LAST])
    with pytest.raises(JobUnsuccessful) as caught:
        ended.value_of(of)
    error = caught.value
    assert type(error) is kind
    assert str(error) == f"job 12 of task shop.add {happened}ValueError: no such page"
    assert (error.job, error.error) == (of, LAST)
    assert (error.__cause__, error.__context__) == (None, None)
    assert not isinstance(error, JobAborted)


def test_a_job_without_errors_has_none_to_show() -> None:
    error = ended.unsuccessful(job(Status.CANCELLED))
    assert (str(error), error.error) == ("job 12 of task shop.add was cancelled", None)


@pytest.mark.parametrize("errors", [["x"], [{}], [{"type": 5, "message": None}], [None]])
def test_an_entry_that_was_written_by_hand_spoils_no_message(errors: list[Any]) -> None:
    error = ended.unsuccessful(job(Status.FAILED, errors=errors))
    assert str(error).startswith("job 12 of task shop.add has failed")
    assert error.error == errors[-1]


@pytest.mark.parametrize(
    "status, said",
    [(Status.FAILED, "has failed: "), (Status.ABORTED, "was aborted: ")],
)
@pytest.mark.parametrize("message", ["", " ", None])
def test_an_error_without_a_message_is_told_by_its_type_alone(
    status: Status, said: str, message: str | None
) -> None:
    error = ended.unsuccessful(job(status, errors=[{**LAST, "message": message}]))
    assert str(error) == f"job 12 of task shop.add {said}ValueError"


@pytest.mark.parametrize("entry", [{}, {"type": "", "message": ""}, {"type": None}])
def test_an_error_that_says_nothing_adds_no_colon(entry: dict[str, Any]) -> None:
    error = ended.unsuccessful(job(Status.FAILED, errors=[entry]))
    assert str(error) == "job 12 of task shop.add has failed"


def test_a_message_is_one_line_that_gives_no_orders_to_a_terminal() -> None:
    nasty = {"type": "E", "message": "a\n\x1b[2Jb" + "x" * 10_000}
    message = str(ended.unsuccessful(job(Status.FAILED, errors=[nasty])))
    assert message.startswith(r"job 12 of task shop.add has failed: E: a\n\x1b[2Jb")
    assert message.isprintable()
    assert len(message) < 1_000


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_an_error_can_be_copied_and_pickled(again: Any) -> None:
    error = ended.unsuccessful(job(Status.FAILED, errors=[LAST]))
    error.add_note("seen in a test")
    other = again(error)
    assert (type(other), str(other), other.job) == (JobFailed, str(error), error.job)
    assert (other.error, other.__notes__) == (LAST, ["seen in a test"])


def test_a_result_that_was_not_asked_for_is_not_there() -> None:
    with pytest.raises(ResultNotKept, match=r"job 12 of task shop.add has succeeded.*result=True"):
        ended.value_of(job(Status.SUCCEEDED))


def test_a_result_that_could_not_be_stored_says_why() -> None:
    with pytest.raises(ResultNotKept, match="there is no result: a set is not JSON"):
        ended.value_of(job(Status.SUCCEEDED, result_error="a set is not JSON"))


@pytest.mark.parametrize("status", [Status.TODO, Status.DOING])
def test_a_job_that_has_not_ended_is_out_of_time(status: Status) -> None:
    with pytest.raises(TimeoutError, match=rf"job 12 of task shop.add has not ended.*{status}"):
        ended.value_of(job(status))
