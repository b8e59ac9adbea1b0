"""PostgreSQL and the in-memory connector do the same, step by step, whatever happens to a queue.

``PROCRASTINATE_MACHINE_STEPS`` makes the run longer than what CI can afford. A failure prints its
steps. ``PROCRASTINATE_MACHINE_SEED`` draws the same ones again, and with it
``PROCRASTINATE_MACHINE_SHRINK=1`` makes them as few as can be, which takes minutes.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from queue_machine import HOUR, New, Tally
from queue_rules import WholeMachine
from queue_sides import COMPARED, Sides

from procrastinate import json_codec
from procrastinate.model.job import TRANSITIONS, Status
from procrastinate.model.partitions import ONE
from procrastinate.storage import defer, search
from procrastinate.storage.jobs import JobFilter
from procrastinate.storage.periodic import Outcome
from procrastinate.testing._engine.store import STATEMENTS

STEPS = int(os.environ.get("PROCRASTINATE_MACHINE_STEPS") or 2_000)
#: In CI always the same, as for hypothesis: a change is not to be refused for what it did not do.
SEED = int(
    os.environ.get("PROCRASTINATE_MACHINE_SEED")
    or (1 if os.environ.get("CI") else random.randrange(2**32))
)
SHRINK = bool(os.environ.get("PROCRASTINATE_MACHINE_SHRINK"))
#: Statements that no rule of the machine makes use of. Each needs a reason.
#: For distributed databases only: see `storage/test_lock_contention.py` and `test_partitioning.py`.
#: Nobody waits in memory, so that nothing there expires: see `storage/test_waits.py`.
NOT_DRIVEN: set[str] = {
    "prune_waits",
    *("make_slots_full", "make_slots_level"),
    *("locate_jobs", "defer_job_with_key"),
    # What ended in a minute: the two sides' clocks are in different ones. They do the same in
    # tests/app/test_throughput.py.
    *("add_to_minute", "list_minutes", "sum_minutes", "take_old_minutes", "add_to_hours"),
    "prune_minutes",
}
#: Tables that the memory has no rows of: it has but one partition and one schema, and nothing
#: writes the others yet.
NOT_COMPARED = ("migrations", "settings", "waits", "queues", "minutes")
#: Outcomes of ticks that do not happen: no part of this database is ever away.
NEVER = {Outcome.AWAY}
ROUND = settings(
    max_examples=10,
    stateful_step_count=30,
    database=None,  # what failed here before must not decide what is drawn from a seed
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.generate, *([Phase.shrink] if SHRINK else [])],
)


@pytest.fixture
def sides(dsn: str) -> Iterator[Sides]:
    connection = psycopg2.connect(dsn)
    yield Sides(connection)
    connection.close()


def test_all_columns_of_all_tables_are_compared(
    dsn: str, query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    columns: dict[str, set[str]] = {}
    for table, column in query(
        "select table_name, column_name from information_schema.columns"
        " where table_schema = 'public' and column_name <> 'partition'"
    ):
        columns.setdefault(table, set()).add(column)
    for table in NOT_COMPARED:
        del columns[f"procrastinate_{table}"]
    assert columns == COMPARED


@pytest.mark.one_partition("memory has one")
def test_a_time_that_a_step_is_given_comes_before_one_that_a_statement_reckons(
    sides: Sides,
) -> None:
    """The memory's clock must not stand still during a step: see `queue_sides`."""
    reckoned = New("t1", "a", 0, None, None, "{}", due=HOUR, absolute=False)
    both = (reckoned, replace(reckoned, absolute=True))
    scheduled = JobFilter(statuses=[Status.TODO], holds=["schedule"])
    one_page = {"limit": 3, "budget": 3, "partitions": ONE, "loads": json_codec.loads}
    sides.reset()

    sides.run(lambda now: defer.defer_jobs([each.at(now) for each in both]))
    shown = sides.run(lambda now: search.search_jobs(scheduled, None, **one_page))

    assert [job.id for job in shown.value.jobs] == [2, 1]


@pytest.mark.slow
@pytest.mark.one_partition("memory has one")
@pytest.mark.first
@pytest.mark.timeout(120 + STEPS / 10)
def test_postgresql_and_memory_agree_at_every_step(
    sides: Sides, report: Callable[[str], None]
) -> None:
    report(f"seed of the state machine: PROCRASTINATE_MACHINE_SEED={SEED}")
    tally = Tally()
    WholeMachine.sides, WholeMachine.tally = sides, tally
    steps, began, rounds = tally.steps, time.monotonic(), 0
    while steps.total() < STEPS or (_unseen(tally) and steps.total() < 3 * STEPS):
        run_state_machine_as_test(seed(SEED + rounds)(WholeMachine), settings=ROUND)
        rounds += 1
    report(f"{steps.total()} steps agreed, in {time.monotonic() - began:.0f} s: {_counts(steps)}")
    report(f"changes of status: {_counts(tally.changes)}; errors: {_counts(tally.errors)}")
    report(f"told to who waits: {tally.woken} ends")
    report(f"ticks: {_counts(Counter({each.name: n for each, n in tally.ticks.items()}))}")
    assert steps.total() >= STEPS
    assert _unseen(tally) == set()


def _unseen(tally: Tally) -> set[object]:
    """Statements, changes of status, and other events that did not happen yet."""
    schema_sql = resources.files("procrastinate.storage").joinpath("sql/schema.sql").read_text()
    about_the_schema = re.findall(r"-- name: (\w+)", schema_sql)
    legal = {(old, new) for old, following in TRANSITIONS.items() for new in following}
    statements = STATEMENTS.keys() - NOT_DRIVEN - set(about_the_schema) - tally.statements.keys()
    return {
        *statements,
        *(legal - tally.changes.keys()),
        *(set(Outcome) - NEVER - tally.ticks.keys()),
        *([] if tally.woken else ["somebody who waits is woken"]),
    }


def _counts(counter: Counter[Any]) -> str:
    named = {
        each if isinstance(each, str) else " to ".join(each): counter[each] for each in counter
    }
    return ", ".join(f"{count} {name}" for name, count in sorted(named.items()))
