"""When a worker that has ended by itself is started again."""

from __future__ import annotations

import pytest

from procrastinate.model.liveness.restarts import LIMIT, LONGEST_PAUSE, WITHIN, Restarts


@pytest.mark.parametrize(
    ("failures", "pauses"),
    [
        ([0], [1]),
        ([0, 10, 20, 40, 80], [1, 2, 4, 8, 16]),
        ([0, 10, 20, 40, 80, 100, 3599], [1, 2, 4, 8, 16, None, None]),
        # The first failure is forgotten an hour later, and so on.
        ([0, 10, 20, 40, 80, 3600], [1, 2, 4, 8, 16, 16]),
        ([0, 10, 20, 40, 80, 3611, 3612], [1, 2, 4, 8, 16, 8, 16]),
        ([0, 3600, 7200, 10800, 14400, 18000], [1, 1, 1, 1, 1, 1]),
    ],
)
def test_five_restarts_within_an_hour(failures: list[float], pauses: list[float | None]) -> None:
    restarts = Restarts()
    assert [restarts.after_failure(now) for now in failures] == pauses


def test_starts_that_do_not_reach_the_database_do_not_count() -> None:
    restarts = Restarts()
    assert restarts.after_failure(0) == 1
    outage = [restarts.after_failure(now, unreachable=True) for now in range(1, 500)]
    assert outage[:7] == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE]
    assert set(outage[7:]) == {LONGEST_PAUSE}
    restarts.started()
    assert restarts.after_failure(500, unreachable=True) == 1
    assert [restarts.after_failure(501) for _ in range(LIMIT)] == [2, 4, 8, 16, None]
    assert restarts.after_failure(501 + WITHIN) == 1
