"""Empty environments to install the built wheels into. Run by ``nox -s packages``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import PACKAGES, Environment


@pytest.fixture(scope="session")
def dist() -> Path:
    """The folder with the built wheels and sdists."""
    if "PROCRASTINATE_DIST" not in os.environ:
        pytest.fail(
            "PROCRASTINATE_DIST names no folder of wheels: run these tests by nox -s packages"
        )
    return Path(os.environ["PROCRASTINATE_DIST"])


@pytest.fixture(scope="class")
def environment(
    request: pytest.FixtureRequest, dist: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """A new virtual environment with the wheels of the packages that the class's INSTALL names.

    All of them are given to pip in one command, by path, with what the class names in BESIDE. It is
    removed afterwards: pytest would keep those of three runs, where temporary files may be in
    memory.
    """
    wheels = [next(dist.glob(f"{PACKAGES[name]}-[0-9]*.whl")) for name in request.cls.INSTALL]
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "virtualenv",
            "--quiet",
            "--no-periodic-update",
            str(folder / "env"),
        ],
        check=True,
    )
    made = Environment(folder)
    # Most of what is installed is not imported, and need not be compiled.
    made.pip(
        "install", "--quiet", "--no-compile", *map(str, wheels), *getattr(request.cls, "BESIDE", ())
    )
    yield made
    shutil.rmtree(folder)
