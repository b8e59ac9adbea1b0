"""What stands in a wheel or in an sdist."""

from __future__ import annotations

import email.message
import email.parser
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publishing.packages import Package


@dataclass(frozen=True)
class Archive:
    """A wheel or an sdist: its name, and its files by their names inside of it.

    An sdist has one folder with everything; its name is left out.
    """

    name: str
    files: Mapping[str, bytes]

    @property
    def is_wheel(self) -> bool:
        return self.name.endswith(".whl")

    @property
    def metadata(self) -> email.message.Message:
        """What it says of itself. Raises `LookupError` if that is missing."""
        for name, content in self.files.items():
            if name == "PKG-INFO" or name.endswith(".dist-info/METADATA"):
                return email.parser.Parser().parsestr(content.decode())
        raise LookupError(f"{self.name} has no metadata")

    @property
    def modules(self) -> dict[str, bytes]:
        """The files that are no metadata."""
        return {name: content for name, content in self.files.items() if ".dist-info/" not in name}


def read(path: Path) -> Archive:
    """Return what is in a file."""
    return Archive(path.name, _of_wheel(path) if path.suffix == ".whl" else _of_sdist(path))


def _of_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist() if not name.endswith("/")}


def _of_sdist(path: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as opened:
        for member in opened.getmembers():
            content = opened.extractfile(member)
            if content is not None:
                found[member.name.partition("/")[2]] = content.read()
    return found


def wheel_of(package: Package, dist: Path) -> Path:
    """Return the wheel of a package in a folder. Raises `LookupError` unless there is one."""
    return _only(package, dist, f"{package.module}-[0-9]*.whl")


def sdist_of(package: Package, dist: Path) -> Path:
    """Return the sdist of a package in a folder. Raises `LookupError` unless there is one."""
    return _only(package, dist, f"{package.module}-[0-9]*.tar.gz")


def _only(package: Package, dist: Path, pattern: str) -> Path:
    found = sorted(dist.glob(pattern))
    if len(found) != 1:
        raise LookupError(f"{dist} has {len(found)} files {pattern} of {package.name}, not one")
    return found[0]
