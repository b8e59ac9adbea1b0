"""How many jobs a worker claims ahead."""

from __future__ import annotations

from procrastinate.model.prefetch import MAX_AHEAD, Prefetch


def observed(concurrency: int, *, job: float, claim: float, times: int = 100) -> Prefetch:
    prefetch = Prefetch(concurrency)
    for _ in range(times):
        prefetch.job_took(job)
        prefetch.claim_took(claim)
    return prefetch


def test_nothing_is_claimed_ahead_before_anything_is_known() -> None:
    assert Prefetch(100).size == 0


def test_short_jobs_are_claimed_ahead_up_to_the_limit() -> None:
    assert observed(1, job=0.000_01, claim=0.003).size == MAX_AHEAD
    assert observed(1, job=0.001, claim=0.003).size == 12


def test_jobs_longer_than_a_round_trip_are_not_claimed_ahead() -> None:
    assert observed(100, job=0.003, claim=0.003).size == 0
    assert observed(100, job=60, claim=0.003).size == 0


def test_one_long_job_is_felt_at_once() -> None:
    prefetch = observed(1, job=0.000_02, claim=0.003)
    prefetch.job_took(1.0)

    assert prefetch.size == 0
