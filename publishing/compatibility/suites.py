"""Which tests say that a package works with what it stands on."""

from __future__ import annotations

from dataclasses import dataclass

#: The Pythons on which the oldest and the newest versions are tested: what is old has no wheels
#: for a new Python, and what is new leaves out an old one.
OLDEST_PYTHON = "3.11"
NEWEST_PYTHON = "3.13"


@dataclass(frozen=True)
class Suite:
    """The tests of a package."""

    package: str
    #: Arguments of pytest. Of a connector's test kit its core runs (tests/support).
    tests: tuple[str, ...]
    #: The tests that also run with other versions of core. All of them, if it is empty.
    smoke: tuple[str, ...] = ()
    #: Requirements that the tests add, which must fit to those of the package.
    beside: tuple[str, ...] = ()
    #: What is tested beside the oldest and the newest versions: a Python, and a requirement.
    between: tuple[tuple[str, str], ...] = ()


def _kit(folder: str) -> tuple[str, ...]:
    return (f"packages/{folder}/tests/test_conformance.py",)


#: What core asks for is about its commands, and about when periodic tasks are due.
_COMMANDS = tuple(
    f"packages/core/tests/cli/test_{name}.py" for name in ("completion", "jobs", "schema")
)
_KIT_SMOKE = ("-k", "test_defer or test_claims or test_finish")
_PSYCOPG = ("psycopg[binary]>=3.2.1",)

SUITES = (
    Suite(
        "procrastinate",
        (*_COMMANDS, "packages/core/tests/model/test_periodic.py"),
        smoke=("packages/core/tests/model",),
    ),
    Suite("procrastinate-psycopg2", _kit("connector-psycopg2"), _KIT_SMOKE),
    Suite("procrastinate-aiopg", _kit("connector-aiopg"), _KIT_SMOKE),
    Suite("procrastinate-psycopg", _kit("connector-psycopg"), _KIT_SMOKE),
    Suite("procrastinate-asyncpg", _kit("connector-asyncpg"), _KIT_SMOKE),
    Suite("procrastinate-sqlalchemy", _kit("connector-sqlalchemy"), _KIT_SMOKE, _PSYCOPG),
    Suite(
        "procrastinate-sqlalchemy-async", _kit("connector-sqlalchemy-async"), _KIT_SMOKE, _PSYCOPG
    ),
    Suite(
        "procrastinate-django",
        ("packages/django/tests",),
        ("packages/django/tests/test_backend.py",),
        between=(("3.12", "django==6.0"), ("3.13", "django==6.1")),
    ),
    Suite("procrastinate-connector-testkit", ("packages/connector-testkit/tests/test_tiny.py",)),
    Suite(
        "procrastinate-embedded",
        ("packages/embedded/tests",),
        smoke=("packages/embedded/tests/test_server.py",),
    ),
    Suite(
        "procrastinate-opentelemetry",
        ("packages/opentelemetry/tests",),
        beside=("opentelemetry-sdk>=1.30",),
    ),
    Suite(
        "procrastinate-dashboard",
        ("packages/dashboard/tests",),
        smoke=("packages/dashboard/tests/test_pages.py",),
        beside=("fastapi>=0.121",),
    ),
    Suite("procrastinate-prometheus", ("packages/prometheus/tests",)),
)


def pythons() -> list[str]:
    """Return the Pythons that the suites need."""
    between = (python for suite in SUITES for python, _ in suite.between)
    return sorted({OLDEST_PYTHON, NEWEST_PYTHON, *between})
