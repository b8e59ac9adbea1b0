"""Virtual environments to install packages into, made by uv."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from publishing.packages import ROOT

MAY_TAKE = 1800.0  # seconds, of one command


class CommandFailed(Exception):
    """A command ended with another exit code than 0; says which, and what it printed."""


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Return what a command prints to its standard output. Raises `CommandFailed`."""
    words = [*map(str, command)]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=MAY_TAKE,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise CommandFailed(f"{' '.join(words)} failed ({done.returncode}):\n{said}")
    return done.stdout


def is_found(python: str) -> bool:
    """Whether this machine has a Python of a version, as in 3.13."""
    try:
        run("uv", "python", "find", "--quiet", "--no-python-downloads", python)
    except CommandFailed:
        return False
    return True


class Environment:
    """A new virtual environment in a folder."""

    def __init__(self, folder: Path, python: str | None = None) -> None:
        self.folder = folder
        named = ("--python", python) if python else ()
        run("uv", "venv", "--quiet", "--no-python-downloads", *named, folder)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(
        self,
        what: Sequence[str | Path],
        *,
        lowest: bool = False,
        overrides: Collection[str] = (),
        group: str | None = None,
        dry_run: bool = False,
    ) -> None:
        """Install requirements and wheels, or find out whether they could be: `CommandFailed`.

        ``lowest`` takes the lowest version that each of them lets in; what they need in their
        turn is the newest. ``overrides`` are versions that no requirement can change.
        """
        options: list[str | Path] = ["--only-binary", ":all:"]
        if lowest:
            options += ["--resolution", "lowest-direct"]
        if group:
            options += ["--group", group]
        if dry_run:
            options += ["--dry-run"]
        if overrides:
            listed = self.folder / "overrides.txt"
            listed.write_text("\n".join(overrides))
            options += ["--overrides", listed]
        run("uv", "pip", "install", "--quiet", "--python", self.python, *options, *what)

    def replace(self, wheel: Path) -> None:
        """Put a wheel in the place of another version of it, whatever others ask for."""
        run("uv", "pip", "install", "--quiet", "--python", self.python, "--no-deps", wheel)

    def check(self) -> None:
        """Raise `CommandFailed` if something that is installed lacks what it asks for."""
        run("uv", "pip", "check", "--python", self.python)

    def says(self, code: str) -> str:
        """Return what a program prints."""
        return run(self.python, "-c", code, cwd=self.folder)

    def distributions(self) -> list[Distribution]:
        """Return what is installed, by name."""
        (site,) = self.folder.glob("lib/python*/site-packages")
        found = distributions(path=[str(site)])
        return sorted(found, key=lambda each: canonicalize_name(each.name))

    def versions(self) -> dict[str, str]:
        """Return the version of each distribution that is installed, by its normalised name."""
        return {canonicalize_name(each.name): each.version for each in self.distributions()}

    def forget_paths(self) -> None:
        """Remove the notes which files of this machine distributions came from."""
        for path in self.folder.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
            path.unlink()
