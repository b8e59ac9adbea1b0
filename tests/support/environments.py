"""A virtual environment as a user has one, with wheels of this repository in it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

#: What ``pip install`` calls each package, and what its wheel and its module are called.
PACKAGES = {
    "procrastinate": "procrastinate",
    "procrastinate-psycopg2": "procrastinate_psycopg2",
    "procrastinate-psycopg": "procrastinate_psycopg",
    "procrastinate-aiopg": "procrastinate_aiopg",
    "procrastinate-asyncpg": "procrastinate_asyncpg",
    "procrastinate-sqlalchemy": "procrastinate_sqlalchemy",
    "procrastinate-sqlalchemy-async": "procrastinate_sqlalchemy_async",
    "procrastinate-django": "procrastinate_django",
    "procrastinate-connector-testkit": "procrastinate_connector_testkit",
    "procrastinate-embedded": "procrastinate_embedded",
    "procrastinate-opentelemetry": "procrastinate_opentelemetry",
    "procrastinate-dashboard": "procrastinate_dashboard",
    "procrastinate-prometheus": "procrastinate_prometheus",
}


class Environment:
    """A virtual environment in ``folder/env``, used from the empty folder ``folder/work``."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")

    def run(self, program: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs with nothing of ours in its surroundings."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PROCRASTINATE_", "PG", "COVERAGE_"))
        }
        path = os.pathsep.join([str(self.programs), kept.get("PATH", os.defpath)])
        return subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.work,
            env={**kept, **env, "PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def pip(self, *arguments: str) -> str:
        """Return what pip prints; its failure is an AssertionError with its words."""
        done = self.run("python", "-m", "pip", "--disable-pip-version-check", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code: str, **env: str) -> str:
        """Return what the code prints; its failure is an AssertionError with the traceback."""
        done = self.run(
            "python", "-W", "error::DeprecationWarning:procrastinate", "-c", code, **env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def installed(self) -> set[str]:
        """Return the names of all distributions but the installer's own."""
        listed = json.loads(self.pip("list", "--format", "json"))
        names = {distribution["name"].lower().replace("_", "-") for distribution in listed}
        return names - {"pip", "setuptools", "wheel"}
