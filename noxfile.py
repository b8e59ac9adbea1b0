"""Every check of this repository in one command, ``nox``, and the demo in ``nox -s demo``.

Rules

1. It runs on a fresh machine that has Python and nox: everything else is installed into the
   sessions' own environments, and the tests bring their own PostgreSQL.
2. What is tested is wheels. They are built once per run, each from its sdist (which proves that
   the sdist is complete), and installed in one command by path, so that no package of this
   repository is ever looked up on an index, where older releases live under the same name.
3. The tests run on every Python of `SUPPORTED` that is found. A missing one is reported and
   skipped; with ``CI`` set it is an error.
4. One Python runs everything, the primary one. The others leave out the tests marked slow, and
   those that would say the same on each (`tests/support/one_python.py`, with its rules). Coverage
   is measured by hand: it makes the tests take a third longer.
5. Connectors are an exception to that. Each runs whole on one Python, but for variants that would
   say the same twice (`connector_variants`), and a core of it on the others (`connector_core`).
   `matrix` runs all of them on all Pythons, before a release.
6. A session sees nothing of the caller's taste: no PYTHONUNBUFFERED, no locale, no terminal. What
   is green here is green under ``env -i``. The demo alone keeps the terminal, which it draws on.
7. Thousands of tests run beside each other. Up to three that fail run once more, alone; what passes
   then is named at the end (`tests/support/second_look.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.16"

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import chromium  # noqa: E402
from surroundings import not_inherited  # noqa: E402

DIST = ROOT / "dist"
SUPPORTED = ["3.11", "3.12", "3.13"]

#: The connectors that run a chaos campaign's workers; chaos/connectors.py has them too.
RUN_WORKERS = ("psycopg", "aiopg", "asyncpg", "sqlalchemy_async")
ON_AN_EVENT_LOOP = tuple(f"connector-{name.replace('_', '-')}" for name in RUN_WORKERS)

#: Folder below packages/ and the name of what it builds. Each comes after those it needs.
PACKAGES = {
    "core": "procrastinate",
    "connector-psycopg2": "procrastinate_psycopg2",
    "connector-aiopg": "procrastinate_aiopg",
    "connector-psycopg": "procrastinate_psycopg",
    "connector-asyncpg": "procrastinate_asyncpg",
    "connector-sqlalchemy": "procrastinate_sqlalchemy",
    "connector-sqlalchemy-async": "procrastinate_sqlalchemy_async",
    "connector-testkit": "procrastinate_connector_testkit",
    "embedded": "procrastinate_embedded",
    "opentelemetry": "procrastinate_opentelemetry",
    "dashboard": "procrastinate_dashboard",
    "django": "procrastinate_django",
    "prometheus": "procrastinate_prometheus",
}
EVERYTHING = tuple(PACKAGES)
EXAMPLES = ("django", "fastapi-asyncpg", "flask-sqlalchemy", "starlette-aiopg")
CONNECTORS = [each for each in PACKAGES if each.startswith("connector-")]
CONNECTORS.remove("connector-testkit")
#: What workers run with: any connector, and a server.
RUNNING_ALONE = tuple(each for each in PACKAGES if each != "connector-testkit")


# --- Which Pythons --------------------------------------------------------------------------------


def pyenv_folders() -> list[str]:
    """Return the folders of pyenv's interpreters, for each minor version its newest release.

    pyenv's shims answer only for versions that ``PYENV_VERSION`` selects, so nox has to be shown
    the interpreters themselves.
    """

    def release(folder: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())

    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    if not os.access(versions, os.R_OK | os.X_OK):  # none, or another user's
        return []
    found = [sorted(versions.glob(f"{minor}.*/bin"), key=release) for minor in SUPPORTED]
    return [str(folders[-1]) for folders in found if folders]


def is_found(python: str) -> bool:
    return python == RUNNING or shutil.which(f"python{python}") is not None


def tested_pythons() -> list[str]:
    """Return the supported Pythons, or nox's own where it is a newer one and the only one."""
    running = sys.version_info[:2]
    if any(is_found(python) for python in SUPPORTED):
        return SUPPORTED
    if running >= (3, 11):
        return [RUNNING]
    raise SystemExit(
        f"procrastinate needs Python {SUPPORTED[0]} or newer, and found none: nox runs on "
        f"{RUNNING}; none of {', '.join(SUPPORTED)} is on PATH or in pyenv"
    )


# All sessions go without them. The demo draws on the caller's terminal, and gets them back.
NOT_INHERITED = {name: os.environ.pop(name) for name in not_inherited(list(os.environ))}
# In front of PATH, where the shims are too and would be found first.
os.environ["PATH"] = os.pathsep.join([*pyenv_folders(), os.environ.get("PATH", os.defpath)])
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = tested_pythons()
PRIMARY = RUNNING if RUNNING in PYTHONS else next(filter(is_found, PYTHONS))
#: For sessions that run once; None is nox's own interpreter, which is certainly there.
ONCE = None if PRIMARY == RUNNING else PRIMARY

#: More processes than two cores have to do with, since tests also wait. Those that have nothing
#: left to do take from the others, lest the end be one process's.
IN_PARALLEL = ("-n", "3", "--dist", "worksteal")

nox.options.sessions = [
    *("lint", "types", "imports", "docs", "tests", "partitions", "packages", "chaos"),
]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = bool(os.environ.get("CI"))
nox.options.download_python = "never"
# pip trusts the certificates that the system trusts, a company's own included; uv must be told.
# The second name is that of older releases.
os.environ.setdefault("UV_SYSTEM_CERTS", "true")
os.environ.setdefault("UV_NATIVE_TLS", "true")


# --- Installing -----------------------------------------------------------------------------------


def tools(group: str) -> list[str]:
    """Return the requirements of a dependency group of the top pyproject.toml."""
    pyproject = nox.project.load_toml(ROOT / "pyproject.toml")
    return list(nox.project.dependency_groups(pyproject, group))


def wheel(package: str) -> str:
    """Return the path of the wheel that this run has built."""
    (path,) = DIST.glob(f"{PACKAGES[package]}-[0-9]*.whl")
    return str(path)


def install(session: nox.Session, *packages: str, group: str | None = None) -> None:
    """Install wheels of this repository, all in one command, and the tools of a group."""
    wheels = [wheel(package) for package in packages]
    session.install(*wheels, *(tools(group) if group else []))
    # An environment that is reused may hold an earlier build of the same version.
    session.install("--force-reinstall", "--no-deps", *wheels, silent=True)


# --- Sessions -------------------------------------------------------------------------------------


@nox.session(python=ONCE)
def build(session: nox.Session) -> None:
    """Build every package's sdist, and its wheel from that sdist, into dist/.

    All times in them are that of the last commit, so that its builds are equal.
    """
    session.install(*tools("build"))
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        session.run(
            *("python", "-m", "build", "--no-isolation", "--outdir", str(DIST)),
            str(ROOT / "packages" / package),
            env=time_of_last_commit(),
            silent=True,
        )
    session.log("built %s", ", ".join(sorted(path.name for path in DIST.iterdir())))


def time_of_last_commit() -> dict[str, str]:
    """Return it for builds; nothing without git, where hatchling has a time of its own."""
    command = ("git", "-C", str(ROOT), "log", "-1", "--format=%ct")
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"SOURCE_DATE_EPOCH": said.stdout.strip()}


@nox.session(python=ONCE)
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*tools("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(name="format", python=ONCE)
def format_(session: nox.Session) -> None:
    """Correct what lint complains of, where it can be corrected."""
    session.install(*tools("lint"))
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")


@nox.session(python=ONCE, requires=["build"])
def types(session: nox.Session) -> None:
    """Check the sources strictly, and what a user's editor sees of the installed wheels."""
    install(session, *EVERYTHING, group="types")
    sources = [f"packages/{package}/src" for package in PACKAGES]
    session.run("mypy", "noxfile.py", "benchmarks", "chaos", "publishing", *sources)
    session.run(
        "mypy",
        *(
            f"examples/{each}"
            for each in sorted(each.name for each in (ROOT / "examples").iterdir())
        ),
    )
    session.run("mypy", "--config-file", "tests/typing/mypy.ini", "tests/typing")
    session.run("pyright", "--project", "tests/typing", *session.posargs)


@nox.session(python=ONCE)
def imports(session: nox.Session) -> None:
    """Check who imports whom against the contracts in pyproject.toml."""
    session.install(*tools("imports"))
    sources = os.pathsep.join(str(ROOT / "packages" / package / "src") for package in PACKAGES)
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})


@nox.session(python=ONCE, requires=["build"])
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or an undocumented name is an error."""
    install(session, *EVERYTHING, group="docs")
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    cache = session.create_tmp()
    session.run(
        *("sphinx-build", "--quiet", "--fresh-env", "--fail-on-warning", "--keep-going"),
        *("--conf-dir", "docs", "--doctree-dir", cache, ".", "site"),
    )
    session.log("built %s", ROOT / "site" / "index.html")


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """Run the tests against the installed wheels; arguments are pytest's."""
    # They start many processes, and where nothing may write bytecode each would compile it all.
    session.env["UV_COMPILE_BYTECODE"] = "1"
    install(session, *EVERYTHING, group="test")
    if session.python == PRIMARY:
        session.install(*tools("bench"))
    session.env["PROCRASTINATE_TEST_WHOLE"] = ",".join(run_whole_on(str(session.python)))
    session.env["PROCRASTINATE_TEST_PYTHON"] = "primary" if session.python == PRIMARY else "another"
    if session.posargs:
        del session.env["PROCRASTINATE_TEST_WHOLE"], session.env["PROCRASTINATE_TEST_PYTHON"]
        session.run("pytest", *session.posargs)
    elif session.python == PRIMARY:
        with_a_second_look(session, *PYTEST, *IN_PARALLEL)
    else:
        with_a_second_look(session, *PYTEST, *IN_PARALLEL, "-m", "not slow")
        if session.python == PYTHONS[-1]:
            session.env["PROCRASTINATE_TEST_WHOLE"] = ""
            on_uvloop(session, "-m", "not slow")


def on_uvloop(session: nox.Session, *arguments: str) -> None:
    """Run the test kit on uvloop, with the connectors that run on an event loop."""
    suites = suites_of(*ON_AN_EVENT_LOOP)
    env = {"PROCRASTINATE_TEST_LOOP": "uvloop"}
    with_a_second_look(session, *PYTEST, *IN_PARALLEL, *arguments, *suites, env=env)


PYTEST = ("python", "-m", "pytest")


def with_a_second_look(
    session: nox.Session, *command: str, env: dict[str, str] | None = None
) -> None:
    """Run many tests beside each other, and up to three that failed once more, alone (rule 7)."""
    session.run("python", "tests/support/second_look.py", *command, env=env)


def run_whole_on(python: str) -> list[str]:
    """Return the connectors whose tests all run on a Python: each connector has one."""
    found = [each for each in PYTHONS if is_found(each)]
    whole = CONNECTORS[found.index(python) :: len(found)] if python in found else []
    return [*whole, "connector-testkit"] if python == PRIMARY else whole  # its example is one too


@nox.session(python=ONCE, requires=["build"])
def coverage(session: nox.Session) -> None:
    """Measure what the tests run, with the processes that they start; arguments are pytest's.

    It runs by hand, before a release. Slow tests are left out: what they run, the others run too.
    """
    install(session, *EVERYTHING, group="test")
    session.install(*tools("bench"))
    # Not the session's temporary folder: its path is too long for PostgreSQL's socket.
    folder = Path(session.virtualenv.location).resolve() / "measured"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    data = folder / "coverage"
    env = {"COVERAGE_FILE": str(data), "COVERAGE_RCFILE": str(ROOT / "pyproject.toml")}
    measured = ("coverage", "run", "-m", "pytest", *IN_PARALLEL)
    with_a_second_look(session, *measured, "-m", "not slow", *session.posargs, env=env)
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "report", env=env)


#: Tests that run on databases with many partitions, at least. It rises with new ones.
ON_MANY_PARTITIONS = 480


@nox.session(python=ONCE, requires=["build"])
def partitions(session: nox.Session) -> None:
    """Run core's tests, and a connector's, on databases with 64 partitions; arguments are pytest's.

    They need no cluster. A test that makes no sense there has a mark that says why.
    """
    install(session, *EVERYTHING, group="test")
    env = {"PROCRASTINATE_TEST_PARTITIONS": "64"}
    if not session.posargs:
        env["PROCRASTINATE_TEST_PARTITIONS_AT_LEAST"] = str(ON_MANY_PARTITIONS)
    # Real workers that die and stall do so with one partition; here by hand, since they take long.
    tests = ["packages/core/tests", "--ignore=packages/core/tests/faults"]
    arguments = session.posargs or [*IN_PARALLEL, "-m", "not slow", *tests]
    with_a_second_look(session, *PYTEST, *arguments, env=env)
    if not session.posargs:
        suites = suites_of("connector-psycopg")
        env = {"PROCRASTINATE_TEST_PARTITIONS": "64"}
        with_a_second_look(session, *PYTEST, *IN_PARALLEL, *suites, env=env)


def suites_of(*connectors: str) -> list[str]:
    """Return the paths of the test kit's suites of some connectors."""
    return [f"packages/{each}/tests/test_conformance.py" for each in connectors]


@nox.session(python=ONCE, requires=["build"])
def citus(session: nox.Session) -> None:
    """Run tests on the Citus cluster of PROCRASTINATE_CITUS_DSN; arguments are pytest's.

    It runs by hand, before a release: a cluster is nothing that a machine has.
    """
    if not os.environ.get("PROCRASTINATE_CITUS_DSN"):
        session.error(
            "set PROCRASTINATE_CITUS_DSN to a database on a coordinator, which has the extension"
            " and at least one node, and to a role that may create schemas there"
        )
    install(session, *EVERYTHING, group="test")
    session.run("pytest", *(session.posargs or ["tests/citus"]))
    if not session.posargs:
        env = {"PROCRASTINATE_TEST_CITUS_DSN": os.environ["PROCRASTINATE_CITUS_DSN"]}
        session.run("pytest", *IN_PARALLEL, "-m", "not slow", "packages/core/tests", env=env)


@nox.session(python=PYTHONS, requires=["build"])
def packages(session: nox.Session) -> None:
    """Install each wheel into an empty environment and use it there; arguments are pytest's."""
    install(session, "core", "embedded", group="packages")
    arguments = session.posargs or ["-n", "2", "--dist", "loadscope"]
    session.run("pytest", "tests/wheels", *arguments, env={"PROCRASTINATE_DIST": str(DIST)})


@nox.session(python=ONCE, requires=["build"])
def publish(session: nox.Session) -> None:
    """Check all that is published, from metadata to other versions of drivers; uploads nothing.

    It runs by hand, before a release, and takes about ten minutes. Arguments are those of
    ``python -m publishing check``.
    """
    session.install(*tools("publish"))
    session.run("python", "-m", "publishing", "check", *session.posargs)


@nox.session(name="old-releases", python=ONCE, requires=["build"])
def old_releases(session: nox.Session) -> None:
    """Import databases that were made by old releases, which come from the index.

    It runs by hand, before a release: nothing of them changes any more.
    """
    install(session, *EVERYTHING, group="packages")
    session.run("pytest", *(session.posargs or [*IN_PARALLEL, "tests/old_releases"]))


@nox.session(python=ONCE, requires=["build"])
def pgbouncer(session: nox.Session) -> None:
    """Run every connector through Debian's PgBouncer, in both modes; arguments are pytest's.

    It runs by hand, before a release: a PgBouncer is nothing that a machine has.
    """
    install(session, *EVERYTHING, group="test")
    session.run("pytest", *(session.posargs or [*IN_PARALLEL, "tests/pgbouncer"]))


@nox.session(python=PYTHONS, requires=["build"])
def django(session: nox.Session) -> None:
    """Run all that is about Django, also its own tests of its tasks, with our backend.

    It runs by hand, before a release. Each Python has another Django (the group ``test``), and
    that of Python 3.11 has no tasks of its own. Django's tests come from the sdist of that Django.
    """
    install(session, *EVERYTHING, group="test")
    pages = ("tests/test_snippets.py", "tests/test_examples.py")
    session.run("pytest", *IN_PARALLEL, "-k", "django or orm", "packages/django/tests", *pages)
    if session.python == "3.11":
        return
    session.install("pip", "setuptools", "wheel")
    version = str(
        session.run("python", "-c", "import django; print(django.__version__)", silent=True)
    )
    folder = Path(session.create_tmp())
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    session.run(
        *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"),
        *("--no-build-isolation", f"--dest={folder}", f"django=={version.strip()}"),
    )
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder, filter="data")
    (sources,) = folder.glob("[dD]jango-*/")
    session.run("python", "packages/django/tests/own/run.py", str(sources))


@nox.session(python=ONCE, requires=["build"])
def browser(session: nox.Session) -> None:
    """Use the dashboard in Chromium, on every mount; arguments are pytest's.

    It runs by hand and in `.ci/run`: a browser is nothing that every machine has.
    """
    if chromium.program() is None:
        session.error(
            "there is no Chromium to drive: run apt-get install chromium, or name one in"
            f" {chromium.NAMED_BY}"
        )
    install(session, *EVERYTHING, group="browser")
    arguments = session.posargs or ["-n", "2", "--dist", "loadscope"]
    with_a_second_look(session, *PYTEST, *arguments, "tests/browser")


@nox.session(python=ONCE, requires=["build"])
def demo(session: nox.Session) -> None:
    """Watch real jobs go through a real PostgreSQL; arguments are those of procrastinate demo."""
    install(session, "core", "connector-psycopg2", "connector-aiopg", "embedded", "dashboard")
    session.install("uvicorn>=0.35")  # for --dashboard
    session.run("procrastinate", "demo", *session.posargs, env=NOT_INHERITED)


@nox.session(python=ONCE, requires=["build"])
def bench(session: nox.Session) -> None:
    """Measure the installed wheels beside plain SQL, or other queues; benchmarks/README.md."""
    install(session, *RUNNING_ALONE, group="bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=ONCE, requires=["build"])
def chaos(session: nox.Session) -> None:
    """Let faults strike real workers, and check the books; arguments are those of the campaign."""
    install(session, *RUNNING_ALONE, group="libpq")
    session.run("python", "-m", "chaos", *session.posargs)


@nox.session(name="chaos-debian", python=ONCE, requires=["build"])
def chaos_debian(session: nox.Session) -> None:
    """The same with PgBouncer, Patroni, a full disk and a wrong clock: as root, on Debian."""
    install(session, *RUNNING_ALONE, group="libpq")
    for stage in ("--debian", "--patroni"):
        session.run("python", "-m", "chaos", stage, *session.posargs)


@nox.session(python=PYTHONS, requires=["build"])
def matrix(session: nox.Session) -> None:
    """Run all tests of all connectors, and chaos with each that runs workers.

    One Python also writes the tables of docs/connectors.md, for which it needs PgBouncer.
    """
    install(session, *EVERYTHING, group="test")
    said = [f"Python {session.python}"]
    for connector in CONNECTORS:
        with_a_second_look(session, *PYTEST, *IN_PARALLEL, f"packages/{connector}/tests")
        said.append(f"{connector}: all tests")
    example = "packages/connector-testkit/tests/test_pg8000.py"
    with_a_second_look(session, *PYTEST, *IN_PARALLEL, example)
    said.append("the documentation's example: the test kit")
    on_uvloop(session)
    said.append("uvloop: the test kit")
    for name in RUN_WORKERS:
        session.run("python", "-m", "chaos", "--connector", name, *session.posargs)
        said.append(f"{name}: bounded chaos")
    session.log(" | ".join(said))
    if session.python == PRIMARY:
        others = suites_of(*(each for each in CONNECTORS if each != "connector-psycopg"))
        env = {"PROCRASTINATE_TEST_PARTITIONS": "64"}
        session.run("pytest", *IN_PARALLEL, *others, env=env)
        tests = session.run("python", "tests/support/abilities.py", silent=True)
        session.run(
            *("pytest", *IN_PARALLEL, "-p", "abilities", "--write-abilities"),
            *str(tests).splitlines(),
        )
