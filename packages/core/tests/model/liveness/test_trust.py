"""Whether a worker's signs of life are trusted: a table of what was confirmed and asked."""

from __future__ import annotations

import pytest

from procrastinate.model.liveness.trust import Trust, window_of

# With a timeout of 30 s the window is 27 s. The registration was sent at 0.
REGISTERED: list[tuple[float, float]] = []
BEATS_UNTIL_40 = [(10.0, 10.1), (20.0, 20.1), (30.0, 30.1), (40.0, 40.1)]
LATE_ANSWER = [(10.0, 36.0)]  # sent in time; by the answer the window had closed ...
JUST_IN_TIME = [(10.0, 26.9)]  # ... or nearly
GAP = [(10.0, 10.1), (50.0, 50.1)]
FROZEN = [(10.0, 60.0)]  # the answer was read after waking
OUT_OF_ORDER = [(20.0, 20.1), (10.0, 25.0)]


@pytest.mark.parametrize(
    ("confirmed", "now", "since", "holds", "held", "doubtful"),
    [
        (REGISTERED, 0.0, 0.0, True, True, False),
        (REGISTERED, 26.9, 0.0, True, True, False),
        (REGISTERED, 27.0, 0.0, False, False, False),
        (REGISTERED, 29.9, 0.0, False, False, False),
        (REGISTERED, 30.0, 0.0, False, False, True),
        (BEATS_UNTIL_40, 40.1, 0.0, True, True, False),
        (BEATS_UNTIL_40, 66.9, 40.0, True, True, False),
        (BEATS_UNTIL_40, 67.0, 40.0, False, False, False),
        (BEATS_UNTIL_40, 70.0, 69.0, False, False, True),
        # a beat counts from when it was sent, not from when its answer came
        (LATE_ANSWER, 36.5, 36.4, True, True, False),
        (LATE_ANSWER, 36.9, 36.4, True, True, False),
        (LATE_ANSWER, 37.0, 36.4, False, False, False),
        (LATE_ANSWER, 40.0, 36.4, False, False, True),
        # it was broken from 27 to 36: what was asked for before is lost
        (LATE_ANSWER, 36.5, 35.9, True, False, False),
        (LATE_ANSWER, 36.5, 5.0, True, False, False),
        (JUST_IN_TIME, 27.5, 5.0, True, True, False),
        (GAP, 50.1, 50.1, True, True, False),
        (GAP, 50.2, 50.0, True, False, False),
        (GAP, 50.2, 10.2, True, False, False),
        (FROZEN, 60.0, 60.0, False, False, True),
        (OUT_OF_ORDER, 46.9, 0.0, True, True, False),
        (OUT_OF_ORDER, 47.0, 0.0, False, False, False),
    ],
)
def test_trust(
    confirmed: list[tuple[float, float]],
    now: float,
    since: float,
    holds: bool,
    held: bool,
    doubtful: bool,
) -> None:
    trust = Trust(timeout=30.0, sent_at=0.0)
    for sent_at, heard_at in confirmed:
        trust.confirmed(sent_at, heard_at)

    answers = (trust.holds(now), now < trust.holds_until(since, now), trust.doubtful(now))
    assert answers == (holds, held, doubtful)


@pytest.mark.parametrize(
    ("timeout", "window"),
    [(300.0, 270.0), (30.0, 27.0), (20.0, 18.0), (15.0, 13.0), (8.0, 6.0), (4.0, 3.0), (0.4, 0.3)],
)
def test_the_window_leaves_a_margin_and_room_for_beats(timeout: float, window: float) -> None:
    assert window_of(timeout) == pytest.approx(window)


@pytest.mark.parametrize("beats", [3, 4, 10, 30])
def test_one_lost_beat_loses_no_trust(beats: int) -> None:
    """The timeout is at least three intervals; a beat has failed when the next one is due."""
    for interval in (0.1, 1.0, 5.0, 10.0, 60.0):
        trust = Trust(timeout=beats * interval, sent_at=0.0)
        repeated_at = 2 * interval  # the second beat failed, and was sent again at once
        assert trust.holds(repeated_at)
