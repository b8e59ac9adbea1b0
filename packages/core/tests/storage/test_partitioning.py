"""A database with 64 partitions: into which of them jobs go. It needs no cluster."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest

import procrastinate
from procrastinate.errors import AlreadyEnqueued, InvalidOption
from procrastinate.model.job import NewJob
from procrastinate.model.partitions import MANY, VALUES, Partitions
from procrastinate.storage import defer
from procrastinate.storage.partitioning import into_partitions

Query = Callable[..., list[tuple[Any, ...]]]
P = Partitions(MANY)

pytestmark = pytest.mark.one_partition("these make the partitions themselves")


def distribute(app: procrastinate.App) -> Partitions:
    return app._gateway.run(into_partitions(), transaction=True)


@pytest.fixture
def app(sync_app: procrastinate.App) -> procrastinate.App:
    """An app on a database with 64 partitions."""
    distribute(sync_app)
    return sync_app


def text() -> str:
    """Any text that a lock may be."""
    characters = "ab\t\n'\\{}\"%é€\u2028\ufeff\U0001f600\U0010ffff"
    return "".join(random.choices(characters, k=random.randrange(20)))


def test_the_server_finds_the_partition_of_a_key_as_python_does(query: Query) -> None:
    keys = [text() for _ in range(10_000)]
    rows = query(
        "select get_byte(sha256(convert_to(key, 'UTF8')), 0) %% 64 from unnest(%s) as key", keys
    )
    assert [VALUES[place] for (place,) in rows] == [P.of_key(key) for key in keys]


def test_a_job_goes_to_the_partition_of_its_key(app: procrastinate.App, query: Query) -> None:
    by_lock = app.configure_task("task", lock="l").defer()
    by_queueing_lock = app.configure_task("task", queueing_lock="q").defer()
    by_key = app.configure_task("task", lock="l", queueing_lock="x", partition_key="k").defer()
    assert dict(query("select id, partition from procrastinate_jobs")) == {
        by_lock: P.of_key("l"),
        by_queueing_lock: P.of_key("q"),
        by_key: P.of_key("k"),
    }
    assert all(P.of_id(job_id) == partition for job_id, partition in _places(query).items())


def _places(query: Query) -> dict[int, int]:
    return dict(query("select id, partition from procrastinate_jobs"))


def test_jobs_without_a_key_go_anywhere(app: procrastinate.App, query: Query) -> None:
    ids = [app.configure_task("task").defer() for _ in range(300)]
    assert ids == sorted(ids)
    places = _places(query)
    assert all(P.of_id(job_id) == partition for job_id, partition in places.items())
    assert len(set(places.values())) > 40


def test_a_batch_without_keys_goes_to_one_partition(app: procrastinate.App, query: Query) -> None:
    ids = app.configure_task("task").batch_defer(*[{"a": n} for n in range(100)])
    assert ids == sorted(ids)
    assert query("select id, args->>'a' from procrastinate_jobs order by (args->>'a')::int") == [
        (job_id, str(n)) for n, job_id in enumerate(ids)
    ]
    assert len(set(_places(query).values())) == 1


def test_a_batch_with_keys_is_in_the_order_given(app: procrastinate.App, query: Query) -> None:
    jobs = [NewJob(f"task {n}", lock=None if n % 5 == 0 else f"{n % 7}") for n in range(200)]
    jobs += [NewJob("keyed", lock="l", queueing_lock=f"{n}", partition_key="k") for n in range(9)]
    ids = app._gateway.run(defer.defer_jobs(jobs), transaction=True)
    assert ids == sorted(ids)
    rows = query("select id, task_name, lock, queueing_lock, partition from procrastinate_jobs")
    stored = {row[0]: row[1:] for row in rows}
    without_key = {stored[i][3] for job, i in zip(jobs, ids, strict=True) if job.lock is None}
    assert len(without_key) == 1
    for job, job_id in zip(jobs, ids, strict=True):
        key = job.partition_key or job.lock
        partition = P.of_key(key) if key else next(iter(without_key))
        assert stored[job_id] == (job.task_name, job.lock, job.queueing_lock, partition)
        assert P.of_id(job_id) == partition


def test_an_empty_batch_is_no_batch(app: procrastinate.App, query: Query) -> None:
    assert app.configure_task("task").batch_defer() == []
    assert query("select * from procrastinate_defer_jobs('[]')") == []
    assert query("select procrastinate_defer_alike('[]', '{\"task_name\": \"task\"}')") == [(None,)]


JOB, ALIKE = '[{"task_name": "w"}]', '{"task_name": "w"}'
LOCKED = '[{"task_name": "w", "queueing_lock": "q"}]'


def answer(query: Query, call: str, *args: Any) -> str | int:
    """Return the SQLSTATE of a call, or how many jobs it has deferred."""
    try:
        query(f"select {call}", *args)
    except psycopg2.Error as exc:
        return exc.pgcode or "lost"
    ((count,),) = query("select count(*) from procrastinate_jobs")
    return int(count)


@pytest.mark.parametrize("partitions", [1, MANY])
@pytest.mark.parametrize(
    ("jobs", "common", "expected"),
    [
        (JOB, None, 1),
        (LOCKED, None, 1),
        (None, None, 0),
        ("[]", None, 0),
        (JOB, "null", "22023"),
        (JOB, "[]", "22023"),
        (JOB, "1", "22023"),
        (LOCKED, "[]", "22023"),
        (JOB, '{"queueing_lock": "c"}', "22023"),
        (LOCKED, '{"queueing_lock": "c"}', "22023"),
        (JOB, '{"queueing_lock": null}', 1),
    ],
)
def test_whatever_is_common_to_a_batch_has_the_same_answer_in_one_partition_and_in_many(
    sync_app: procrastinate.App,
    query: Query,
    partitions: int,
    jobs: str | None,
    common: str | None,
    expected: str | int,
) -> None:
    if partitions > 1:
        distribute(sync_app)
    call = "* from procrastinate_defer_jobs(%s, %s)"
    assert answer(query, call, jobs, common) == expected


@pytest.mark.parametrize("partitions", [1, MANY])
@pytest.mark.parametrize(
    ("all_args", "common", "expected"),
    [
        (None, None, 0),
        ("[]", None, 0),
        ("[{}]", None, "23514"),
        ("[{}]", "[]", "22023"),
        ("[{}]", "null", "22023"),
        ("[{}]", '{"task_name": "w", "queueing_lock": "c"}', "22023"),
        ("[{}]", '{"task_name": "w", "queueing_lock": null}', 1),
    ],
)
def test_whatever_jobs_have_alike_has_the_same_answer_in_one_partition_and_in_many(
    sync_app: procrastinate.App,
    query: Query,
    partitions: int,
    all_args: str | None,
    common: str | None,
    expected: str | int,
) -> None:
    if partitions > 1:
        distribute(sync_app)
    call = "procrastinate_defer_alike(%s, %s)"
    assert answer(query, call, all_args, common) == expected


@pytest.mark.parametrize("partitions", [1, MANY])
@pytest.mark.parametrize(
    "call",
    [
        "procrastinate_defer_job('w', home => null)",
        "procrastinate_defer_job_with_key('w', 'k', home => null)",
        f"* from procrastinate_defer_jobs('{JOB}', '{{}}', null)",
        f"procrastinate_defer_alike('[{{}}]', '{ALIKE}', null)",
    ],
)
def test_no_home_is_not_a_home_that_was_moved(
    sync_app: procrastinate.App, query: Query, partitions: int, call: str
) -> None:
    if partitions > 1:
        distribute(sync_app)
    with pytest.raises(psycopg2.errors.NullValueNotAllowed, match="not null: leave it out"):
        query(f"select {call}")


@pytest.mark.parametrize("waiting", [[], ["taken"]])
def test_a_batch_with_a_queueing_lock_that_is_taken_defers_nothing(
    app: procrastinate.App, query: Query, waiting: list[str]
) -> None:
    for queueing_lock in waiting:
        app.configure_task("task", queueing_lock=queueing_lock).defer()
    batch = [NewJob("task", queueing_lock=each) for each in ("a", "b", "taken")]
    if not waiting:
        batch.append(NewJob("task", queueing_lock="taken"))
    with pytest.raises(AlreadyEnqueued, match="taken"):
        app._gateway.run(defer.defer_jobs(batch), transaction=True)
    assert query("select queueing_lock from procrastinate_jobs") == [(e,) for e in waiting]


@pytest.mark.parametrize("key", [{}, {"partition_key": "k"}])
def test_a_twin_is_found_in_the_partition_of_the_key(
    app: procrastinate.App, key: dict[str, Any]
) -> None:
    task = app.configure_task("task", queueing_lock="q", **key)
    task.defer()
    with pytest.raises(AlreadyEnqueued, match="'q'"):
        task.defer()
    with pytest.raises(AlreadyEnqueued):
        task.batch_defer({})


def _apart() -> dict[str, Any]:
    """A lock and a queueing lock of different partitions."""
    other = next(f"{n}" for n in range(99) if P.of_key(f"{n}") != P.of_key("l"))
    return {"lock": "l", "queueing_lock": other}


def test_two_locks_of_different_partitions_are_refused_without_a_key(
    app: procrastinate.App, query: Query
) -> None:
    locks = _apart()
    said = f"'l' and the queueing lock '{locks['queueing_lock']}' of task task .*partition_key"
    with pytest.raises(InvalidOption, match=said):
        app.configure_task("task", **locks).defer()
    with pytest.raises(InvalidOption, match=said):
        app.configure_task("task", **locks).batch_defer({})
    assert query("select * from procrastinate_jobs") == []
    app.configure_task("task", **locks, partition_key="k").defer()
    app.configure_task("task", lock="l", queueing_lock="l").defer()


def test_with_one_partition_nobody_needs_a_key(sync_app: procrastinate.App, query: Query) -> None:
    sync_app.configure_task("task", **_apart()).defer()
    sync_app.configure_task("task", partition_key="k").defer()
    sync_app.configure_task("task", partition_key="k").batch_defer({}, {})
    assert query("select id, partition from procrastinate_jobs order by id") == [
        (job_id, 0) for job_id in (1, 2, 3, 4)
    ]


# --- Notifications --------------------------------------------------------------------------------


def test_a_notification_names_the_partition(app: procrastinate.App, dsn: str) -> None:
    listener = psycopg2.connect(dsn)
    listener.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("listen procrastinate_jobs; listen procrastinate_schedule")
        app.configure_task("task", queue="q", lock="l").defer()
        soon = app.configure_task("task", lock="m", schedule_in={"seconds": 30})
        soon.batch_defer({}, {})
        app.configure_task("task", lock="n", schedule_in={"hours": 1}).defer()
        cursor.execute("select 1")
    assert [(each.channel, each.payload) for each in listener.notifies] == [
        ("procrastinate_jobs", f"q@{P.of_key('l')}"),
        ("procrastinate_schedule", f"default@{P.of_key('m')}"),
    ]
    listener.close()


# --- Coming from one partition --------------------------------------------------------------------


def test_jobs_with_a_key_move_to_its_partition_and_keep_their_ids(
    sync_app: procrastinate.App, query: Query
) -> None:
    locked = sync_app.configure_task("task", lock="l", queueing_lock="q").defer()
    queueing = sync_app.configure_task("task", queueing_lock="q2").defer()
    free = sync_app.configure_task("task").defer()
    query("insert into procrastinate_locks (lock, job_id) values ('l', %s)", locked)
    assert distribute(sync_app) == Partitions(MANY, boundary_id=3)
    assert distribute(sync_app) == Partitions(MANY, boundary_id=3)
    assert _places(query) == {locked: P.of_key("l"), queueing: P.of_key("q2"), free: 0}
    assert query("select partition, job_id from procrastinate_locks") == [(P.of_key("l"), locked)]
    later = sync_app.configure_task("task").defer()
    assert later // MANY == 4
    query(
        "insert into procrastinate_jobs (partition, task_name, queue_name) values (0, 'mine', 'q')"
    )
    assert _places(query)[5 * MANY + VALUES.index(0)] == 0


def test_an_id_that_does_not_name_its_partition_is_refused(
    app: procrastinate.App, query: Query
) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        query(
            "insert into procrastinate_jobs (id, task_name, queue_name) values (%s, 't', 'q')",
            10 * MANY,
        )
    with pytest.raises(psycopg2.errors.UndefinedTable):
        query("select nextval('procrastinate_jobs_id_seq')")


def test_such_a_schema_is_found_right_and_its_functions_are_kept(
    app: procrastinate.App, query: Query
) -> None:
    assert app.schema_manager.check().partitions == P
    query("drop function procrastinate_defer_job_with_key")
    assert app.schema_manager.migrate() == ["functions"]
    assert app.schema_manager.check().partitions == P
    app.configure_task("task", lock="l").defer()
    assert set(_places(query).values()) == {P.of_key("l")}


def test_a_batch_is_planned_each_time_whatever_plans_a_role_wants(
    app: procrastinate.App, query: Query
) -> None:
    """Citus makes no other plan of these inserts: "could not create distributed plan"."""
    rows = query(
        "select proname::text from pg_proc"
        " where pronamespace = (select relnamespace from pg_class"
        " where oid = 'procrastinate_jobs'::regclass)"
        " and proconfig @> '{plan_cache_mode=force_custom_plan}' order by 1"
    )
    assert rows == [("procrastinate_defer_alike",), ("procrastinate_defer_jobs",)]
    assert app.schema_manager.check().partitions == P
