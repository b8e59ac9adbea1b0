"""The packages of this repository, as their pyproject.toml describes them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Package:
    """One package: its folder below packages/, and what its pyproject.toml says of it."""

    folder: str
    name: str
    version: str
    requirements: tuple[Requirement, ...]
    extras: Mapping[str, tuple[Requirement, ...]]

    @property
    def module(self) -> str:
        """The name that its wheel and its main module have."""
        return self.name.replace("-", "_")

    @property
    def path(self) -> Path:
        return ROOT / "packages" / self.folder

    def every_requirement(self) -> list[Requirement]:
        """Return its requirements with those of all its extras."""
        return [*self.requirements, *(each for extra in self.extras.values() for each in extra)]


def packages() -> list[Package]:
    """Return all packages; each comes after those that it needs."""
    found = {each.name: each for each in map(_read, sorted(ROOT.glob("packages/*/pyproject.toml")))}
    return [found[name] for name in in_order(found.values())]


def named(name: str) -> Package:
    """Return one package. Raises `LookupError` with the names that there are."""
    found = {each.name: each for each in packages()}
    if name not in found:
        raise LookupError(f"there is no package {name!r}; there are {', '.join(found)}")
    return found[name]


def in_order(found: Iterable[Package]) -> list[str]:
    """Return the names of packages, each after those that it or one of its extras needs."""
    packages = {each.name: each for each in found}
    needs = {
        name: sorted(
            {canonicalize_name(one.name) for one in each.every_requirement()} & {*packages}
        )
        for name, each in packages.items()
    }
    return list(TopologicalSorter(needs).static_order())


def _read(path: Path) -> Package:
    project: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    return Package(
        folder=path.parent.name,
        name=project["name"],
        version=project.get("version") or version_in(version_file(path.parent).read_text("utf-8")),
        requirements=_requirements(project["dependencies"]),
        extras={name: _requirements(each) for name, each in extras.items()},
    )


def _requirements(lines: Iterable[str]) -> tuple[Requirement, ...]:
    return tuple(map(Requirement, lines))


_VERSION = re.compile(r'^(__version__|version) = "([^"]+)"$', re.MULTILINE)


def version_file(folder: Path) -> Path:
    """Return the module of a package that holds its version, if its pyproject.toml does not."""
    (path,) = folder.glob("src/*/__init__.py")
    return path


def version_in(text: str) -> str:
    """Return the version that a pyproject.toml or a module names."""
    found = _VERSION.search(text)
    if found is None:
        raise ValueError("there is no line that sets a version")
    return found[2]


def with_version(text: str, version: str) -> str:
    """Return the text of a pyproject.toml or of a module with another version in it."""
    return _VERSION.sub(lambda found: f'{found[1]} = "{version}"', text, count=1)


def files_of(package: Package) -> set[str]:
    """Return the files of a package, relative to its folder: those that git does not ignore.

    In a copy without git, all but those that Python makes.
    """
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
            cwd=package.path,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return _files_below(package.path)
    return {each for each in listed.stdout.split("\0") if each and (package.path / each).is_file()}


def _files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


def needed_by(package: Package, found: Iterable[Package]) -> list[Package]:
    """Return the packages of this repository that one needs, with its extras and theirs."""
    by_name = {each.name: each for each in found}
    seen: dict[str, Package] = {}
    waiting = [package]
    while waiting:
        for requirement in waiting.pop().every_requirement():
            name = canonicalize_name(requirement.name)
            if name in by_name and name not in seen and name != package.name:
                seen[name] = by_name[name]
                waiting.append(by_name[name])
    return [*seen.values()]
