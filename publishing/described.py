"""The checks that read the repository and the files in dist/, and run nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from publishing.archives import Archive, read, sdist_of, wheel_of
from publishing.checks import changelogs, contents, metadata, ranges, readmes
from publishing.packages import Package, files_of, packages
from publishing.report import Said


def described(dist: Path) -> Said:
    """Check metadata, links, contents, changelogs and ranges of all packages."""
    found = packages()
    complaints = [
        *(complaint for package in found for complaint in complaints_of(package, dist)),
        *ranges.complaints(found),
    ]
    done = f"Metadata, links, contents, changelogs and ranges of {len(found)} packages"
    return Said("description", f"{done}.", complaints)


def complaints_of(package: Package, dist: Path) -> Iterator[str]:
    """Yield what is wrong with a package's files in a folder, its README and its changelog."""
    files = files_of(package)
    for path in (wheel_of(package, dist), sdist_of(package, dist)):
        archive = read(path)
        yield from contents.complaints(package, archive, files)
        yield from _of_metadata(package, archive)
    yield from readmes.complaints(package.name, (package.path / "README.md").read_text("utf-8"))
    changelog = (package.path / "CHANGELOG.md").read_text("utf-8")
    yield from changelogs.complaints(package.name, package.version, changelog)


def _of_metadata(package: Package, archive: Archive) -> list[str]:
    try:
        said = archive.metadata
    except LookupError as exc:
        return [str(exc)]
    return metadata.complaints(said, package.name, package.version, package.folder)
