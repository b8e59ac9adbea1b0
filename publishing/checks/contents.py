"""Which files a wheel and an sdist hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from publishing.archives import Archive
from publishing.packages import ROOT, Package

#: Texts for review: a package makes its statements from the files beside them.
_NOT_IN_WHEELS = re.compile(r"src/procrastinate/storage/sql/flat/")
#: What an sdist holds of its folder, and what the build adds.
_IN_SDISTS = re.compile(r"(src|tests)/|(README\.md|CHANGELOG\.md|LICENSE|pyproject\.toml)$")
_ADDED = frozenset({"PKG-INFO", ".gitignore"})
#: What never belongs in an archive, even if git should know it.
_STRAY = re.compile(
    r"(^|/)(__pycache__|\.[a-z]+_cache|\.hypothesis|node_modules|\.env)(/|$)"
    r"|\.(pyc|pyo|orig|rej|bak|swp|log|sqlite3)$|~$|(^|/)\.DS_Store$"
)
AT_MOST = 120_000  # bytes of one file
#: Files that may be larger, with the reason.
LARGER: dict[str, str] = {}


def of_wheel(package: Package, files: Collection[str]) -> set[str]:
    """Return what a wheel should hold beside its metadata. ``files`` are those of its folder."""
    kept = {each for each in files if each.startswith("src/") and not _NOT_IN_WHEELS.match(each)}
    return {each.removeprefix("src/") for each in kept}


def of_sdist(files: Collection[str]) -> set[str]:
    """Return what an sdist should hold. ``files`` are those of the package's folder."""
    return {each for each in files if _IN_SDISTS.match(each)} | _ADDED


def complaints(package: Package, archive: Archive, files: Collection[str]) -> list[str]:
    """Return what is wrong with the files of a package's wheel or sdist.

    ``files`` are those that git knows below the package's folder, relative to it.
    """
    expected = of_wheel(package, files) if archive.is_wheel else of_sdist(files)
    held = archive.modules
    return [
        f"{archive.name}: {each}"
        for each in (
            *(f"{name} should not be in it" for name in sorted({*held} - expected)),
            *(f"{name} is missing" for name in sorted(expected - {*held})),
            *(f"{name} is no file to publish" for name in sorted(held) if _STRAY.search(name)),
            *_large(archive),
            *_absolute(archive),
            *(_of_a_wheel(package, archive) if archive.is_wheel else ()),
        )
    ]


def _large(archive: Archive) -> Iterator[str]:
    for name, content in archive.files.items():
        if len(content) > AT_MOST and name not in LARGER:
            yield f"{name} has {len(content):,} bytes, more than {AT_MOST:,}"


def _absolute(archive: Archive) -> Iterator[str]:
    """Yield the files that name the folder in which this repository is on this machine."""
    here = re.compile(re.escape(str(ROOT).encode()) + rb"[/\\\"' ]")
    for name, content in archive.files.items():
        if here.search(content):
            yield f"{name} names the folder {ROOT} of this machine"


def _of_a_wheel(package: Package, archive: Archive) -> Iterator[str]:
    if f"{package.module}/py.typed" not in archive.files:
        yield f"{package.module}/py.typed is missing: its types would not be seen"
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.files):
        yield "the text of the licence is missing"
    yield from _entry_points(archive)


def _entry_points(archive: Archive) -> Iterator[str]:
    """Yield the entry points whose module is not in the wheel."""
    for name, content in archive.files.items():
        if not name.endswith(".dist-info/entry_points.txt"):
            continue
        for point, module in re.findall(r"^(\S.*?) = ([\w.]+)", content.decode(), re.MULTILINE):
            path = module.replace(".", "/")
            if not {f"{path}.py", f"{path}/__init__.py"} & {*archive.files}:
                yield f"the entry point {point!r} names {module}, which is not in it"
