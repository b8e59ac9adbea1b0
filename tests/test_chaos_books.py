"""The books of a chaos campaign complain of what must not be, and of nothing else."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from chaos import books, campaign, closing, draw, faults, jobs, plants, report
from chaos.__main__ import main
from chaos.census import Census
from chaos.known import Known, is_known
from chaos.nasty import DEEDS
from chaos.options import parse
from chaos.records import (
    FOREVER,
    PAUSE,
    Asked,
    Campaign,
    Complaint,
    Effect,
    Pause,
    Run,
    Spec,
    Stored,
    Trouble,
    Wait,
)
from procrastinate.connector import Query
from procrastinate.storage.statements import load
from procrastinate.waiting import keeper

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def asked(n: int = 1, when: float = 0, answer: str | None = "acknowledged", **spec: Any) -> Asked:
    group = spec.pop("group", f"call {n}")
    return Asked(Spec(n, "on_the_loop", **spec), group, at(when), answer, at(when + 0.01), n)


def stored(n: int = 1, status: str = "succeeded", **more: Any) -> Stored:
    values: dict[str, Any] = {"attempts": 1, "finished_at": at(2), "task": "on_the_loop"}
    values.update(more)
    return Stored(id=n, status=status, n=n, **values)


def ran(
    n: int = 1,
    began: float = 1,
    ended: float | None = 2,
    outcome: str | None = "ok",
    process: str = "a",
    attempt: int = 1,
) -> Run:
    end = None if ended is None else at(ended)
    return Run(f"{n} {began}", n, attempt, process, at(began), end, outcome)


def struck(
    effect: Effect, began: float, ended: float, processes: Sequence[str] | None = ("a",)
) -> Trouble:
    touched = None if processes is None else frozenset(processes)
    return Trouble("it", "it", at(began), at(ended), frozenset({effect}), touched)


def rules(
    jobs_asked: Sequence[Asked],
    in_database: Sequence[Stored],
    runs: Sequence[Run],
    troubles: Sequence[Trouble] = (),
    **more: Any,
) -> list[str]:
    campaign = Campaign(jobs_asked, in_database, runs, troubles, **more)
    return [complaint.rule for complaint in books.check(campaign)]


# --- rules 1 and 2: every acknowledged job, and no other ------------------------------------------


def test_a_job_that_ran_once_and_succeeded_is_fine() -> None:
    assert rules([asked()], [stored()], [ran()]) == []


def test_an_acknowledged_job_that_is_not_stored_is_lost() -> None:
    assert rules([asked()], [], []) == ["lost"]


@pytest.mark.parametrize("answer", ["refused", "unknown", None])
def test_a_job_that_was_not_acknowledged_need_not_be_stored(answer: str | None) -> None:
    assert rules([asked(answer=answer)], [], []) == []


@pytest.mark.parametrize("answer", ["unknown", None])
def test_a_job_whose_answer_was_lost_may_be_stored(answer: str | None) -> None:
    assert rules([asked(answer=answer)], [stored()], [ran()]) == []


def test_a_job_that_was_refused_must_not_be_stored() -> None:
    assert rules([asked(answer="refused")], [stored()], [ran()]) == ["phantom"]


def test_a_job_that_nobody_asked_for_must_not_be_stored() -> None:
    assert rules([], [stored()], [ran()]) == ["phantom"]


def test_one_number_is_stored_once() -> None:
    twice = [stored(), replace(stored(), id=2)]
    assert rules([asked()], twice, [ran(), replace(ran(), job_id=2, token="2")]) == ["phantom"]


def test_of_a_call_all_jobs_are_stored_or_none() -> None:
    both = [asked(1, answer="unknown", group="g"), asked(2, answer="unknown", group="g")]
    assert rules(both, [], []) == []
    assert rules(both, [stored(1), stored(2)], [ran(1), ran(2)]) == []
    assert rules(both, [stored(1)], [ran(1)]) == ["half a batch"]


@pytest.mark.parametrize("status", ["todo", "doing"])
def test_a_job_must_end(status: str) -> None:
    assert rules([asked()], [stored(status=status, finished_at=None)], []) == ["did not end"]


def test_a_job_succeeds_only_by_a_good_run() -> None:
    assert rules([asked()], [stored()], []) == ["wrong end"]
    assert rules([asked()], [stored()], [ran(outcome="interrupted")]) == ["wrong end"]


@pytest.mark.parametrize(
    ("spec", "end", "wrong"),
    [
        ({}, stored(status="failed", last_error="chaos.app.Planned"), True),
        ({}, stored(status="failed", last_error="procrastinate.errors.WorkerLost"), True),
        ({}, stored(status="cancelled"), True),
        ({}, stored(status="aborted"), True),
        ({"failing": FOREVER}, stored(status="failed", last_error="chaos.app.Planned"), False),
        ({"failing": FOREVER}, stored(status="failed", last_error="builtins.KeyError"), True),
        ({"crashing": FOREVER}, stored(status="failed", last_error="x.WorkerLost"), False),
        ({"queueing_lock": "q"}, stored(status="cancelled"), False),
    ],
)  # fmt: skip
def test_a_job_has_the_end_of_its_plan(spec: dict[str, Any], end: Stored, wrong: bool) -> None:
    found = rules([asked(**spec)], [end], [ran(outcome="failed")])
    assert found == (["wrong end"] if wrong else [])


# --- rule 3: extra runs ---------------------------------------------------------------------------

LATER = ran(began=20, ended=21, process="b", attempt=2)
TWICE = stored(attempts=2, finished_at=at(21))


def test_a_run_after_a_failure_is_no_extra_run() -> None:
    assert rules([asked()], [TWICE], [ran(outcome="failed"), LATER]) == []


def test_a_run_that_begins_before_the_failed_one_ended_is_an_extra_run() -> None:
    earlier = ran(outcome="failed", ended=20.5)
    assert rules([asked()], [TWICE], [earlier, LATER]) == ["extra run"]


@pytest.mark.parametrize("outcome", ["ok", "interrupted"])
def test_a_run_after_one_that_did_not_fail_needs_a_fault(outcome: str) -> None:
    assert rules([asked()], [TWICE], [ran(outcome=outcome), LATER]) == ["extra run"]


@pytest.mark.parametrize(
    ("trouble", "explains"),
    [
        (struck(Effect.BLOCKS, 1, 30, None), False),
        (struck(Effect.ENDS, 1.5, 1.6), True),
        (struck(Effect.ENDS, 2.5, 2.6), True),  # before its ending was written
        (struck(Effect.ENDS, 1.5, 1.6, ["b"]), False),  # another process
        (struck(Effect.ENDS, 0.1, 0.5), True),  # while the row of its begin was on its way
        (struck(Effect.ENDS, -9.9, -9.5), False),  # before the run
        (struck(Effect.ENDS, 20.5, 20.6), False),  # after the next run
        (struck(Effect.STILL, 1.5, 12), True),
        (struck(Effect.STILL, 1.5, 4), False),  # too short to be taken for dead
        (struck(Effect.STILL, 1.5, 12, ["b"]), False),
        (struck(Effect.AWAY, 1.5, 12, None), True),
        (struck(Effect.AWAY, 1.5, 4, None), False),
        (struck(Effect.FORGETS, 1.5, 1.6, None), True),
        (struck(Effect.FORGETS, 8, 8.1, None), False),  # the claim was durable long before
    ],
)
def test_only_a_fault_in_the_window_of_the_process_explains_it(
    trouble: Trouble, explains: bool
) -> None:
    found = rules([asked()], [TWICE], [ran(), LATER], [trouble])
    assert found == ([] if explains else ["extra run"])


@pytest.mark.parametrize(
    ("more", "explains"),
    [
        ([], False),  # the run's end was written long before
        ([struck(Effect.AWAY, 3, 9, None)], True),  # it could not be written
        ([struck(Effect.AWAY, 3, 4, None), struck(Effect.BLOCKS, 10, 11)], True),
        ([struck(Effect.AWAY, 3, 4, ["b"])], False),  # another process
        ([struck(Effect.AWAY, 13, 14, None)], False),
    ],
)
def test_a_fault_long_after_the_end_of_a_run_does_not_explain_another_one(
    more: list[Trouble], explains: bool
) -> None:
    found = rules([asked()], [TWICE], [ran(), LATER], [struck(Effect.ENDS, 18, 18.1), *more])
    assert found == ([] if explains else ["extra run"])
    unfinished = [ran(ended=None, outcome=None), LATER]
    assert rules([asked()], [TWICE], unfinished, [struck(Effect.ENDS, 18, 18.1), *more]) == []


def test_silences_with_a_short_pause_between_them_are_one() -> None:
    two = [struck(Effect.AWAY, 1.5, 5), struck(Effect.STILL, 6, 9)]
    assert rules([asked()], [TWICE], [ran(), LATER], two) == []
    assert rules([asked()], [TWICE], [ran(), LATER], two[:1]) == ["extra run"]


def test_more_attempts_ran_than_are_counted() -> None:
    runs = [ran(outcome="failed"), LATER]
    assert rules([asked()], [replace(TWICE, attempts=1)], runs) == ["extra run"]


# --- rule 4: locks --------------------------------------------------------------------------------


def holders(*troubles: Trouble, ended: float | None = 2, **more: Any) -> list[str]:
    both = [stored(1, lock="l", finished_at=at(9)), stored(2, lock="l", finished_at=at(9))]
    outcome = "ok" if ended else None
    runs = [ran(1, 1, ended, outcome), ran(2, 1.5, 3, process="b")]
    if not ended:
        runs.append(ran(1, 8, 8.5, process="b", attempt=2))
        both[0] = replace(both[0], attempts=2)
    return rules([asked(1), asked(2)], both, runs, troubles, **more)


def test_two_jobs_of_one_lock_do_not_overlap() -> None:
    assert holders() == ["two holders of a lock"]


def test_they_may_if_the_first_worker_stood_still_meanwhile() -> None:
    assert holders(struck(Effect.STILL, -9, 1.2)) == []
    assert holders(struck(Effect.STILL, -9, 1.2, ["b"])) == ["two holders of a lock"]


def test_a_run_whose_process_died_held_its_lock_until_then() -> None:
    killed = struck(Effect.ENDS, 1.1, 1.2)
    assert holders(killed, ended=None, deaths={"a": at(1.2)}) == []
    late = struck(Effect.ENDS, 1.7, 1.8)
    assert holders(late, ended=None, deaths={"a": at(1.8)}) == ["two holders of a lock"]


# --- rule 5: the fence ----------------------------------------------------------------------------


def test_a_job_does_not_end_while_its_last_run_goes_on() -> None:
    still = struck(Effect.STILL, 1.5, 12)
    runs = [ran(ended=12.5), ran(began=12, ended=15, process="b", attempt=2)]
    fenced = stored(attempts=2, finished_at=at(15))
    assert rules([asked()], [fenced], runs, [still]) == []
    unfenced = replace(fenced, finished_at=at(13))
    assert rules([asked()], [unfenced], runs, [still]) == ["ended by another run"]


def test_a_job_whose_claim_was_forgotten_may_be_ended_by_either_run_of_its_attempt() -> None:
    """The first claim was lost in a crash of the server, and its worker stood still meanwhile."""
    troubles = [struck(Effect.FORGETS, 0.5, 1, None), struck(Effect.STILL, 0.5, 3)]
    runs = [ran(began=1, ended=2, process="b"), ran(began=3, ended=4)]
    assert rules([asked()], [stored(finished_at=at(2))], runs, troubles) == []
    again = [runs[0], replace(runs[1], attempt=2)]
    second = stored(finished_at=at(2), attempts=2)
    assert "ended by another run" in rules([asked()], [second], again, troubles)


# --- rules 6 to 9 ---------------------------------------------------------------------------------


def in_line(first_began: float, second_began: float, *troubles: Trouble, **spec: Any) -> list[str]:
    both = [asked(1, 0, lock="l", **spec), asked(2, 0.1, lock="l")]
    ends = [stored(n, lock="l", finished_at=at(60)) for n in (1, 2)]
    runs = [ran(1, first_began, first_began + 0.5), ran(2, second_began, second_began + 0.5)]
    return rules(both, ends, runs, troubles)


def test_jobs_of_a_line_begin_in_order() -> None:
    assert in_line(20, 21) == []
    assert in_line(21, 20) == ["out of order"]


def test_a_job_may_be_overtaken_shortly_after_it_was_deferred() -> None:
    assert in_line(3, 2) == []


def test_a_job_of_lower_priority_comes_later() -> None:
    assert in_line(21, 20, priority=-1) == []
    assert in_line(20, 21, priority=-1) == ["out of order"]


def test_a_job_whose_worker_was_held_up_may_be_overtaken() -> None:
    assert in_line(21, 20, struck(Effect.STILL, 10, 18)) == []


def test_two_jobs_with_one_queueing_lock_do_not_wait_at_the_same_time() -> None:
    waiting = [asked(1, 0, queueing_lock="q"), asked(2, 5, queueing_lock="q")]
    ends = [stored(1, finished_at=at(60)), stored(2, finished_at=at(60))]
    assert rules(waiting, ends, [ran(1, 4, 9), ran(2, 9, 10)]) == []
    found = rules(waiting, ends, [ran(1, 8, 9), ran(2, 9, 10)])
    assert found == ["two wait with one queueing lock"]


def ticks(*moments: int) -> list[str]:
    found = [
        Stored(id=n, status="succeeded", attempts=1, task="tick", tick=moment, finished_at=at(2))
        for n, moment in enumerate(moments)
    ]
    return rules([], found, [ran(job.id) for job in found])


def test_no_tick_is_missing_or_doubled() -> None:
    assert ticks(100, 104, 102) == []
    assert ticks(100, 104) == ["tick"]
    assert ticks(100, 102, 102) == ["tick"]


def test_a_scheduled_job_does_not_begin_before_its_time() -> None:
    assert rules([asked(delay=0.9)], [stored()], [ran()]) == []
    assert rules([asked(delay=1.1)], [stored()], [ran()]) == ["too early"]


def test_a_probe_begins_promptly() -> None:
    assert rules([asked(probe=True)], [stored()], [ran()]) == []
    late = stored(finished_at=at(6))
    assert rules([asked(probe=True)], [late], [ran(began=4, ended=5)]) == ["late in calm"]
    assert rules([asked()], [late], [ran(began=4, ended=5)]) == []


def silenced(began: float, *others: Trouble) -> list[str]:
    """Process a is silenced at second 1, and must run job 1 by second 26."""
    hole = replace(struck(Effect.AWAY, 1, 30), back_by=at(26), awaited=1)
    run = ran(began=began, ended=began + 1)
    return rules([asked(when=1)], [stored(finished_at=at(60))], [run], [hole, *others])


def test_a_silenced_worker_comes_back_in_time() -> None:
    assert silenced(25) == []
    assert silenced(27) == ["late to come back"]


def test_it_may_come_later_if_something_else_kept_it_away() -> None:
    assert silenced(27, struck(Effect.STILL, 20, 21)) == []
    assert silenced(27, struck(Effect.AWAY, 20, 21, None)) == []
    assert silenced(27, struck(Effect.BLOCKS, 20, 21, None)) == []
    assert silenced(27, struck(Effect.STILL, 20, 21, ["b"])) == ["late to come back"]
    assert silenced(27, struck(Effect.STILL, 27, 28)) == ["late to come back"]


# --- rules 11 and 12: results, and those who wait for them ----------------------------------------

KEPT = replace(stored(), task="keep_on_the_loop", result=ran().token)
FAILED = stored(
    status="failed", attempts=2, finished_at=at(21), last_error="x.Planned", task="keep_on_the_loop"
)


def kept(job: Stored, *runs: Run, waits: Sequence[Wait] = ()) -> list[str]:
    return rules([asked(failing=FOREVER)], [job], runs or [ran()], waits=waits)


def test_a_result_is_what_a_good_run_returned() -> None:
    assert kept(KEPT) == []
    assert kept(replace(KEPT, result="another's")) == ["wrong result"]
    assert kept(replace(KEPT, result=None)) == ["wrong result"]


def test_a_result_is_of_the_last_attempt() -> None:
    first, second = ran(outcome="failed"), LATER
    job = replace(KEPT, attempts=2, finished_at=at(21), result=second.token)
    assert kept(job, first, second) == []
    assert kept(replace(job, result=first.token), first, second) == ["wrong result"]


def test_only_tasks_that_keep_results_and_jobs_that_succeeded_have_one() -> None:
    assert kept(replace(KEPT, task="on_the_loop")) == ["wrong result"]
    assert kept(FAILED, ran(outcome="failed"), replace(LATER, outcome="failed")) == []
    failed = replace(FAILED, result="x")
    found = kept(failed, ran(outcome="failed"), replace(LATER, outcome="failed"))
    assert found == ["wrong result"]


@pytest.mark.parametrize(
    ("wait", "complaints"),
    [
        (Wait(1, "plain", at(0), at(2.1), "succeeded", KEPT.result), []),
        (Wait(1, "plain", at(3), at(3), "succeeded", KEPT.result), []),
        (Wait(1, "plain", at(0)), ["waits for ever"]),
        (Wait(1, "plain", at(0), at(2.1), "succeeded", "another's"), ["told wrong"]),
        (Wait(1, "plain", at(0), at(2.1), "failed"), ["told wrong"]),
        (Wait(1, "plain", at(0), at(2.1), "ConnectorException", "it is away"), ["told wrong"]),
        (Wait(1, "plain", at(0), at(1), "succeeded", KEPT.result), ["told early"]),
    ],
)
def test_who_waits_is_told_the_end_and_the_result(wait: Wait, complaints: list[str]) -> None:
    assert kept(KEPT, waits=[wait]) == complaints


def test_the_row_of_a_wait_may_be_left_if_a_connection_broke_meanwhile() -> None:
    assert timedelta(microseconds=keeper.LASTING_US) == closing.WAITS_LAST
    assert closing.is_excused(at(5), [struck(Effect.FORGETS, 4, 5, None)])
    assert closing.is_excused(at(5), [struck(Effect.AWAY, 0, 4)])
    assert not closing.is_excused(at(5), [struck(Effect.AWAY, 0, 1)])
    assert not closing.is_excused(at(5), [struck(Effect.ENDS, 4, 6)])


# --- rule 13: pauses ------------------------------------------------------------------------------


def paused(since: float, until: float, queue: str = "red", began: float | None = None) -> Trouble:
    pause = Pause(queue, at(since), at(until))
    begin = since if began is None else began
    nobody: frozenset[str] = frozenset()
    return Trouble(PAUSE, PAUSE, at(begin), at(until), processes=nobody, pause=pause)


@pytest.mark.parametrize(
    ("pause", "complaints"),
    [
        (paused(0, 10), ["began while paused"]),
        (paused(3, 10), []),  # a worker may start jobs for a moment
        (paused(-10, 4), []),  # it was resumed
        (paused(0, 10, queue="blue"), []),
    ],
)
def test_no_job_begins_while_its_queue_is_paused(pause: Trouble, complaints: list[str]) -> None:
    late = [asked()], [stored(finished_at=at(6))], [ran(began=5, ended=6)]
    assert rules(*late, [pause]) == complaints


def test_a_worker_that_was_cut_off_may_not_know_of_a_pause() -> None:
    late = [asked()], [stored(finished_at=at(6))], [ran(began=5, ended=6)]
    assert rules(*late, [paused(0, 10), struck(Effect.AWAY, -9, -5)]) == []
    assert rules(*late, [paused(0, 10), struck(Effect.AWAY, -9, -5, ("b",))]) != []
    assert rules(*late, [paused(0, 10), struck(Effect.AWAY, -99, -50)]) != []


def test_jobs_of_a_line_may_be_overtaken_while_their_queue_is_paused() -> None:
    line = [asked(1, lock="l"), asked(2, lock="l", queue="blue")]
    both = [stored(1, lock="l", finished_at=at(31)), stored(2, lock="l", finished_at=at(21))]
    runs = [ran(1, began=30, ended=31), ran(2, began=20, ended=21)]
    assert rules(line, both, runs) == ["out of order"]
    assert rules(line, both, runs, [paused(10, 25)]) == []


# --- rule 14: processes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "complaints"),
    [
        (struck(Effect.ENDS, 2.5, 3.5), []),
        (struck(Effect.ENDS, 2.5, 3.5, None), []),
        (struck(Effect.ENDS, 2.5, 3.5, ["b"]), ["ended by itself"]),  # another process
        (struck(Effect.ENDS, 3.5, 4), ["ended by itself"]),  # it was gone before
        (struck(Effect.STILL, 2.5, 3.5), ["ended by itself"]),
    ],
)
def test_a_process_that_ran_jobs_ends_only_by_a_fault(
    trouble: Trouble, complaints: list[str]
) -> None:
    deaths = {"a": at(3), "never ran": at(1)}
    assert rules([asked()], [stored()], [ran()], [trouble], deaths=deaths) == complaints


class Told:
    """A ledger that says which processes there are, and which of them were harmed."""

    def __init__(self, *rows: tuple[str, int, int, float]) -> None:
        self._rows = [(process, pid, parent, at(when)) for process, pid, parent, when in rows]

    def query(self, sql: str, *values: str) -> list[Any]:
        return [(values == ("first",),)] if values else self._rows


def test_a_family_is_all_children_that_a_process_has_had_and_nobody_of_a_former_one() -> None:
    """The numbers are of no living processes: all have ended when the family is asked for."""
    first, gone = ("first", 2**22 + 1, 7, 1.0), ("its child", 2**22 + 2, 2**22 + 1, 2.0)
    again, late = ("again", 2**22 + 1, 7, 10.0), ("late child", 2**22 + 3, 2**22 + 1, 12.0)
    census = Census(cast(Any, Told(first, gone, again, late)))
    census.look()
    assert [each.process for each in census.family(2**22 + 1, at(9))] == ["again", "late child"]
    assert census.was_nasty(2**22 + 1, at(0))
    assert not census.was_nasty(2**22 + 1, at(9))


# --- what is drawn --------------------------------------------------------------------------------


def test_no_kind_of_fault_is_more_than_a_twelfth_of_a_long_campaign() -> None:
    for count in (100, 1_000):
        drawn = draw.draw(faults.PLAIN, count, random.Random(7))
        assert len(drawn) == count
        assert max(drawn.count(kind) for kind in faults.PLAIN) <= draw.MOST * count
        assert all(kind in drawn for kind in faults.PLAIN)


def test_a_seed_draws_the_same_faults_and_jobs_again() -> None:
    assert draw.draw(faults.PLAIN, 50, random.Random(7)) == draw.draw(
        faults.PLAIN, 50, random.Random(7)
    )
    assert [*jobs.draw(range(500), 7, 0.05)] == [*jobs.draw(range(500), 7, 0.05)]
    assert [*jobs.draw(range(500), 7, 0.05)] != [*jobs.draw(range(500), 8, 0.05)]


def test_all_kinds_of_jobs_are_drawn() -> None:
    drawn = [spec for group in jobs.draw(range(3_000), 7, 0.05) for spec in group]
    assert [spec.n for spec in drawn] == [*range(3_000)]
    assert {spec.task for spec in drawn} == {*jobs.TASKS, *jobs.KEEPING.values()}
    assert all(spec.waited == (spec.task in jobs.KEEPING.values()) for spec in drawn)
    assert {spec.queue for spec in drawn} == set(jobs.QUEUES)
    assert {spec.failing for spec in drawn} == {0, 1, 2, FOREVER}
    for option in ("lock", "queueing_lock", "delay"):
        given = sum(getattr(spec, option) is not None for spec in drawn)
        assert 0 < given < len(drawn)


def test_names_of_faults_are_unique_and_every_deed_is_one() -> None:
    names = [kind.name for kind in faults.PLAIN]
    assert len(set(names)) == len(names)
    assert {f"job: {deed}" for deed in DEEDS} <= set(names)


def test_a_quick_lane_waits_for_the_slowest_and_for_no_lane_that_has_ended() -> None:
    quick, slow, dead = (campaign.Lane(name, [faults.PLAIN[0]] * 10) for name in ("q", "s", "d"))
    dead.thread = threading.Thread()  # it was never started: it is not alive
    quick.done, slow.done = 2, 1
    assert campaign.is_ahead(quick, [quick, slow, dead])
    assert not campaign.is_ahead(slow, [quick, slow, dead])
    slow.done = 2
    assert not campaign.is_ahead(quick, [quick, slow, dead])


def test_a_campaign_that_was_kept_is_checked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = Campaign(asked=[asked()], stored=[], runs=[], troubles=[])
    report.keep(campaign.Result(held, [], planned=0, seconds=0, workers=0, logs=tmp_path))
    assert main(["--again", str(tmp_path / "campaign.pickle")]) == 1
    assert "lost: acknowledged and gone" in capsys.readouterr().out


def test_many_faults_last_as_long_as_in_life() -> None:
    for arguments, long in (([], False), (["--faults", "1000"], True), (["--long"], True)):
        options = parse(arguments)
        assert options is not None
        assert options.long is long


def test_what_is_known_is_told_by_its_rule_and_its_text() -> None:
    known = [Known("hung", "importing", "a reason")]
    assert is_known(Complaint("hung", "worker-0004-importing.log"), known)
    assert not is_known(Complaint("hung", "worker-0004-direct.log"), known)
    assert not is_known(Complaint("lost", "worker-0004-importing.log"), known)


# --- plants ---------------------------------------------------------------------------------------


def test_a_plant_that_finds_nothing_to_change_says_so() -> None:
    query = Query("finish_jobs", "update jobs as job set status = 'succeeded'")
    with pytest.raises(RuntimeError, match="no fence is found in finish_jobs"):
        plants.without_fence(query)


@pytest.mark.parametrize("name", sorted(plants.PLANTS.keys() - {"lost-notify"}))
def test_a_plant_finds_what_it_changes_wherever_it_stands(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises if it does not."""
    monkeypatch.setattr(plants, "_endings", itertools.repeat(10))  # else it changes one in ten
    change = plants.PLANTS[name].change
    queries = [Query(each.name, each.text) for each in load().values()]
    assert [query.name for query in queries if change(query) != query]


def test_other_statements_are_left_alone() -> None:
    query = Query("claim", "select 1")
    assert [plant.change(query) for plant in plants.PLANTS.values()] == [query] * len(plants.PLANTS)
