"""Whether, when and how a failed attempt is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procrastinate.errors import InvalidOption, InvalidTimestamp
from procrastinate.model.endings.retry import (
    LONGEST_WAIT,
    RetryDecision,
    RetryStrategy,
    strategy_from,
)
from procrastinate.model.job import Job, Status


def job(attempts: int) -> Job:
    return Job(1, Status.DOING, "default", "task", {}, attempts=attempts)


def waits(strategy: RetryStrategy, attempts: int) -> list[float]:
    return [strategy.seconds_before_retry(n) for n in range(1, attempts + 1)]


def test_fixed_linear_and_exponential_waits_add_up() -> None:
    assert waits(RetryStrategy(wait=5), 3) == [5, 5, 5]
    assert waits(RetryStrategy(linear_wait=5), 3) == [0, 5, 10]
    assert waits(RetryStrategy(exponential_wait=2), 4) == [2, 4, 8, 16]
    assert waits(RetryStrategy(wait=1, linear_wait=1, exponential_wait=3), 2) == [4, 11]


def test_max_wait_caps_the_sum() -> None:
    assert waits(RetryStrategy(exponential_wait=10, max_wait=500), 4) == [10, 100, 500, 500]


@pytest.mark.parametrize("attempts", [1_000, 2**31 - 1])
def test_endless_exponential_growth_does_not_overflow(attempts: int) -> None:
    strategy = RetryStrategy(exponential_wait=9.5)

    assert strategy.seconds_before_retry(attempts) == LONGEST_WAIT
    assert strategy.get_retry_decision(exception=ValueError(), job=job(attempts)) is not None


@given(random=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1))
def test_jitter_shortens_a_wait_by_at_most_its_fraction(random: float, jitter: float) -> None:
    strategy = RetryStrategy(wait=100, jitter=jitter, random=lambda: random)

    assert 100 * (1 - jitter) <= strategy.seconds_before_retry(1) <= 100


def test_max_attempts_counts_retries_after_the_first_attempt() -> None:
    strategy = RetryStrategy(max_attempts=2)
    decisions = [strategy.get_retry_decision(exception=ValueError(), job=job(n)) for n in (1, 2, 3)]

    assert [decision is not None for decision in decisions] == [True, True, False]


def test_only_the_named_exceptions_and_their_subclasses_are_retried() -> None:
    strategy = RetryStrategy(retry_exceptions=[OSError])

    assert strategy.get_retry_decision(exception=ConnectionError(), job=job(1)) is not None
    assert strategy.get_retry_decision(exception=ValueError(), job=job(1)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": -1},
        {"max_attempts": "3"},
        {"max_attempts": True},
        {"max_attempts": 2.0},
        {"wait": float("inf")},
        {"wait": True},
        {"linear_wait": float("-inf")},
        {"exponential_wait": float("inf")},
        {"exponential_wait": -2},
        {"exponential_wait": float("nan")},
        {"max_wait": float("inf")},
        {"max_wait": -1},
        {"jitter": float("nan")},
        {"jitter": True},
        {"jitter": -0.1},
        {"retry_exceptions": "ValueError"},
        {"retry_exceptions": ValueError()},
        {"retry_exceptions": [int]},
        {"wait": -1},
        {"wait": "1"},
        {"linear_wait": float("nan")},
        {"jitter": 1.5},
        {"retry_exceptions": ["ValueError"]},
    ],
)
def test_a_bad_option_is_named_with_its_value(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidOption, match=name):
        RetryStrategy(**options)


def test_no_wait_is_longer_than_a_year_whatever_the_cap() -> None:
    strategy = RetryStrategy(wait=1e300, max_wait=1e300)
    assert strategy.seconds_before_retry(1) == LONGEST_WAIT


def test_retry_true_an_int_and_a_strategy() -> None:
    strategy = RetryStrategy(wait=1)

    assert strategy_from(False) is None
    assert strategy_from(True) == RetryStrategy(max_attempts=None)
    assert strategy_from(3) == RetryStrategy(max_attempts=3)
    assert strategy_from(strategy) is strategy
    with pytest.raises(InvalidOption, match="'always'"):
        strategy_from("always")
    with pytest.raises(InvalidOption, match=r"retry .* -1"):
        strategy_from(-1)


def test_a_decision_has_one_time_at_most() -> None:
    now = datetime.now(UTC)
    with pytest.raises(InvalidOption, match="exclude each other"):
        RetryDecision(retry_at=now, retry_in=timedelta(seconds=1))
    with pytest.raises(InvalidTimestamp, match="time zone"):
        RetryDecision(retry_at=now.replace(tzinfo=None))


def test_a_decision_is_for_a_time_that_the_database_and_python_can_hold() -> None:
    with pytest.raises(InvalidOption, match=r"retry_in .* 1000 years"):
        RetryDecision(retry_in=timedelta.max)
    with pytest.raises(InvalidTimestamp, match=r"retry_at .* 9999"):
        RetryDecision(retry_at=datetime.max.replace(tzinfo=UTC))


def test_a_decision_is_for_a_time_or_after_a_delay() -> None:
    at = datetime.now(UTC)
    assert RetryDecision(retry_in={"minutes": 1}).when == timedelta(minutes=1)
    assert RetryDecision().when == timedelta()
    assert RetryDecision(retry_at=at).when == at


amounts = st.one_of(
    st.floats(0, allow_infinity=False), st.integers(0), st.just(10**400), st.just(5e-324)
)


@given(
    wait=amounts,
    linear_wait=amounts,
    exponential_wait=amounts,
    max_wait=st.none() | amounts,
    jitter=st.floats(0, 1),
    attempts=st.integers(1, 10**6) | st.just(2**31 - 1),
)
def test_every_wait_is_a_time_that_can_be_waited_for(
    wait: float,
    linear_wait: float,
    exponential_wait: float,
    max_wait: float | None,
    jitter: float,
    attempts: int,
) -> None:
    """Whatever the options and however many attempts: no overflow, and never above the cap."""
    strategy = RetryStrategy(
        wait=wait,
        linear_wait=linear_wait,
        exponential_wait=exponential_wait,
        max_wait=max_wait,
        jitter=jitter,
    )
    seconds = strategy.seconds_before_retry(attempts)
    assert 0 <= seconds <= (LONGEST_WAIT if max_wait is None else min(max_wait, LONGEST_WAIT))
    decision = strategy.get_retry_decision(exception=ValueError(), job=job(attempts))
    assert decision is not None
    assert isinstance(decision.when, timedelta)
    assert timedelta() <= decision.when <= timedelta(seconds=LONGEST_WAIT)


@given(
    wait=st.floats(0, 1e6),
    linear_wait=st.floats(0, 1e6),
    exponential_wait=st.just(0.0) | st.floats(1, 100),
    attempts=st.integers(1, 10_000),
)
def test_waits_never_become_shorter(
    wait: float, linear_wait: float, exponential_wait: float, attempts: int
) -> None:
    strategy = RetryStrategy(wait=wait, linear_wait=linear_wait, exponential_wait=exponential_wait)
    first, second = (strategy.seconds_before_retry(n) for n in (attempts, attempts + 1))
    assert first <= second


@pytest.mark.parametrize("classes", [OSError, (OSError,), [OSError, KeyError], {OSError}])
def test_exceptions_are_named_by_a_class_or_by_several(classes: Any) -> None:
    strategy = RetryStrategy(retry_exceptions=classes)

    assert strategy.get_retry_decision(exception=ConnectionError(), job=job(1)) is not None
    assert strategy.get_retry_decision(exception=ValueError(), job=job(1)) is None


def test_exceptions_may_come_from_an_iterator() -> None:
    strategy = RetryStrategy(retry_exceptions=(each for each in [OSError]))

    for _ in range(2):
        assert strategy.get_retry_decision(exception=OSError(), job=job(1)) is not None


def test_no_exceptions_at_all_mean_no_retries() -> None:
    strategy = RetryStrategy(retry_exceptions=[])

    assert strategy.get_retry_decision(exception=OSError(), job=job(1)) is None
