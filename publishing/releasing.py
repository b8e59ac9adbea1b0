"""The two edits of a release: a new version, and the day on which it is published."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from publishing.checks import changelogs
from publishing.packages import Package, version_in, with_version

DAY = "%Y-%m-%d"


class NoRelease(Exception):
    """What was asked for makes no sense; says why."""


def bump(package: Package, version: str) -> None:
    """Give a package a version, and its changelog a section for it. Raises `NoRelease`."""
    check_version(package, version)
    for path in _files_with_version(package):
        path.write_text(with_version(path.read_text("utf-8"), version), "utf-8")
    changelog = package.path / "CHANGELOG.md"
    changelog.write_text(changelogs.opened(changelog.read_text("utf-8"), version), "utf-8")


def check_version(package: Package, version: str) -> None:
    """Raise `NoRelease` unless a version is written as indexes do, and later than the package's."""
    try:
        is_normal = str(Version(version)) == version and len(Version(version).release) == 3
    except InvalidVersion:
        is_normal = False
    if not is_normal:
        raise NoRelease(f"{version!r} is no version: write it as 4.1.0")
    if Version(version) <= Version(package.version):
        raise NoRelease(f"{package.name} has version {package.version}, and {version} is not later")


def date(package: Package, day: str) -> None:
    """Write the day into the changelog's section of the package's version. Raises `NoRelease`."""
    check_day(day)
    changelog = package.path / "CHANGELOG.md"
    try:
        text = changelogs.dated(changelog.read_text("utf-8"), package.version, day)
    except ValueError as exc:
        raise NoRelease(f"{changelog.name} of {package.name}: {exc}") from exc
    changelog.write_text(text, "utf-8")


def check_day(day: str) -> None:
    """Raise `NoRelease` unless a day exists and is written as in 2026-01-31."""
    try:
        is_day = f"{datetime.strptime(day, DAY):{DAY}}" == day
    except ValueError:
        is_day = False
    if not is_day:
        raise NoRelease(f"{day!r} is no day: write it as 2026-01-31")


def _files_with_version(package: Package) -> list[Path]:
    """Return the files that name the version: pyproject.toml, or a module, or both."""
    candidates = [package.path / "pyproject.toml", *package.path.glob("src/*/__init__.py")]
    return [path for path in candidates if _names(path, package.version)]


def _names(path: Path, version: str) -> bool:
    try:
        return version_in(path.read_text("utf-8")) == version
    except ValueError:
        return False
