"""Which worker may take others for dead, and when it is its turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from procrastinate.model.liveness.judging import Judge, has_turn

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def every(interval: float, first: float, last: float) -> list[float]:
    return [first + interval * n for n in range(int((last - first) / interval) + 1)]


@pytest.mark.parametrize(
    ("beats", "now", "may"),
    [
        ([], 0.0, False),
        ([], 30.0, False),  # no beat was confirmed since the registration
        (every(10, 10, 20), 29.9, False),
        (every(10, 10, 20), 30.0, True),
        (every(10, 10, 20), 35.0, True),
        (every(10, 10, 20), 35.1, False),  # its last beat is too old
        (every(10, 10, 60), 60.0, True),
        ([10, 25, 40], 40.0, True),  # 1.5 intervals are no gap ...
        ([10, 25.1, 35, 45], 45.0, False),  # ... and more are
        ([10, 25.1, 35, 45, 55], 55.0, False),
        ([10, 25.1, 35, 45, 55], 55.1, True),
        ([*every(10, 10, 60), 100, 110], 110.0, False),  # after an outage of 40 s
        ([*every(10, 10, 60), 100, 110, 120, 130], 129.9, False),
        ([*every(10, 10, 60), 100, 110, 120, 130], 130.0, True),
    ],
)
def test_who_judges_has_shown_life_for_as_long_itself(
    beats: list[float], now: float, may: bool
) -> None:
    judge = Judge(timeout=30.0, interval=10.0, sent_at=0.0)
    for sent_at in beats:
        if sent_at <= now:
            judge.confirmed(sent_at)

    assert judge.may_judge(now) is may


@pytest.mark.parametrize("live", [1, 2, 3, 7])
@pytest.mark.parametrize("interval", [10.0, 0.5])
def test_in_each_interval_one_of_all_live_workers_has_its_turn(live: int, interval: float) -> None:
    """Wherever in the interval each beats; in W intervals each of W workers has one."""
    turns = []
    for n in range(2 * live):
        beats = [NOON + timedelta(seconds=interval * (n + rank / live)) for rank in range(live)]
        turns.append(
            [
                rank
                for rank, beat in enumerate(beats)
                if has_turn(beat, interval=interval, rank=rank, live=live)
            ]
        )
    assert [len(each) for each in turns] == [1] * (2 * live)
    assert sorted(rank for (rank,) in turns[:live]) == list(range(live))
