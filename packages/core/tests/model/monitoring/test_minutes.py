"""What is counted of a minute: buckets, waits, and what is added to what."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procrastinate.model.job import Job, Status
from procrastinate.model.monitoring.minutes import (
    ALL,
    BUCKETS,
    MEASURED,
    MOST_KINDS,
    Kind,
    Spread,
    Tallies,
    Tally,
    bound,
    bucket_of,
    durations,
    weights,
    with_sums,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(**given: Any) -> Job:
    about = {"deferred_at": NOON, "started_at": NOON + timedelta(seconds=3), "lease": 1}
    return Job(1, Status.DOING, "q", "t", {}, **{**about, **given})


@pytest.mark.parametrize(
    "seconds, bucket",
    [
        (0.0, 0),
        (-1.0, 0),
        (0.0009, 0),
        (0.001, 1),
        (2**-10, 1),
        (0.999, 10),
        (1.0, 11),
        (3600.0, 22),
        (65_535.0, 26),
        (65_536.0, 27),
        (1e12, 27),
    ],
)
def test_a_duration_is_counted_below_the_next_power_of_two(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket
    assert seconds < bound(bucket)
    assert bucket == 0 or seconds >= bound(bucket - 1)


def test_the_last_bucket_has_no_bound() -> None:
    assert [bound(0), bound(10), bound(BUCKETS - 2)] == [2**-10, 1.0, 65_536.0]
    assert bound(BUCKETS - 1) == math.inf


@pytest.mark.parametrize(
    "given, seconds",
    [
        ({}, 3.0),
        ({"scheduled_at": NOON + timedelta(seconds=2)}, 1.0),
        ({"scheduled_at": NOON - timedelta(days=1)}, 3.0),  # due before it was deferred
        ({"started_at": NOON - timedelta(seconds=1)}, 0.0),  # the clock was set back
        ({"lease": 2}, None),  # nobody knows when it came back to the queue
        ({"started_at": None}, None),
        ({"deferred_at": None}, None),
    ],
)
def test_a_job_waits_from_when_it_was_due_to_its_first_claim(
    given: dict[str, Any], seconds: float | None
) -> None:
    assert job(**given).waited == seconds


@pytest.mark.parametrize("count", [1, 2, MEASURED, MEASURED + 1, 99, 100, 500])
def test_of_many_attempts_some_are_measured_for_all(count: int) -> None:
    chosen = list(weights(count))
    assert len(chosen) == min(count, len(chosen)) <= MEASURED
    assert sum(weight for _, weight in chosen) == count
    assert all(0 <= place < count for place, _ in chosen)
    if count <= MEASURED:
        assert chosen == [(place, 1) for place in range(count)]


def test_quantiles_lie_in_the_right_bucket() -> None:
    spread = Spread()
    for _ in range(99):
        spread.add(0.1)
    spread.add(10.0)
    found = durations(spread.seconds, spread.buckets)
    assert found.count == 100
    assert found.mean == pytest.approx(0.199)
    median, last = found.quantile(0.5), found.quantile(1.0)
    assert median is not None
    assert 0.0625 <= median <= 0.125
    assert last is not None
    assert 8.0 <= last <= 16.0


def test_without_durations_there_is_no_quantile_and_no_mean() -> None:
    nothing = durations(None, None)
    assert (nothing.count, nothing.mean, nothing.quantile(0.5)) == (0, None, None)


def test_a_quantile_of_what_took_longest_is_the_highest_bound() -> None:
    spread = Spread()
    spread.add(1e9)
    assert durations(spread.seconds, spread.buckets).quantile(0.5) == bound(BUCKETS - 2)


def test_a_row_that_was_changed_by_hand_can_be_read() -> None:
    assert durations(1.0, [None, -5, 3] + [1] * 100).count == 3 + BUCKETS - 3


def test_tallies_are_added_up() -> None:
    one, other = Tally(), Tally()
    one.counts[Status.FAILED] += 1
    other.counts[Status.FAILED] += 2
    other.measure(job(), 0.5, 2)
    one.measure(job(), None)
    one.add_all(other)
    assert one.counts[Status.FAILED] == 3
    assert (one.run.seconds, sum(one.run.buckets), sum(one.waited.buckets)) == (1.0, 2, 2)
    assert one.waited.seconds == 6.0


def test_kinds_beyond_the_limit_are_counted_together() -> None:
    tallies = Tallies()
    for number in range(MOST_KINDS + 5):
        tallies.tally(7, (f"q{number}", "t")).counts[Status.SUCCEEDED] += 1
    assert len(tallies.by_minute[7]) == MOST_KINDS + 1
    assert tallies.by_minute[7]["", ""].counts[Status.SUCCEEDED] == 5
    assert tallies.tally(7, ("q1", "t")).counts[Status.SUCCEEDED] == 1


def test_of_many_minutes_the_oldest_are_put_together() -> None:
    tallies = Tallies()
    for minute in range(5):
        tallies.tally(minute, ("q", "t")).counts[Status.ABORTED] += 1
    tallies.keep_last(3)
    counts = {
        minute: found["q", "t"].counts[Status.ABORTED]
        for minute, found in tallies.by_minute.items()
    }
    assert counts == {2: 3, 3: 1, 4: 1}
    assert tallies.first() == 2


@given(
    st.dictionaries(
        st.sampled_from([(ALL, ALL), *product("ab", "tuv")]),
        st.dictionaries(st.sampled_from(list(Status)), st.integers(1, 9)),
    )
)
def test_the_sums_of_each_kind_are_those_of_all(counted: dict[Kind, dict[Status, int]]) -> None:
    tallies = {kind: Tally() for kind in counted}
    for kind, counts in counted.items():
        for status, count in counts.items():
            tallies[kind].counts[status] += count
            tallies[kind].measure(job(), 2.0, count)
    sums = with_sums(tallies)
    total = sum(sum(counts.values()) for counts in counted.values())
    apart = total - sum(counted.get((ALL, ALL), {}).values())
    by = {
        which: sum(
            sum(tally.counts.values())
            for (queue, task), tally in sums.items()
            if ((queue != ALL), (task != ALL)) == which
        )
        for which in product((True, False), repeat=2)
    }
    assert by == {(True, True): apart, (True, False): apart, (False, True): apart} | {
        (False, False): total
    }
    assert sum(sums.get((ALL, ALL), Tally()).run.buckets) == total
