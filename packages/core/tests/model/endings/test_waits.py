"""Who waits for what: which step comes next, and what each wait ends with."""

from __future__ import annotations

import math

from procrastinate.model.endings.waits import (
    AT_ONCE,
    LOOK_AGAIN,
    POLL_DEAF,
    POLL_EVERY,
    READ_AT_ONCE,
    READ_EVERY,
    REMOVE_AFTER,
    RENEW_EVERY,
    Kind,
    Missing,
    Step,
    Waits,
    pause_after,
)
from procrastinate.model.job import Status
from procrastinate.model.partitions import VALUES, Partitions

TODO, DOING, DONE = Status.TODO, Status.DOING, Status.SUCCEEDED


def hearing(*ids: int) -> Waits[str]:
    """Return the waits of one that hears, and is about to register for these jobs."""
    waits: Waits[str] = Waits(0.0)
    waits.listening(True, 0.0)
    assert waits.next(0.0) is None
    for job_id in ids:
        waits.enter(job_id, f"w{job_id}")
    return waits


def registered(*ids: int, status: Status = DOING) -> Waits[str]:
    """Return the same when they were registered, and seen to run."""
    waits = hearing(*ids)
    waits.registered(taken(waits, Kind.REGISTER, *ids))
    waits.looked(taken(waits, Kind.LOOK, *ids), dict.fromkeys(ids, status), 0.0)
    return waits


def taken(waits: Waits[str], kind: Kind, *ids: int, now: float = 0.0) -> Step:
    step = waits.next(now)
    assert step == Step(kind, 0, list(ids))
    return step


def row(job_id: int, status: Status = DONE) -> dict[int, tuple[Status, tuple[int]]]:
    return {job_id: (status, (job_id,))}


def test_a_wait_is_registered_before_its_job_is_looked_at_and_then_again() -> None:
    waits = hearing(1)
    step = taken(waits, Kind.REGISTER, 1)
    assert waits.next(0.0) is None
    waits.registered(step)
    waits.looked(taken(waits, Kind.LOOK, 1), {1: TODO}, 0.0)
    assert (waits.next(0.0), waits.due_at()) == (None, LOOK_AGAIN)
    waits.looked(taken(waits, Kind.LOOK, 1, now=LOOK_AGAIN), {1: DOING}, LOOK_AGAIN)
    assert (waits.next(LOOK_AGAIN), waits.due_at(), waits.ended) == (None, POLL_EVERY, [])


def test_what_was_heard_of_is_read_and_its_row_removed_when_some_have_come_together() -> None:
    waits = registered(1)
    waits.enter(1, "another")
    taken(waits, Kind.LOOK, 1)
    waits.heard([1, 99])
    waits.read(taken(waits, Kind.READ, 1), row(1))
    assert waits.ended == [("w1", (1,)), ("another", (1,))]
    assert (waits.next(0.0), waits.due_at(), len(waits)) == (None, REMOVE_AFTER, 0)
    taken(waits, Kind.REMOVE, 1, now=REMOVE_AFTER)


def test_a_job_that_was_retried_before_it_was_read_is_still_waited_for() -> None:
    waits = registered(1)
    waits.heard([1])
    waits.read(taken(waits, Kind.READ, 1), row(1, TODO))
    assert (waits.ended, len(waits)) == ([], 1)
    waits.heard([1])
    waits.read(taken(waits, Kind.READ, 1, now=READ_EVERY), row(1))
    assert waits.ended == [("w1", (1,))]


def test_reads_follow_one_another_at_intervals_so_that_each_is_about_more_jobs() -> None:
    waits = registered(1, 2, 3)
    waits.heard([1])
    waits.read(taken(waits, Kind.READ, 1), row(1))
    waits.heard([2])
    assert waits.next(0.0) is None
    waits.heard([3])
    assert (waits.next(0.0), waits.due_at()) == (None, READ_EVERY)
    taken(waits, Kind.READ, 2, 3, now=READ_EVERY)


def test_a_job_that_has_ended_before_is_read() -> None:
    waits = registered(1, status=DONE)
    waits.read(taken(waits, Kind.READ, 1), row(1))
    assert waits.ended == [("w1", (1,))]


def test_a_job_is_missing_if_it_was_never_seen_and_removed_if_it_was() -> None:
    waits = hearing(1, 2, 3)
    waits.registered(taken(waits, Kind.REGISTER, 1, 2, 3))
    waits.heard([3])
    waits.looked(Step(Kind.LOOK, 0, [1, 2]), {2: DOING}, 0.0)
    waits.heard([2])
    waits.read(taken(waits, Kind.READ, 3, 2), {})
    assert waits.ended == [
        ("w1", Missing.NEVER_SEEN),
        ("w3", Missing.REMOVED),
        ("w2", Missing.REMOVED),
    ]


def test_all_are_looked_at_every_so_often_and_more_often_if_nothing_is_heard() -> None:
    waits = registered(1, 2)
    taken(waits, Kind.LOOK, 1, 2, now=LOOK_AGAIN)
    taken(waits, Kind.LOOK, 1, 2, now=POLL_EVERY)
    assert waits.due_at() == 2 * POLL_EVERY
    waits.listening(False, POLL_EVERY)
    assert waits.due_at() == POLL_EVERY + POLL_DEAF
    waits.listening(True, POLL_EVERY + 0.5)
    taken(waits, Kind.REGISTER, 1, 2, now=POLL_EVERY + 0.5)  # and at once for what was missed


def test_rows_are_renewed_and_written_anew_after_a_loss() -> None:
    waits = registered(1)
    while (step := waits.next(RENEW_EVERY)) is not None and step.kind is not Kind.REGISTER:
        pass
    assert step == Step(Kind.REGISTER, 0, [1])
    waits.anew()
    taken(waits, Kind.REGISTER, 1, now=RENEW_EVERY)


def test_a_step_that_failed_is_taken_again() -> None:
    waits = hearing(1)
    waits.put_back(taken(waits, Kind.REGISTER, 1))
    taken(waits, Kind.REGISTER, 1)


def test_what_is_too_much_for_one_statement_is_read_in_smaller_parts() -> None:
    ids = list(range(1, 9))
    waits = registered(*ids)
    waits.heard(ids)
    waits.put_back(taken(waits, Kind.READ, *ids))
    waits.put_back(taken(waits, Kind.READ, 1, 2, 3, 4, now=READ_EVERY))
    found = {1: (DONE, (1,)), 5: (DONE, (5,)), 6: (DONE, (6,))}
    for some in ([5, 6], [7, 8, 1, 2], [3, 4]):
        step = waits.next(LOOK_AGAIN - 0.01)
        assert step == Step(Kind.READ, 0, some)
        waits.read(step, {each: found.get(each, (DONE, (each,))) for each in some})
    assert len(waits) == 0


def test_who_leaves_needs_no_step_and_no_row() -> None:
    waits = hearing(1, 2)
    waits.leave(1, "w1")
    waits.leave(1, "w1")
    waits.registered(taken(waits, Kind.REGISTER, 2))
    waits.leave(2, "w2")
    assert (waits.next(0.0), len(waits), waits.due_at()) == (None, 0, REMOVE_AFTER)
    taken(waits, Kind.REMOVE, 2, now=REMOVE_AFTER)
    assert waits.due_at() == math.inf


def test_a_row_that_is_needed_again_is_not_removed() -> None:
    waits = registered(1)
    waits.leave(1, "w1")
    waits.enter(1, "again")
    taken(waits, Kind.REGISTER, 1, now=REMOVE_AFTER)
    later = waits.next(2 * REMOVE_AFTER)
    assert later is None or later.kind is not Kind.REMOVE


def test_statements_are_about_so_many_jobs_and_what_is_urgent_comes_first() -> None:
    ids = range(1, 2 * AT_ONCE + 2)
    waits = hearing(*ids)
    steps = [waits.next(0.0) for _ in range(3)]
    assert [len(step.ids) for step in steps if step] == [AT_ONCE, AT_ONCE, 1]
    for step in steps:
        assert step is not None
        waits.registered(step)
    waits.heard(ids[: READ_AT_ONCE + 1])
    steps = [waits.next(0.0) for _ in range(3)]
    assert [(step.kind, len(step.ids)) for step in steps if step] == [
        (Kind.READ, READ_AT_ONCE),
        (Kind.READ, 1),
        (Kind.LOOK, AT_ONCE),
    ]


def test_nothing_is_asked_of_a_partition_that_is_away() -> None:
    waits = hearing()
    waits.divided(Partitions(64))
    one, other = VALUES[1], VALUES[2]
    waits.enter(65, "a")
    waits.enter(66, "b")
    waits.away = {one}
    assert waits.next(0.0) == Step(Kind.REGISTER, other, [66])
    assert waits.next(0.0) is None
    waits.heard([65])
    assert (waits.next(READ_EVERY), waits.due_at()) == (None, POLL_EVERY)
    waits.away = ()
    assert waits.next(READ_EVERY) == Step(Kind.READ, one, [65])
    assert waits.next(READ_EVERY) == Step(Kind.REGISTER, one, [65])


def test_older_jobs_of_a_database_with_many_partitions_are_located_first() -> None:
    waits = hearing(5, 6)
    waits.divided(Partitions(64, boundary_id=1_000))
    step = waits.next(0.0)
    assert step == Step(Kind.LOCATE, None, [5, 6])
    assert step is not None
    waits.located(step, {5: 7})
    assert waits.ended == [("w6", Missing.NEVER_SEEN)]
    assert waits.next(0.0) == Step(Kind.REGISTER, 7, [5])


def test_no_job_is_located_while_a_partition_is_away_and_others_are_registered_meanwhile() -> None:
    waits = hearing(5)
    waits.divided(Partitions(64, boundary_id=1_000))
    waits.enter(1_025, "new")
    step = waits.next(0.0)
    assert step == Step(Kind.LOCATE, None, [5])
    assert step is not None
    waits.put_back(step)
    waits.away = {VALUES[3]}
    assert waits.next(0.0) == Step(Kind.REGISTER, waits.partitions.of_id(1_025), [1_025])
    assert waits.next(0.0) is None
    waits.away = ()
    assert waits.next(0.0) == step


def test_if_rows_are_refused_jobs_are_looked_at() -> None:
    waits = hearing(1)
    taken(waits, Kind.REGISTER, 1)
    waits.without_rows(0.0)
    waits.looked(taken(waits, Kind.LOOK, 1), {1: DOING}, 0.0)
    assert waits.due_at() <= POLL_DEAF
    waits.enter(2, "w2")
    taken(waits, Kind.LOOK, 2)
    waits.leave(2, "w2")
    assert waits.next(0.0) is None


def test_an_error_ends_the_waits_that_the_step_was_about_or_all() -> None:
    waits = registered(1, 2)
    error = ValueError()
    waits.failed(Step(Kind.LOOK, 0, [2, 3]), error)
    assert waits.ended == [("w2", error)]
    waits.failed(None, error)
    assert (waits.ended[1:], len(waits)) == ([("w1", error)], 0)


def test_at_the_end_only_rows_are_removed() -> None:
    waits = registered(1, 2)
    waits.heard([1])
    waits.only_removals()
    taken(waits, Kind.REMOVE, 1, 2)
    assert (waits.next(0.0), len(waits)) == (None, 0)


def test_pauses_grow_with_what_was_waited() -> None:
    assert [pause_after(waited) for waited in (0.0, 0.1, 0.5, 5.0, 100.0)] == [
        *(0.02, 0.02, 0.05, 0.5, 1.0)
    ]
