"""What the documentation promises to run exactly as it stands does, given a host.

The sources below are executed word for word. Only ``"somehost"`` is replaced, by the host of the
test's server; user, port and database come from libpq's environment, as they may anywhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
import sqlalchemy
from sqlalchemy import event

import procrastinate
from procrastinate import App, Status
from procrastinate.cli.exit_codes import ExitCode
from procrastinate.cli.worker import FLAGS
from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector
from procrastinate.model.worker_options import WorkerOptions

SYNCHRONOUS = """\
app = procrastinate.App(connector=procrastinate.Psycopg2Connector(host="somehost"))
"""

CHOSEN_AT_START_UP = """\
if sys.argv[0:2] == ["procrastinate", "worker"]:      # an example of a condition
    connector_class = procrastinate.AiopgConnector
else:
    connector_class = procrastinate.Psycopg2Connector
app = procrastinate.App(connector=connector_class(host="somehost"))
"""

ONE_ENGINE = """\
engine = sqlalchemy.create_engine("postgresql+psycopg2://", echo=True)
app = App(connector=SQLAlchemyPsycopg2Connector())     # from procrastinate.contrib.sqlalchemy
app.open(engine)
"""

TWO_APPS = """\
app = procrastinate.App(connector=procrastinate.AiopgConnector(host="somehost"))
sync_app = app.with_connector(connector=procrastinate.Psycopg2Connector(host="somehost"))
"""

THE_OTHER_WAY_ROUND = """\
sync_app = procrastinate.App(connector=procrastinate.Psycopg2Connector(host="somehost"))
app = sync_app.with_connector(connector=procrastinate.AiopgConnector(host="somehost"))
"""

#: Tells our connections from the test's own.
APPLICATION = "documented"


@pytest.fixture
def host(procrastinate_dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's host, with all else that leads to the test's database in the environment."""
    given = psycopg2.extensions.parse_dsn(procrastinate_dsn)
    for name in ("hostaddr", "port", "user", "password", "dbname", "sslmode", "options"):
        variable = "PGDATABASE" if name == "dbname" else f"PG{name.upper()}"
        if name in given:
            monkeypatch.setenv(variable, given[name])
        else:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PGHOST", given["host"])
    monkeypatch.setenv("PGAPPNAME", APPLICATION)
    return given["host"]


@pytest.fixture
def execute(host: str) -> Callable[..., dict[str, Any]]:
    """Execute documented code, after other names where some are given; return all names."""

    def run(source: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
        if names is None:
            names = {
                "App": App,
                "SQLAlchemyPsycopg2Connector": SQLAlchemyPsycopg2Connector,
                "procrastinate": procrastinate,
                "sqlalchemy": sqlalchemy,
            }
        exec(source.replace('"somehost"', repr(host)), names)
        return names

    return run


@pytest.fixture
def query(procrastinate_dsn: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    connection = psycopg2.connect(procrastinate_dsn, application_name="observer")
    connection.autocommit = True

    def run(sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    yield run
    connection.close()


CONNECTIONS = f"""
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = '{APPLICATION}'
"""


# --- Classic synchronous I/O ----------------------------------------------------------------------


def test_with_the_synchronous_connector_everything_but_the_worker_is_available(
    execute: Callable[..., dict[str, Any]],
):
    app: App = execute(SYNCHRONOUS)["app"]

    @app.task(name="add")
    def add(a: int) -> None: ...

    with app.open():
        app.schema_manager.apply_schema()
        job_id = add.defer(a=1)
        assert add.batch_defer({"a": 2}, {"a": 3}) == [job_id + 1, job_id + 2]
        assert asyncio.run(add.defer_async(a=4)) == job_id + 3
        jobs = app.job_manager
        assert jobs.cancel_job_by_id(job_id)
        assert jobs.get_job_status(job_id) is Status.CANCELLED
        assert jobs.retry_job_by_id(job_id)
        assert asyncio.run(jobs.get_job_async(job_id)).task_kwargs == {"a": 1}
        assert [(each.name, each.todo) for each in jobs.list_queues()] == [("default", 4)]
        assert app.check_connection()
        with pytest.raises(
            procrastinate.SyncConnectorConfigurationError, match="pip install procrastinate-aiopg"
        ):
            app.run_worker(wait=False)


# --- Either kind, chosen at start-up --------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path, host: str) -> Callable[..., str]:
    """Run a program in a folder with the documented choice in ``shop.py``; return its stdout."""
    body = CHOSEN_AT_START_UP.replace('"somehost"', repr(host))
    tmp_path.joinpath("shop.py").write_text(
        f"import sys\n\nimport procrastinate\n\n{body}\n"
        "@app.task\n"
        "def which():\n"
        "    print(connector_class.__name__, *sorted({'aiopg'}.intersection(sys.modules)))\n\n"
        "if 'defer' in sys.argv:\n"
        "    which()\n"
    )

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


SCRIPT = str(Path(sys.executable).with_name("procrastinate"))


@pytest.mark.parametrize(
    "worker",
    [
        [SCRIPT, "worker", "--app=shop.app", "--one-shot"],
        [SCRIPT, "--app=shop.app", "worker", "--one-shot"],
        [SCRIPT, "--app=shop.app", "worker", "--one-shot", "--processes=2"],
        [sys.executable, "-m", "procrastinate", "-a", "shop.app", "worker", "--one-shot"],
    ],
    ids=["option last", "option first", "processes", "module"],
)
def test_the_connector_follows_the_command(program: Callable[..., str], worker: list[str]):
    """The same module is synchronous where it defers, without aiopg, and else asynchronous."""
    program(SCRIPT, "--app=shop.app", "schema", "--apply")
    deferred = program(SCRIPT, "--app=shop.app", "defer", "shop.which", "--no-print-ids")
    assert deferred == "Psycopg2Connector\n"
    assert program(*worker) == "AiopgConnector aiopg\n"


# --- One engine and one pool ----------------------------------------------------------------------


@pytest.fixture
def quiet_echo() -> Iterator[None]:
    """Take away the handler that ``echo=True`` puts on SQLAlchemy's logger."""
    logger = logging.getLogger("sqlalchemy")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_the_applications_engine_is_used_and_left_open(
    execute: Callable[..., dict[str, Any]],
    query: Callable[[str], list[tuple[Any, ...]]],
    caplog: pytest.LogCaptureFixture,
    quiet_echo: None,
):
    names = execute(ONE_ENGINE)
    app: App = names["app"]
    engine: sqlalchemy.Engine = names["engine"]
    seen: list[str] = []
    for name in ("connect", "checkout", "checkin", "close"):
        event.listen(engine, name, lambda *_, name=name: seen.append(name))

    @app.task(name="add")
    def add(a: int) -> None: ...

    try:
        app.schema_manager.apply_schema()
        seen.clear()
        caplog.clear()
        add.defer(a=1)
        assert seen == ["checkout", "checkin"]
        echoed = [
            each.getMessage() for each in caplog.records if each.name.startswith("sqlalchemy")
        ]
        assert len([text for text in echoed if "procrastinate_defer_job" in text]) == 1
        with engine.connect() as connection:
            own = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))
        assert query(CONNECTIONS) == [(own,)]
        app.close()
        assert query(CONNECTIONS) == [(own,)]
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()")) == own
        assert "close" not in seen
        with pytest.raises(procrastinate.AppNotOpen):
            add.defer(a=2)
    finally:
        engine.dispose()


# --- Two apps on the same tasks -------------------------------------------------------------------


def register(app: App) -> Any:
    @app.task(name="known")
    async def known(a: int) -> None: ...

    return known


WAYS: list[Callable[[App, Any], Any]] = [
    lambda app, task: app.configure_task("known", allow_unknown=False),
    lambda app, task: app.configure_task(task),
    lambda app, task: app.tasks["known"],
]


@pytest.mark.parametrize(
    "source", [TWO_APPS, THE_OTHER_WAY_ROUND], ids=["async first", "sync first"]
)
@pytest.mark.parametrize("registered", ["before", "on the first", "on the second"])
def test_a_task_is_known_to_both_apps_and_deferred_through_each_ones_connector(
    execute: Callable[..., dict[str, Any]],
    query: Callable[[str], list[tuple[Any, ...]]],
    source: str,
    registered: str,
):
    """Only one of the apps is open at a time, so that no other connector can have been used."""
    first, second = source.splitlines(keepends=True)
    names = execute(first)
    if registered == "before":
        task = register(names[first.split()[0]])
    execute(second, names)
    if registered == "on the first":
        task = register(names[first.split()[0]])
    if registered == "on the second":
        task = register(names[second.split()[0]])
    with names["sync_app"].open():
        names["sync_app"].schema_manager.apply_schema()

    expected = 0
    for name in ("app", "sync_app"):
        with names[name].open():
            for way in WAYS:
                expected += 1
                way(names[name], task).defer(a=expected)
    with task.owner.open():
        task.defer(a=expected + 1)
    names["app"].run_worker(wait=False, install_signal_handlers=False)

    done = query("SELECT (args->>'a')::int, status::text FROM procrastinate_jobs ORDER BY id")
    assert done == [(each, "succeeded") for each in range(1, expected + 2)]


@pytest.mark.parametrize("closed, opened", [("app", "sync_app"), ("sync_app", "app")])
def test_an_app_that_is_closed_does_not_defer_through_the_other_one(
    execute: Callable[..., dict[str, Any]], closed: str, opened: str
):
    names = execute(TWO_APPS)
    task = register(names["app"])
    with names[opened].open():
        for way in WAYS:
            with pytest.raises(procrastinate.AppNotOpen):
                way(names[closed], task).defer(a=1)


# --- The worker's options -------------------------------------------------------------------------


def test_the_page_about_workers_lists_every_option_with_its_flags_and_default():
    page = Path(__file__).parents[1] / "docs" / "howto" / "worker.md"
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        for line in page.read_text("utf-8").splitlines()
        if re.match(r"\| `[a-z_]+` \|", line)
    ]
    flags = {flag.field: ", ".join(flag.names) for flag in FLAGS}
    assert {name: (flag, default) for name, flag, default, _ in rows} == {
        option.name: (flags.get(option.name, ""), SAID.get(option.name, str(option.default)))
        for option in dataclasses.fields(WorkerOptions)
    }


@pytest.mark.parametrize("page", ["howto/command-line.md", "errors.md"])
def test_the_pages_about_the_command_list_every_exit_code(page: str):
    """The table under "Exit codes"; one row may be about several codes."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    table = re.search(r"^\| code \|.*?(?=\n\n|\Z)", text, re.M | re.S)
    assert table is not None
    codes = re.findall(r"^\| ([\d, ]+) \|", table[0], re.M)
    assert [int(code) for row in codes for code in row.split(",")] == sorted(ExitCode)


#: What None means.
SAID = {
    "queues": "all",
    "name": "host and process id",
    "shutdown_graceful_timeout": "for ever",
    "additional_context": "none",
    "middleware": "none",
}


# --- Pages ----------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "packages/*/*.md", "examples/*/*.md")
PAGES = [page for pattern in PATTERNS for page in sorted(ROOT.glob(pattern))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    broken = []
    for target, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text("utf-8")
    ):
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def test_the_home_page_leads_to_every_page():
    home = ROOT / "docs" / "index.md"
    links = re.findall(r"\]\(([^)#:]+)\)", home.read_text("utf-8"))
    reached = {(home.parent / link).resolve() for link in links}
    missing = {page for page in PAGES if page.name != "CHANGELOG.md"} - reached - {home}
    assert sorted(str(page.relative_to(ROOT)) for page in missing) == []


def test_the_guarantees_name_tests_that_exist():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text("utf-8")))
    sources = [*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("packages/*/src/**/*.py")]
    defined = {
        name
        for source in sources
        for name in re.findall(r"def (test_\w+)", source.read_text("utf-8"))
    }
    assert len(named) > 20
    assert sorted(named - defined) == []


def test_the_architecture_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    source = ROOT / "packages" / "core" / "src" / "procrastinate"
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|sql))`", text))
    assert len(named) > 20
    # In the sentences about a folder, its files have their names alone.
    alone = {path.name for path in source.rglob("*.*")}
    assert sorted(each for each in named - alone if not (source / each).exists()) == []
