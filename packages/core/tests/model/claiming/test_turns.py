"""Which partition is claimed next: each rule of `procrastinate.model.claiming.turns` is a case."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procrastinate.model.claiming.turns import (
    ASK_EVERY,
    HEARD_IN_A_ROW,
    LATE,
    SHARE_OF_SWEEPS,
    STAY,
    Turns,
    seconds_to_turn,
)

NOW = 1_000.0
NONE = Turns(sweep_at=NOW + 3, interval=5.0)
STAYING = replace(NONE, staying=4, until=NOW + 0.01)


@pytest.mark.parametrize(
    ("rule", "turns", "partition"),
    [
        ("1: none is hot", NONE, None),
        ("1: what was heard of", replace(NONE, heard=(7, 3)), 7),
        ("1: a backlog", replace(NONE, backlog=(5, 6)), 5),
        ("2: full claims stay", replace(STAYING, heard=(7,), backlog=(5,)), 4),
        ("2: not for longer", replace(STAYING, until=NOW, heard=(7,), backlog=(5,)), 7),
        ("2: unless no other is hot", replace(STAYING, until=NOW), 4),
        ("2: unless only it was heard of", replace(STAYING, until=NOW, heard=(4,)), 4),
        ("3: heard of first", replace(NONE, heard=(7,), backlog=(5,)), 7),
        (
            "3: but not for ever",
            replace(NONE, heard=(7,), backlog=(5,), in_a_row=HEARD_IN_A_ROW),
            5,
        ),
        ("3: if there is a backlog", replace(NONE, heard=(7,), in_a_row=HEARD_IN_A_ROW), 7),
        ("4: not before it is due", replace(NONE, looks={7: NOW + 0.1}), None),
        ("4: when it is due", replace(NONE, looks={7: NOW}), 7),
        ("4: after what was heard", replace(NONE, looks={7: NOW}, heard=(8,)), 8),
        ("4: before a backlog", replace(NONE, looks={7: NOW}, backlog=(8,)), 7),
    ],
)
def test_the_partition_that_is_next(rule: str, turns: Turns, partition: int | None) -> None:
    assert turns.next(NOW) == partition


def test_rule_1_what_is_heard_while_a_claim_is_under_way_makes_its_partition_hot() -> None:
    turns = NONE.heard_of(7).began(7, NOW)
    assert turns.heard == ()
    heard = turns.heard_of(7).claimed(7, more=False)
    assert heard.next(NOW) == 7
    assert turns.claimed(7, more=False).next(NOW) is None


def test_rule_1_a_partition_is_noted_once() -> None:
    turns = replace(NONE, backlog=(5, 6)).heard_of(7).heard_of(6).heard_of(7)
    assert (turns.heard, turns.backlog) == ((7, 6), (5,))


def test_rule_2_the_stay_ends_at_its_time_and_its_partition_waits_for_its_turn() -> None:
    turns = NONE.heard_of(7).began(7, NOW).claimed(7, more=True).heard_of(3)
    assert turns.next(NOW + STAY / 2) == 7
    turns = turns.began(7, NOW + STAY / 2).claimed(7, more=True)
    assert turns.next(NOW + STAY) == 3
    turns = turns.began(3, NOW + STAY)
    assert (turns.staying, turns.backlog) == (3, (7,))
    assert turns.claimed(3, more=False).next(NOW + STAY) == 7


def test_rule_2_a_claim_that_comes_short_ends_the_stay() -> None:
    turns = replace(STAYING, backlog=(5,)).claimed(4, more=False)
    assert turns == replace(NONE, until=STAYING.until, backlog=(5,))


def test_rule_4_a_look_that_is_made_is_forgotten() -> None:
    turns = NONE.heard_of(7).began(7, NOW).claimed(7, more=False, again_at=NOW + 0.02)
    assert turns.looks == {7: NOW + 0.02}
    assert turns.seconds_to_next_claim(NOW) == pytest.approx(0.02)
    assert turns.began(7, NOW + 0.02).claimed(7, more=False).looks == {}


@pytest.mark.parametrize(
    ("turns", "partition"),
    [
        (replace(NONE, heard=(8, 7), backlog=(9,)), 7),
        (replace(NONE, heard=(8,), backlog=(9, 5)), 5),
        (replace(NONE, heard=(8,), looks={9: NOW, 6: NOW}), 6),
        (replace(NONE, heard=(8,), looks={9: NOW}), None),
    ],
)
def test_rule_5_partitions_that_are_away_are_passed_over(
    turns: Turns, partition: int | None
) -> None:
    assert turns.next(NOW, away={8, 9}) == partition
    waits = turns.seconds_to_next_claim(NOW, away={8, 9})
    assert waits == (math.inf if partition is None else 0.0)
    assert turns.next(NOW) in (8, 9)


def test_rule_5_a_partition_that_failed_stays_hot() -> None:
    turns = NONE.heard_of(7).heard_of(3).began(7, NOW).failed(7)
    assert (turns.staying, turns.heard) == (None, (3, 7))


@pytest.mark.parametrize(
    ("rule", "turns", "at"),
    [
        ("the turn of this worker", NONE, NOW + 3),
        ("later if a partition is hot", NONE.heard_of(7), NOW + 3 + 5 * LATE),
        ("not within ten times its length", replace(NONE, sweep_from=NOW + 8), NOW + 8),
        ("a gap", NONE.gap_in_what_was_heard(), -math.inf),
        ("a gap, a moment after", replace(NONE, sweep_from=8.0).gap_in_what_was_heard(), 8.0),
    ],
)
def test_rule_6_a_sweep_is_due(rule: str, turns: Turns, at: float) -> None:
    assert turns.sweep_due_at(NOW) == at


@pytest.mark.parametrize(
    ("turns", "at"),
    [
        (NONE, NOW + 3),
        (NONE.heard_of(7), NOW + 3),  # when it is time, nothing may be hot
        (replace(NONE.heard_of(7), sweep_at=NOW - 1), NOW + ASK_EVERY),
        (replace(NONE.heard_of(7), sweep_at=NOW - 1, sweep_from=NOW + 8), NOW + 8),
        (NONE.gap_in_what_was_heard(), -math.inf),
        (NONE.sweep_began(), math.inf),
    ],
)
def test_rule_6_when_to_ask_again(turns: Turns, at: float) -> None:
    assert turns.ask_again_at(NOW) == at


def test_rule_6_a_gap_while_a_sweep_is_under_way_is_a_reason_for_another() -> None:
    turns = NONE.sweep_began()
    assert turns.sweep_due_at(NOW) == math.inf
    assert turns.swept([], began=NOW, now=NOW, next_at=NOW + 4).sweep_at == NOW + 4
    after_gap = turns.gap_in_what_was_heard().swept([], began=NOW, now=NOW, next_at=NOW + 4)
    assert after_gap.sweep_at == -math.inf


def test_rule_6_a_turn_moves_when_workers_come_or_go() -> None:
    assert NONE.turn_moved(NOW + 9) == replace(NONE, sweep_at=NOW + 9)


def test_rule_6_what_a_sweep_found_is_hot_and_its_length_puts_the_next_one_off() -> None:
    turns = (
        NONE.heard_of(2).sweep_began().swept([1, 2, 3], began=NOW, now=NOW + 0.5, next_at=NOW + 4)
    )
    assert turns.heard == (2, 1, 3)
    assert (turns.sweep_at, turns.sweep_from) == (NOW + 4, NOW + 0.5 * SHARE_OF_SWEEPS)


# --- A fleet's turns ------------------------------------------------------------------------------


@given(
    st.floats(1e9, 2e9),
    st.floats(0.1, 60.0),
    st.integers(1, 50),
    st.integers(0, 49),
    st.booleans(),
)
def test_workers_take_turns(
    moment: float, interval: float, live: int, rank: int, has_swept: bool
) -> None:
    rank = rank % live
    now = datetime.fromtimestamp(moment, UTC)
    wait = seconds_to_turn(now, interval=interval, rank=rank, live=live, has_swept=has_swept)
    least = 0.5 if has_swept else 0.0
    assert interval * least - 1e-3 <= wait <= interval * (live + least) + 1e-3
    number = round((now.timestamp() + wait) / interval)
    assert number % live == rank
    assert now.timestamp() + wait == pytest.approx(number * interval, abs=1e-3)


# --- Any order of events --------------------------------------------------------------------------

PARTITIONS = st.integers(0, 5)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("heard"), PARTITIONS),
        st.tuples(st.just("claim"), st.sampled_from(["full", "short", "later", "fails"])),
        st.tuples(st.just("time"), st.floats(0.001, 2.0)),
    ),
    max_size=60,
)


@given(EVENTS)
def test_no_partition_is_forgotten_and_none_that_is_away_is_claimed_from(
    events: list[tuple[str, object]],
) -> None:
    """Against a model: which partitions may have jobs, whatever the order of their turns."""
    turns, now = Turns(), NOW
    hot: set[int] = set()
    later: dict[int, float] = {}
    away: set[int] = set()
    for kind, what in events:
        if kind == "heard":
            assert isinstance(what, int)
            turns = turns.heard_of(what)
            hot.add(what)
            continue
        if kind == "time":
            assert isinstance(what, float)
            now += what
            away.clear()
            continue
        due = hot | {each for each, at in later.items() if now >= at}
        partition = turns.next(now, away)
        assert (partition in due - away) if due - away else partition is None
        if partition is None:
            assert turns.seconds_to_next_claim(now, away) > 0
            continue
        turns = turns.began(partition, now)
        hot.discard(partition)
        later.pop(partition, None)
        if what == "later":
            later[partition] = now + 0.5
        if what in ("full", "fails"):
            hot.add(partition)
        if what == "fails":
            away.add(partition)
            turns = turns.failed(partition)
        else:
            again_at = later.get(partition, math.inf)
            turns = turns.claimed(partition, more=what == "full", again_at=again_at)


@given(
    st.lists(PARTITIONS, min_size=2, max_size=6, unique=True),
    st.sampled_from([0.001, 0.01, 0.03]),
    st.lists(PARTITIONS, max_size=5),
)
def test_every_backlog_gets_its_turn(backlog: list[int], took: float, noise: list[int]) -> None:
    """Although claims come back full, and others are heard of all the time."""
    turns, now = Turns(), NOW
    for partition in backlog:
        turns = turns.heard_of(partition)
    last = dict.fromkeys(backlog, NOW)
    longest = (len(backlog) + 1) * (STAY + took) + (HEARD_IN_A_ROW + 6) * len(backlog) * took
    for _ in range(100):
        for partition in noise:
            if partition not in backlog:
                turns = turns.heard_of(partition)
        chosen = turns.next(now)
        assert chosen is not None
        turns = turns.began(chosen, now)
        now += took
        turns = turns.claimed(chosen, more=chosen in backlog)
        if chosen in last:
            last[chosen] = now
        assert max(now - at for at in last.values()) <= longest, (last, now)
