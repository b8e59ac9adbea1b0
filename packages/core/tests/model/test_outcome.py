"""What a finished attempt becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from procrastinate import json_codec
from procrastinate.errors import JobAborted
from procrastinate.model.job import Job, Status, may_become
from procrastinate.model.outcome import (
    MESSAGE_CHARACTERS,
    SUCCEEDED,
    TRACEBACK_CHARACTERS,
    describe,
    ending_of,
)
from procrastinate.model.retry import BaseRetryStrategy, RetryDecision, RetryStrategy

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
JOB = Job(1, Status.DOING, "default", "task", {}, attempts=2)


def ending(exception: BaseException | None, **options: Any) -> Any:
    return ending_of(
        JOB, exception, **{"strategy": None, "abort_requested": False, "now": NOW, **options}
    )


def test_a_task_that_returns_has_succeeded_even_if_it_was_to_be_aborted() -> None:
    assert ending(None) == SUCCEEDED
    assert ending(None, abort_requested=True) == SUCCEEDED


def test_a_task_that_raises_fails_with_its_error() -> None:
    result = ending(ValueError("no"))

    assert (result.status, result.retry) == (Status.FAILED, None)
    assert (result.error["type"], result.error["message"]) == ("ValueError", "no")
    assert (result.error["attempt"], result.error["at"]) == (2, "2026-01-02T03:04:05+00:00")


def test_a_retry_keeps_the_error_of_the_failed_attempt() -> None:
    result = ending(ValueError("no"), strategy=RetryStrategy(max_attempts=5, wait=3))

    assert (result.status, result.retry) == (
        Status.TODO,
        RetryDecision(retry_in=timedelta(seconds=3)),
    )
    assert result.error["message"] == "no"


@pytest.mark.parametrize(
    ("exception", "asked"), [(JobAborted("enough"), False), (ValueError("cleanup"), True)]
)
def test_an_aborted_job_is_not_retried(exception: Exception, asked: bool) -> None:
    result = ending(exception, strategy=RetryStrategy(), abort_requested=asked)

    assert (result.status, result.retry) == (Status.ABORTED, None)


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
@pytest.mark.parametrize("asked", [True, False])
def test_every_ending_is_a_legal_transition(
    exception: BaseException | None, strategy: RetryStrategy | None, asked: bool
) -> None:
    result = ending(exception, strategy=strategy, abort_requested=asked)

    assert may_become(Status.DOING, result.status)
    assert (result.retry is not None) == (result.status is Status.TODO)


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

    assert (result.status, result.retry) == (Status.FAILED, None)
    assert result.error["message"] == "no"
    assert "must return a RetryDecision or None, not" in result.error["retry_error"]["message"]


def test_attempts_before_a_retry_by_hand_do_not_count() -> None:
    """Neither for the number of retries nor for the length of the wait."""
    strategy = RetryStrategy(max_attempts=2, linear_wait=10)
    retries = [
        ending_of(
            Job(1, Status.DOING, "default", "task", {}, attempts=n, attempts_forgiven=3),
            ValueError("no"),
            strategy=strategy,
            abort_requested=False,
            now=NOW,
        ).retry
        for n in (4, 5, 6)
    ]
    assert retries == [
        RetryDecision(retry_in=timedelta()),
        RetryDecision(retry_in=timedelta(seconds=10)),
        None,
    ]
