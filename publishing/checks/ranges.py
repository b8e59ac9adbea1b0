"""What packages ask of each other agrees with their versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from publishing.packages import Package


def complaints(packages: Collection[Package]) -> list[str]:
    """Return which ranges leave out a version of this repository, or let in too much."""
    versions = {each.name: Version(each.version) for each in packages}
    return [
        f"{package.name}: {complaint}"
        for package in packages
        for requirement in package.every_requirement()
        for complaint in _of(requirement, versions.get(canonicalize_name(requirement.name)))
    ]


def _of(requirement: Requirement, version: Version | None) -> Iterator[str]:
    """Yield what is wrong with a range. ``version`` is None for packages of others."""
    if version is None:
        if not requirement.specifier and not requirement.marker:
            yield f"asks for {requirement} without a lowest version"
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"asks for {requirement}, and this repository has {requirement.name} {version}"
    ours = {str(each) for each in requirement.specifier}
    if not any(each.startswith(">=") for each in ours):
        yield f"asks for {requirement} without a lowest version"
    if f"<{version.major + 1}" not in ours:
        yield f"asks for {requirement}, which lets in {requirement.name} {version.major + 1}"
