"""``procrastinate schema`` and ``healthchecks``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Any as Program  # of conftest.py, which cannot be imported by name

import pytest

import procrastinate
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.storage.partitioning import into_partitions
from procrastinate.storage.schema import latest_version, migrations

MIGRATIONS = [f"{each.version:04}_{each.name}" for each in migrations()]


Query = Callable[..., Any]


@pytest.fixture
def empty(bare_program: Program, procrastinate_dsn: str) -> Program:
    """The program with an empty database."""
    bare_program.env |= {"SHOP_DSN": procrastinate_dsn, "PROCRASTINATE_APP": "shop.app"}
    return bare_program


def test_apply_creates_the_tables_and_does_nothing_the_second_time(empty: Program) -> None:
    first, second = empty("schema", "--apply"), empty("schema", "--apply")
    assert (first.returncode, first.stdout) == (
        0,
        "".join(f"applied {each}\n" for each in MIGRATIONS),
    )
    assert (second.returncode, second.stdout) == (
        0,
        f"nothing to do: the schema is at version {latest_version()}\n",
    )


def test_check_and_migrate_tell_an_empty_database_by_their_exit_code(empty: Program) -> None:
    for action in ("--check", "--migrate"):
        done = empty("schema", action)
        assert done.returncode == ExitCode.SCHEMA_NOT_APPLIED
        assert "run `procrastinate schema --apply`" in done.stderr


ONE_PARTITION = pytest.mark.one_partition("it is told that the jobs are not distributed")


@pytest.mark.one_partition("it shows the state of a schema that is not distributed")
@ONE_PARTITION
def test_check_fits_after_apply(program: Program) -> None:
    done = program("schema", "--check")
    said = f"the schema fits: version {latest_version()}, not distributed\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert program("schema", "--migrate").returncode == 0


def test_check_tells_an_outdated_schema_by_its_exit_code(
    program: Program, query: Callable[..., Any]
) -> None:
    query("delete from procrastinate_migrations")
    done = program("schema", "--check")
    assert done.returncode == ExitCode.SCHEMA_OUTDATED
    assert "run `procrastinate schema --migrate`" in done.stderr
    done = program("schema", "--migrate")
    said = "wrote the missing records of migrations that the tables have\n"
    assert (done.returncode, done.stdout) == (0, said)


@pytest.mark.parametrize("command", [["schema", "--check"], ["schema", "--apply"], ["worker"]])
def test_a_schema_of_newer_code_is_told_by_the_exit_code_of_every_command(
    program: Program, query: Callable[..., Any], command: list[str]
) -> None:
    query(
        "insert into procrastinate_migrations (version, name, compatible_from)"
        " values (999, 'later', 999)"
    )
    done = program(*command)
    assert done.returncode == ExitCode.SCHEMA_TOO_NEW
    assert done.stderr.splitlines()[-1].startswith("error: the database is at schema version 999")


@pytest.mark.parametrize("options", [[], ["--apply", "--check"]])
def test_exactly_one_action_is_to_be_given(empty: Program, options: list[str]) -> None:
    done = empty("schema", *options)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(
        "error: give exactly one of --apply, --migrate, --check, --distribute, --read,"
    )


@pytest.mark.one_partition("it distributes the database itself")
@ONE_PARTITION
def test_distribute_without_a_cluster_is_refused(
    program: Program, sync_app: procrastinate.App
) -> None:
    """Also where the jobs are in 64 partitions, as in a dump of a cluster that was restored."""
    for checked in ("not distributed", "64 partitions, all on this server"):
        done = program("schema", "--distribute")
        assert (done.returncode, done.stdout) == (ExitCode.ERROR, "")
        assert "the extension citus is not in this database" in done.stderr
        assert program("schema", "--check").stdout.endswith(f", {checked}\n")
        sync_app._gateway.run(into_partitions(), transaction=True)


def test_check_of_what_is_in_memory(bare_program: Program, tmp_path: Path) -> None:
    (tmp_path / "in_memory.py").write_text(
        "import procrastinate\n"
        "from procrastinate.testing import InMemoryConnector\n"
        "app = procrastinate.App(connector=InMemoryConnector())\n"
    )
    done = bare_program("--app=in_memory.app", "schema", "--check")
    assert done.stdout == f"the schema fits: version {latest_version()}, not distributed\n"


@pytest.mark.one_partition("it puts rows into a partition that is not there")
@pytest.mark.parametrize(
    "row",
    [
        "insert into procrastinate_locks (lock, partition, job_id) values ('l', 60, 1)",
        *(
            "insert into procrastinate_jobs"
            " (task_name, queue_name, args, partition, status, hold, scheduled_at, lock,"
            f" worker_id) values ('t', 'default', '{{}}', 60, {rest})"
            for rest in (
                "'todo', null, null, null, null",
                "'todo', 'schedule', now() + interval '1 day', null, null",
                "'todo', 'lock', null, 'l', null",
                "'doing', null, null, null, 1",
            )
        ),
    ],
)
def test_check_says_that_jobs_are_where_no_worker_looks(
    program: Program, query: Callable[..., Any], row: str
) -> None:
    query("select nextval('procrastinate_workers_id_seq')")  # as a worker that runs jobs
    query(row)
    done = program("schema", "--check")
    assert (done.returncode, done.stdout) == (ExitCode.ERROR, "")
    assert "in another than 0, where no worker looks" in done.stderr
    for table in ("jobs", "locks"):
        query(f"update procrastinate_{table} set partition = 0 where partition <> 0")
    assert program("schema", "--check").returncode == 0


@pytest.mark.one_partition("a cluster has each partition in a shard of its own")
def test_check_says_that_jobs_are_in_none_of_many_partitions(
    program: Program, sync_app: procrastinate.App, query: Query
) -> None:
    """An id from before the boundary says no partition: by hand, any can be given."""
    sync_app._gateway.run(into_partitions(), transaction=True)
    for rest in ("-1, 7, null", "-2, 7000, null", "-3, -1, 'lock'"):
        query(
            "insert into procrastinate_jobs"
            " (task_name, queue_name, lock, id, partition, hold)"
            f" values ('task', 'default', 'lock', {rest})"
        )
    done = program("schema", "--check")
    assert done.returncode == ExitCode.ERROR
    assert "(ids: -3, -2)" in done.stderr
    query("delete from procrastinate_jobs where id < -1")
    assert program("schema", "--check").returncode == 0


def test_read_prints_sql_that_makes_the_tables(
    bare_program: Program, query: Callable[..., Any]
) -> None:
    done = bare_program("schema", "--read")
    assert done.returncode == 0
    query(done.stdout)
    assert query("select count(*) from procrastinate_jobs") == [(0,)]


def test_migrations_path_is_a_folder_of_sql_files(bare_program: Program) -> None:
    folder = Path(bare_program("schema", "--migrations-path").stdout.strip())
    assert folder.joinpath("0001_initial.sql").is_file()


def test_healthchecks_say_what_is_well(program: Program) -> None:
    done = program("healthchecks")
    assert done.returncode == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "ok    app",
        "ok    connection",
        "ok    asynchronous connection",
        "ok    schema",
        "ok    workers",
    ]


def test_healthchecks_say_how_many_workers_are_alive(
    program: Program, query: Callable[..., Any]
) -> None:
    """And fail only if some are asked for: what defers jobs is well without a worker."""

    def last_line(*options: str) -> tuple[int, str]:
        done = program("healthchecks", *options)
        return done.returncode, (done.stderr or done.stdout).splitlines()[-1]

    well = "ok    workers: none is alive, no job held by lost workers"
    assert last_line() == last_line("--workers=0") == (0, well)
    dead, alive = "now() - interval '1 hour'", "now() + interval '1 hour'"
    query(
        "insert into procrastinate_workers (name, last_heartbeat)"
        f" values ('dead', {dead}), ('alive', {alive})"
    )
    assert last_line("--workers=1")[0] == 0
    code, said = last_line("--workers=2")
    assert code == ExitCode.ERROR
    assert said.startswith("error: 1 worker alive, and 2 should be")
    query("delete from procrastinate_workers where name = 'alive'")
    code, said = last_line("--workers=1")
    assert code == ExitCode.ERROR
    assert said.startswith("error: none is alive, and 1 should be")


def test_healthchecks_stop_at_what_fails_and_exit_with_its_code(empty: Program) -> None:
    done = empty("healthchecks")
    assert done.returncode == ExitCode.SCHEMA_NOT_APPLIED
    assert done.stdout.splitlines()[-1] == "fail  schema"
    assert done.stderr.startswith("error: procrastinate's tables are not")


def test_healthchecks_without_a_server(bare_program: Program) -> None:
    done = bare_program("healthchecks", "-a", "shop.app")
    assert done.returncode == ExitCode.ERROR
    assert [line[:16] for line in done.stdout.splitlines()] == [
        "ok    app: shop.",
        "fail  connection",
    ]


def test_tasks_that_a_cluster_would_refuse_are_listed(program: Program) -> None:
    module = program.folder / "locked.py"
    module.write_text(LOCKED)
    ask = ("--app=locked.app", "schema", "--check", "--for-distribution")
    done = program(*ask)
    assert done.returncode == ExitCode.ERROR
    assert "belong to different partitions: both, renamed. Give each a partition_key" in done.stderr
    module.write_text(LOCKED.replace("queueing_lock=", 'partition_key="k", queueing_lock='))
    done = program(*ask)
    assert done.returncode == 0
    assert done.stdout.endswith("no task has locks that a distributed database refuses\n")


@pytest.mark.one_partition("no jobs are looked at on a distributed database")
def test_asking_for_distribution_says_which_right_it_takes(program: Program, query: Query) -> None:
    query("create role procrastinate_asker login")
    try:
        query("grant select on procrastinate_migrations to procrastinate_asker")
        options = {"PGOPTIONS": "-c role=procrastinate_asker"}
        done = program("schema", "--check", "--for-distribution", env=options)
        assert done.returncode == ExitCode.ERROR
        assert "Ask as a role that has SELECT on procrastinate_jobs" in done.stderr
    finally:
        query("drop owned by procrastinate_asker; drop role procrastinate_asker")


@pytest.mark.one_partition("a distributed database has stored the keys")
def test_jobs_that_were_deferred_without_their_partition_key_are_to_be_drained(
    program: Program, query: Query
) -> None:
    (program.folder / "keyed.py").write_text(KEYED)
    for name, *options in (
        ("keyed", "--lock=l"),
        ("keyed", "--queueing-lock=q"),
        ("keyed",),
        ("not keyed", "--lock=l"),
    ):
        assert program("--app=keyed.app", "defer", *options, name).returncode == 0
    query("update procrastinate_jobs set task_name = 'before' where lock = 'l' and id = 1")
    ask = ("--app=keyed.app", "schema", "--check", "--for-distribution")
    done = program(*ask)
    assert done.returncode == ExitCode.ERROR
    assert "not seen: before (1 job), keyed (1 job). Let these jobs run, or cancel" in done.stderr
    query("update procrastinate_jobs set status = 'cancelled' where task_name <> 'not keyed'")
    assert program(*ask).returncode == 0


KEYED = """
import procrastinate, shop
app = shop.app
@app.task(name="keyed", aliases=["before"], partition_key="k")
def keyed(): ...
@app.task(name="not keyed")
def not_keyed(): ...
"""


def test_for_distribution_goes_with_check_only(empty: Program) -> None:
    done = empty("schema", "--apply", "--for-distribution")
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("error: --for-distribution goes with --check only")


LOCKED = """
import procrastinate, shop
app = shop.app
@app.task(name="both", lock="a", queueing_lock="b")
def both(): ...
@app.task(name="the same", lock="a", queueing_lock="a")
def same(): ...
@app.task(name="one", lock="a")
def one(): ...
@app.periodic(cron="* * * * *", lock="a", queueing_lock="c")
@app.task(name="renamed")
def periodic(timestamp): ...
"""
