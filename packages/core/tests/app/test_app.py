"""Apps with several connectors, their opening and closing, and where they are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2.pool
import pytest

import procrastinate
from procrastinate import LoadFromPathError, errors
from procrastinate.testing import InMemoryConnector


def app_in_memory(**options: Any) -> procrastinate.App:
    return procrastinate.App(connector=InMemoryConnector(), **options)


def names_in(app: procrastinate.App) -> list[str]:
    return [job.task_name for job in app.job_manager.list_jobs()]


def test_two_apps_share_tasks_registered_on_either_before_and_after() -> None:
    first = app_in_memory()
    first.task(name="before")(lambda: None)
    second = first.with_connector(InMemoryConnector())
    first.task(name="on_first")(lambda: None)
    second.task(name="on_second")(lambda: None)

    assert sorted(first.tasks) == sorted(second.tasks) == ["before", "on_first", "on_second"]


def test_an_app_is_opened_where_it_is_made(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=dsn)).open()
    assert app.check_connection()

    with app.open() as same:
        assert same is app
    with pytest.raises(procrastinate.AppNotOpen):
        app.check_connection()


def test_deferring_through_an_app_uses_that_apps_connector() -> None:
    first = app_in_memory()
    second = first.with_connector(InMemoryConnector())
    one = first.task(name="one")(lambda: None)
    two = second.task(name="two")(lambda: None)

    one.defer()
    two.defer()
    assert (names_in(first), names_in(second)) == (["one"], ["two"])

    second.configure_task("one").defer()
    second.configure_task(one).defer()
    second.tasks["one"].defer()
    assert (names_in(first), names_in(second)) == (["one"], ["two", "one", "one", "one"])

    first.configure_task(two).defer()
    assert names_in(first) == ["one", "two"]


def test_a_task_of_one_app_runs_in_a_worker_of_the_other(dsn: str) -> None:
    app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=dsn))
    sync_app = app.with_connector(connector=procrastinate.Psycopg2Connector(dsn=dsn))
    done = []
    task = sync_app.task(name="task")(lambda: done.append(1))
    with sync_app.open():
        task.defer()
        app.run_worker(wait=False)

    assert done == [1]


def test_replace_connector_holds_for_the_length_of_the_block() -> None:
    app = app_in_memory()
    task = app.task(name="task")(lambda: None)
    original, other = app.connector, InMemoryConnector()
    with app.replace_connector(other) as replaced:
        assert replaced is app
        assert app.connector is other
        task.defer()

    assert app.connector is original
    assert [job.task_name for job in other.jobs] == ["task"]
    assert names_in(app) == []


def test_a_pool_handed_in_is_used_and_left_open(dsn: str) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 3, dsn)
    app = procrastinate.App(connector=procrastinate.Psycopg2Connector())
    with app.open(pool):
        assert app.check_connection()

    assert not pool.closed
    connection = pool.getconn()
    assert not connection.closed
    pool.closeall()


def test_check_connection_says_whether_the_tables_are_there(procrastinate_dsn: str) -> None:
    connector = procrastinate.Psycopg2Connector(dsn=procrastinate_dsn)
    with procrastinate.App(connector=connector).open() as app:
        assert app.check_connection() is False
        app.schema_manager.apply_schema()
        assert app.check_connection() is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"host": "127.0.0.1", "port": 1, "dbname": "x", "password": "secret"}, "refused"),
        ({"dsn": "host='unfinished"}, "unterminated|quoted"),
    ],
)
def test_a_connection_that_cannot_be_made_is_one_clear_error(
    arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(errors.ProcrastinateException, match=says) as caught:
        procrastinate.App(connector=procrastinate.Psycopg2Connector(**arguments)).open()
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("monkeypatch")
def test_an_app_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somewhere.py").write_text(
        "import procrastinate\nfrom procrastinate.testing import InMemoryConnector\n"
        "app = procrastinate.App(connector=InMemoryConnector())\nnot_app = 7\n"
    )
    (tmp_path / "raising.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    app = procrastinate.App.from_path("somewhere.app")
    assert app is sys.modules["somewhere"].app
    for path, says in (
        ("somewhere.not_app", "int 7"),
        ("somewhere.missing", "nothing"),
        ("nowhere.app", "'nowhere' cannot be imported"),
        ("raising.app", "ZeroDivisionError"),
        ("app", "dotted path"),
    ):
        with pytest.raises(LoadFromPathError, match=says):
            procrastinate.App.from_path(path)


def test_import_paths_are_imported_for_the_worker_and_for_strict_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_tasks.py").write_text("import builtins\nbuiltins.imported_once = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app_in_memory(import_paths=["their_tasks"]).perform_import_paths()
    assert "their_tasks" in sys.modules

    with pytest.raises(LoadFromPathError, match="'no_such_module'"):
        app_in_memory(import_paths=["no_such_module"]).perform_import_paths()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"worker_defaults": "abc"}, "worker_defaults .* 'abc'"),
        ({"import_paths": "my.tasks"}, "import_paths .* 'my.tasks'"),
        ({"import_paths": 5}, "import_paths .* 5"),
        ({"import_paths": ["my.tasks", 5]}, "import_paths .* 5"),
    ],
)
def test_a_bad_option_of_the_app_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(procrastinate.InvalidOption, match=says):
        app_in_memory(**options)


def test_what_is_no_task_no_blueprint_and_no_name_is_refused_and_shown() -> None:
    app, blueprint = app_in_memory(), procrastinate.Blueprint()
    anything: Any = 5
    calls: dict[str, Callable[[], Any]] = {
        "aliases": lambda: app.task(aliases=anything)(print),
        "task of an alias": lambda: app.add_task_alias(anything, "old"),
        "Blueprint": lambda: app.add_tasks_from(anything, namespace="ns"),
        "namespace": lambda: app.add_tasks_from(blueprint, namespace=anything),
        "allow_unknown": lambda: app.configure_task("task", allow_unknown=anything),
    }
    for says, call in calls.items():
        with pytest.raises(procrastinate.InvalidOption, match=f"{says}.* 5$"):
            call()


def test_a_default_under_its_old_name_gives_way_to_an_option() -> None:
    with pytest.warns(DeprecationWarning, match="fetch_job_polling_interval"):
        app = app_in_memory(worker_defaults={"timeout": 2.0})

    assert app._worker_options({}).fetch_job_polling_interval == 2.0
    options = app._worker_options({"fetch_job_polling_interval": 3.0})
    assert options.fetch_job_polling_interval == 3.0


#: What takes time to import, and is for others than those who define tasks and defer jobs.
FOR_OTHERS = {
    *("asyncio", "email", "hashlib", "importlib.metadata", "logging", "random", "urllib"),
    *("procrastinate.app.job_manager", "procrastinate.app.periodic"),
    *(
        "procrastinate.model.endings.outcome",
        "procrastinate.model.periodic",
        "procrastinate.model.queues",
    ),
    *("procrastinate.model.worker_options", "procrastinate.observing.events"),
    *("procrastinate.worker.context", "procrastinate.worker.worker"),
}
#: Dataclasses that are made by the import. Each takes about half a millisecond.
DATACLASSES = 26

COUNT = """
import dataclasses, sys, procrastinate
ours = [value for name, module in sys.modules.items() if name.partition(".")[0] == "procrastinate"
        for value in vars(module).values()]
print(len({each for each in ours if isinstance(each, type) and dataclasses.is_dataclass(each)}))
"""


def _printed_by(code: str) -> list[str]:
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.split()


def test_importing_procrastinate_loads_only_what_defers_jobs() -> None:
    """Programs that only defer jobs, and the command line, start without what they do not use."""
    imported = _printed_by(
        "import sys; before = {*sys.modules}; import procrastinate; print(*{*sys.modules} - before)"
    )
    assert "procrastinate.app.app" in imported
    assert FOR_OTHERS.intersection(imported) == set()


def test_importing_procrastinate_makes_few_dataclasses() -> None:
    """If this fails, import what few programs need when it is asked for (see `_LATER`)."""
    (made,) = _printed_by(COUNT)
    assert int(made) <= DATACLASSES


def test_every_export_is_there_when_it_is_asked_for() -> None:
    assert all(getattr(procrastinate, name) is not None for name in procrastinate.__all__)
    assert set(procrastinate.__all__) <= set(dir(procrastinate))


def test_worker_defaults_are_checked_at_once() -> None:
    with pytest.raises(procrastinate.InvalidOption, match="concurrency"):
        app_in_memory(worker_defaults={"concurrency": 0})


async def test_a_worker_runs_in_memory_too() -> None:
    app = app_in_memory(worker_defaults={"wait": False})
    done = []

    @app.task
    async def task(n: int) -> None:
        done.append(n)

    async with app.open_async():
        await task.batch_defer_async({"n": 1}, {"n": 2})
        await app.run_worker_async()

    assert done == [1, 2]


class _Jar:
    """What raises when anybody iterates over it, or asks whether it is empty."""

    def __iter__(self) -> Any:
        raise KeyError("iterated")

    def __bool__(self) -> bool:
        raise KeyError("empty?")


@pytest.mark.parametrize(
    ("option", "use"),
    {
        "import_paths": lambda jar: procrastinate.App(
            connector=InMemoryConnector(), import_paths=jar
        ),
        "retry_exceptions": lambda jar: procrastinate.RetryStrategy(retry_exceptions=jar),
        "id": lambda jar: procrastinate.App(connector=InMemoryConnector()).job_manager.list_jobs(
            id=jar
        ),
    }.items(),
)
def test_a_list_that_raises_when_it_is_read_is_refused_by_the_name_of_its_option(
    option: str, use: Callable[[Any], Any]
) -> None:
    with pytest.raises(errors.InvalidOption, match=f"^{option} cannot be .*raises KeyError"):
        use(_Jar())
