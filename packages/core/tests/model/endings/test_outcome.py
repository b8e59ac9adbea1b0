"""What a finished attempt becomes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from procrastinate import json_codec
from procrastinate.errors import JobAborted, TaskTimeout
from procrastinate.model.endings.outcome import (
    INTERRUPTED,
    RESULT_REFUSED,
    SUCCEEDED,
    UNSTARTED,
    AbortReason,
    Changes,
    Finished,
    Outcome,
    Requeued,
    Standing,
    has_succeeded,
    judged,
    outcome_of,
    retried,
    stronger,
    was_written,
    without_refused,
)
from procrastinate.model.endings.retry import BaseRetryStrategy, RetryDecision, RetryStrategy
from procrastinate.model.job import HELD, Job, Status, may_become
from procrastinate.model.partitions import Partitions
from procrastinate.model.text.failure import MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS, describe

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = Job(1, Status.DOING, "default", "task", {}, attempts=2)


def ending(exception: BaseException | None, **options: Any) -> Any:
    return outcome_of(
        JOB, exception, **{"strategy": None, "abort_reason": None, "now": NOW, **options}
    )


def ended(exception: BaseException | None, reason: AbortReason | None, **options: Any) -> Any:
    """The ending of an attempt as the worker sees it, with a timeout of a minute."""
    if exception is not None:
        exception = judged(exception, reason, 60.0)
    return ending(exception, abort_reason=reason, **options)


LEASE_LOST, USER_REQUEST, SHUTDOWN, TIMEOUT, LEASE_DOUBTFUL = AbortReason
CANCELLED = asyncio.CancelledError()
ABORTED = JobAborted("enough")
ABORTED_IN_GROUP = ExceptionGroup("tasks", [ExceptionGroup("more", [JobAborted()]), JobAborted()])
MIXED_GROUP = ExceptionGroup("tasks", [JobAborted(), ValueError()])
HANDED_BACK = "handed back"


@pytest.mark.parametrize("strategy", [None, RetryStrategy()], ids=["once", "with retries"])
@pytest.mark.parametrize(
    ("exception", "reason", "becomes"),
    [
        # What returned has succeeded, whatever it was asked to.
        (None, None, "succeeded"),
        (None, USER_REQUEST, "succeeded"),
        (None, SHUTDOWN, "succeeded"),
        (None, TIMEOUT, "succeeded"),
        (None, LEASE_DOUBTFUL, "succeeded"),
        (None, LEASE_LOST, "succeeded"),
        # Nothing was asked of it.
        (ValueError("no"), None, "failed: ValueError"),
        (CANCELLED, None, "failed: asyncio.exceptions.CancelledError"),
        (SystemExit(1), None, "failed: SystemExit"),
        (ABORTED, None, "aborted: procrastinate.errors.JobAborted"),
        (ABORTED_IN_GROUP, None, "aborted: ExceptionGroup"),
        (MIXED_GROUP, None, "failed: ExceptionGroup"),
        # A person asked for its end.
        (ValueError("clean-up"), USER_REQUEST, "aborted: ValueError"),
        (CANCELLED, USER_REQUEST, "aborted: asyncio.exceptions.CancelledError"),
        (ABORTED, USER_REQUEST, "aborted: procrastinate.errors.JobAborted"),
        # The worker has to end.
        (ValueError("clean-up"), SHUTDOWN, HANDED_BACK),
        (CANCELLED, SHUTDOWN, HANDED_BACK),
        (ABORTED, SHUTDOWN, HANDED_BACK),
        # Its worker cannot show that it lives, or has lost the job.
        (ValueError("clean-up"), LEASE_DOUBTFUL, HANDED_BACK),
        (ABORTED, LEASE_DOUBTFUL, HANDED_BACK),
        (CANCELLED, LEASE_LOST, HANDED_BACK),
        (ABORTED, LEASE_LOST, HANDED_BACK),
        # Its time was over.
        (ValueError("clean-up"), TIMEOUT, "failed: procrastinate.errors.TaskTimeout"),
        (CANCELLED, TIMEOUT, "failed: procrastinate.errors.TaskTimeout"),
        (ABORTED, TIMEOUT, "failed: procrastinate.errors.TaskTimeout"),
        (ABORTED_IN_GROUP, TIMEOUT, "failed: procrastinate.errors.TaskTimeout"),
    ],
)
def test_what_an_attempt_becomes(
    exception: BaseException | None,
    reason: AbortReason | None,
    becomes: str,
    strategy: RetryStrategy | None,
) -> None:
    result = ended(exception, reason, strategy=strategy)

    status, _, error = becomes.partition(": ")
    if becomes == HANDED_BACK:
        assert result is INTERRUPTED
    elif status == "failed" and strategy is not None:
        assert result == Requeued(when=timedelta(), error=result.error)
    else:
        assert result == Finished(Status(status), result.error)
    assert (result.error or {}).get("type", "") == error


@pytest.mark.parametrize("second", AbortReason)
@pytest.mark.parametrize("first", [None, *AbortReason])
def test_the_strongest_request_holds_in_whatever_order_they_came(
    first: AbortReason | None, second: AbortReason
) -> None:
    strongest_first = [LEASE_LOST, USER_REQUEST, SHUTDOWN, TIMEOUT, LEASE_DOUBTFUL]
    expected = next(reason for reason in strongest_first if reason in (first, second))
    assert stronger(first, second) is expected


def test_a_timeout_names_its_limit_and_what_the_task_raised() -> None:
    error = ended(ValueError("in finally"), TIMEOUT).error

    assert error["message"] == "the attempt took longer than its timeout of 60 s"
    assert "ValueError: in finally" in error["traceback"]


def test_a_strategy_may_name_timeouts() -> None:
    strategy = RetryStrategy(retry_exceptions=[TaskTimeout])

    assert ended(JobAborted(), TIMEOUT, strategy=strategy).status is Status.TODO
    assert ended(TimeoutError(), None, strategy=strategy).status is Status.FAILED


def test_a_task_that_raises_fails_with_its_error() -> None:
    result = ending(ValueError("no"))

    assert result == Finished(Status.FAILED, result.error)
    assert (result.error["type"], result.error["message"]) == ("ValueError", "no")
    assert (result.error["attempt"], result.error["at"]) == (2, "2026-01-02T03:04:05+00:00")


def test_a_retry_keeps_the_error_of_the_failed_attempt() -> None:
    result = ending(ValueError("no"), strategy=RetryStrategy(max_attempts=5, wait=3))

    assert result == Requeued(when=timedelta(seconds=3), error=result.error)
    assert result.error["message"] == "no"


def test_a_broken_retry_strategy_fails_the_job_and_is_reported() -> None:
    class Broken(BaseRetryStrategy):
        def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
            raise ZeroDivisionError("oops")

    result = ending(ValueError("no"), strategy=Broken())

    assert result.status is Status.FAILED
    assert result.error["message"] == "no"
    assert result.error["retry_error"]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize("exception", [None, ValueError(), JobAborted(), SystemExit(1)])
@pytest.mark.parametrize("strategy", [None, RetryStrategy()])
@pytest.mark.parametrize("reason", [None, *AbortReason])
def test_every_ending_is_a_legal_transition(
    exception: BaseException | None, strategy: RetryStrategy | None, reason: AbortReason | None
) -> None:
    result = ended(exception, reason, strategy=strategy)

    assert may_become(Status.DOING, result.status)
    assert isinstance(result, Requeued) == (result.status is Status.TODO)


def test_texts_are_capped_and_keep_their_end() -> None:
    error = describe(ValueError("a" * 10_000 + "END"), attempt=1, now=NOW)

    assert len(error["message"]) < MESSAGE_CHARACTERS + 50
    assert error["message"].endswith("END")
    assert len(error["traceback"]) < TRACEBACK_CHARACTERS + 50


def test_what_postgresql_cannot_store_is_escaped() -> None:
    error = describe(ValueError("nul \0 and surrogate \udcff"), attempt=1, now=NOW)

    assert error["message"] == "nul \\x00 and surrogate \\udcff"
    assert "\0" not in json_codec.dumps(error)


def test_an_exception_that_cannot_be_printed_is_still_described() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = describe(Silent(), attempt=1, now=NOW)

    assert error["message"] == "<str() of the exception failed with RuntimeError>"


@pytest.mark.parametrize("garbage", [True, 3, "tomorrow", timedelta(seconds=1), NOW])
def test_a_strategy_that_returns_something_else_fails_the_job_and_is_reported(
    garbage: object,
) -> None:
    class Broken(BaseRetryStrategy):
        def get_retry_decision(self, *, exception: BaseException, job: Job) -> Any:
            return garbage

    result = ending(ValueError("no"), strategy=Broken())

    assert isinstance(result, Finished)
    assert result.status is Status.FAILED
    assert result.error["message"] == "no"
    assert "must return a RetryDecision or None, not" in result.error["retry_error"]["message"]


def test_a_retry_says_when_and_what_changes() -> None:
    error = {"message": "no"}
    at = retried(RetryDecision(retry_at=NOW, priority=3, queue="q", lock="l"), error)
    assert at == Requeued(when=NOW, changes=Changes(3, "q", "l"), error=error)
    assert retried(RetryDecision()) == Requeued(when=timedelta())


def test_an_outcome_is_written_for_running_jobs_only() -> None:
    """As `TRANSITIONS` has it: no other status may become all that an attempt may lead to."""
    assert HELD == (Status.DOING,)


@pytest.mark.parametrize("outcome", [SUCCEEDED, INTERRUPTED, UNSTARTED, Requeued(when=NOW)])
def test_an_outcome_leads_where_an_attempt_may_lead(outcome: Outcome) -> None:
    assert all(may_become(held, outcome.status) for held in HELD)


@pytest.mark.parametrize(
    ("outcome", "succeeded"),
    [
        (SUCCEEDED, True),
        (Finished(Status.SUCCEEDED, result="null"), True),
        (Finished(Status.SUCCEEDED, result_error="too large"), True),
        (Finished(Status.FAILED), False),
        (Finished(Status.ABORTED), False),
        (INTERRUPTED, False),
    ],
)
def test_an_attempt_has_succeeded_with_a_result_or_without(
    outcome: Outcome, succeeded: bool
) -> None:
    assert has_succeeded(outcome) is succeeded


CLAIMED = Job(1, Status.DOING, "q", "task", {}, worker=7, lease=4, crashes=1)


@pytest.mark.parametrize(
    ("standing", "written"),
    [
        # The lease has ended, and no recovery was possible: so the write did it.
        (Standing(Status.SUCCEEDED, 7, 4, 1), True),
        (Standing(Status.TODO, None, 4, 1), True),
        (Standing(Status.DOING, 7, 5, 1), True),
        (Standing(Status.DOING, 8, 6, 1), True),
        (Standing(Status.TODO, None, 4, 0), True),  # and retried by hand
        (None, True),  # and deleted
        # It was recovered.
        (Standing(Status.TODO, None, 4, 2), False),
        (Standing(Status.DOING, 8, 5, 2), False),
        (Standing(Status.FAILED, 7, 4, 2), False),
        # The server forgot the claim in a crash, and another worker has the job.
        (Standing(Status.TODO, None, 3, 1), False),
        (Standing(Status.DOING, 8, 4, 1), False),
        (Standing(Status.DOING, 7, 4, 1), False),
    ],
)
def test_a_write_that_matched_nothing_was_made_before_unless_the_job_was_lost(
    standing: Standing | None, written: bool
) -> None:
    assert was_written(CLAIMED, standing) is written


class Moves(BaseRetryStrategy):
    """Gives the job a lock."""

    def __init__(self, lock: str) -> None:
        self.lock = lock

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        return RetryDecision(lock=self.lock)


MANY_PARTITIONS = Partitions(64, boundary_id=9)


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, id=64 + 27),  # the id says partition 0
        JOB,  # an older one: without a key it stayed in partition 0
        replace(JOB, lock="ci"),
        replace(JOB, queueing_lock="ci"),
    ],
)
def test_a_retry_cannot_take_a_job_to_the_lock_of_another_partition(job: Job) -> None:
    options = {"abort_reason": None, "now": NOW, "partitions": MANY_PARTITIONS}
    assert [MANY_PARTITIONS.of_key(lock) for lock in ("ci", "n", "k")] == [0, 0, 82]
    stays = outcome_of(job, ValueError(), strategy=Moves("n"), **options)
    assert isinstance(stays, Requeued)
    moves = outcome_of(job, ValueError(), strategy=Moves("k"), **options)
    assert (moves.status, moves.error["type"]) == (Status.FAILED, "ValueError")
    assert "the lock 'k' belongs to partition 82" in moves.error["retry_error"]["message"]
    assert isinstance(ending(ValueError(), strategy=Moves("k")), Requeued)


LOST = {
    "attempt": 3,
    "at": None,
    "type": "",
    "message": "the error of this attempt could not be stored",
    "traceback": "",
}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, None),
        ({"message": "\0", "attempt": 3}, LOST),
        ({"message": "日…\ud800", "attempt": 3}, {"message": r"\u65e5\u2026\ud800", "attempt": 3}),
        (
            {"message": "a", "retry_error": {"message": "é"}},
            {"message": "a", "retry_error": {"message": r"\xe9"}},
        ),
    ],
)
def test_an_error_that_is_refused_is_tried_in_ascii_before_it_is_given_up(
    error: Any, expected: Any
) -> None:
    again = without_refused(Requeued(error=error), 3)
    assert again == Requeued(error=expected)
    assert without_refused(again, 3) == Requeued(error=None if error is None else LOST)


def test_so_is_the_reason_why_a_result_is_not_kept() -> None:
    reasons = [Finished(Status.SUCCEEDED, result_error=each) for each in ("…", r"\u2026")]
    lost = Finished(Status.SUCCEEDED, result_error=RESULT_REFUSED)
    assert [without_refused(each, 1) for each in reasons] == [reasons[1], lost]
    assert without_refused(Finished(Status.SUCCEEDED, result="1"), 1) == lost
