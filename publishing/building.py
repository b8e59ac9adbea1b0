"""Builds of packages: of all of them a second time, in other surroundings, and of changed ones."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from publishing.archives import sdist_of, wheel_of
from publishing.checks import builds
from publishing.environments import run
from publishing.packages import ROOT, Package, files_of, packages
from publishing.report import Said

LONG_AGO = 1_000_000_000  # seconds since 1970, of the files of the second build


def built_twice(dist: Path, folder: Path) -> Said:
    """Build all packages once more, elsewhere, and compare the files with those in dist/.

    The wheels in dist/ were built from sdists, and the second ones are built from the sources. So
    equal files also show that an sdist is complete.
    """
    complaints: list[str] = []
    found = packages()
    for package in found:
        again = folder / "dist"
        with umask(0o077):
            build(copied(package, folder), again, "--sdist", "--wheel")
        for file_of in (wheel_of, sdist_of):
            complaints += builds.complaints(file_of(package, dist), file_of(package, again))
    done = f"{2 * len(found)} files, built again in another folder with other times and rights"
    return Said("two builds", f"{done}.", complaints)


def build(sources: Path, dist: Path, *what: str) -> None:
    """Build the package in a folder. Raises `CommandFailed`."""
    tool = (sys.executable, "-m", "build", "--no-isolation", *what)
    run(*tool, "--outdir", dist, sources, SOURCE_DATE_EPOCH=last_commit())


def last_commit() -> str:
    """Return when the last commit was made, in seconds since 1970."""
    return run("git", "log", "-1", "--format=%ct").strip()


def copied(package: Package, folder: Path) -> Path:
    """Copy the files of a package, with other times and rights."""
    target = folder / package.folder
    for name in files_of(package):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package.path / name, path)
        path.chmod(0o600)
        os.utime(path, (LONG_AGO, LONG_AGO))
    # What an sdist takes from the repository: which files git leaves out.
    shutil.copyfile(ROOT / ".gitignore", target / ".gitignore")
    return target


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Create files with other rights."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
