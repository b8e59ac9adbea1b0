"""What a campaign needs beyond Python packages, and what to install if it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin"])
POSTGRES = Path("/usr/lib/postgresql")
#: Debian's package, and the program or file that it must bring.
PROGRAMS = {
    "pgbouncer": "pgbouncer",
    "patroni": "patroni",
    "etcd-server": "etcd",
    "gcc": "gcc",
    "libc6-dev": "gcc",
}


def program(name: str) -> str:
    """Return the path of a program that `check` has found."""
    found = shutil.which(name, path=PATH)
    assert found is not None
    return found


def postgres() -> Path | None:
    """Return the folder of the programs of Debian's newest PostgreSQL that Patroni can run."""
    found = sorted(POSTGRES.glob("1[3-7]/bin/postgres"))
    return found[-1].parent if found else None


def check() -> None:
    """Raise a UsageError that says what to install, unless all is there."""
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        raise click.UsageError("--debian and --patroni mount a disk and change users: run as root")
    missing = [each for each, name in PROGRAMS.items() if not shutil.which(name, path=PATH)]
    missing += [] if postgres() else ["postgresql"]
    if missing:
        raise click.UsageError(f"run: apt-get install {' '.join(missing)}")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Give a folder a file system of its own, which can be filled."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0711", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
