"""Each package with the oldest and the newest versions of what it asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from publishing.archives import wheel_of
from publishing.compatibility.running import Outcome, tests
from publishing.compatibility.suites import NEWEST_PYTHON, OLDEST_PYTHON, Suite
from publishing.environments import Environment
from publishing.packages import Package, packages


@dataclass(frozen=True)
class Tried:
    """The tests of a package with some versions of what it asks for."""

    package: str
    kind: str  # oldest, newest or between
    python: str
    versions: str
    outcome: Outcome


def asked(package: Package, found: Collection[Package]) -> list[Requirement]:
    """Return what a package asks for, with its extras, beside others of this repository.

    What it asks for on other systems only is left out.
    """
    ours = {each.name for each in found}
    return [
        each
        for each in package.every_requirement()
        if canonicalize_name(each.name) not in ours
        and (each.marker is None or each.marker.evaluate({"extra": ""}))
    ]


def tried(suite: Suite, package: Package, dist: Path, folder: Path) -> Iterator[Tried]:
    """Run a suite with the oldest versions, with those between, and with the newest ones."""
    wanted = [*map(str, asked(package, packages())), *suite.beside]
    for kind, python, lines in (
        ("oldest", OLDEST_PYTHON, wanted),
        *(("between", python, [*wanted, pin]) for python, pin in suite.between),
        ("newest", NEWEST_PYTHON, wanted),
    ):
        place = folder / f"{package.name}-{kind}-{python}"
        environment = Environment(place, python)
        environment.install(lines, lowest=kind != "newest")
        install_all(environment, dist, pins(lines, environment.versions()))
        outcome = tests(environment, suite.tests)
        shown = versions_of(asked(package, packages()), environment.versions())
        yield Tried(package.name, kind, python, shown, outcome)


def pins(lines: Collection[str], versions: Mapping[str, str]) -> list[str]:
    """Return requirements of exactly the versions that are installed, with the same extras."""
    found: dict[str, set[str]] = {}
    for each in map(Requirement, lines):
        found.setdefault(canonicalize_name(each.name), set()).update(each.extras)
    return [
        f"{name}{'[' + ','.join(sorted(extras)) + ']' if extras else ''}=={versions[name]}"
        for name, extras in found.items()
    ]


def install_all(environment: Environment, dist: Path, overrides: Collection[str] = ()) -> None:
    """Install the wheels of all packages, and what their tests need.

    ``overrides`` are versions that no requirement can change, those of the tools included.
    """
    wheels = [wheel_of(each, dist) for each in packages()]
    environment.install([*wheels, *overrides], overrides=overrides, group="test")


def versions_of(requirements: Collection[Requirement], versions: dict[str, str]) -> str:
    """Return which versions of requirements are installed: ``asyncpg 0.29.0, psycopg 3.2.1``."""
    names = dict.fromkeys(canonicalize_name(each.name) for each in requirements)
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
