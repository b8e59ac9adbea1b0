"""Where a reader of the documentation stands: libpq's variables lead to a database."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg2.extensions

#: libpq's environment variable for each parameter of a DSN.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
}


def environment(dsn: str) -> dict[str, str]:
    """Return a reader's environment: libpq's variables lead to the server, nothing else is set.

    Nor is a reader's process measured: it would take thrice as long to start.
    """
    bin_folder = str(Path(sys.executable).parent)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PROCRASTINATE_", "PYTEST_", "COVERAGE_"))
    }
    server = {VARIABLES[name]: value for name, value in psycopg2.extensions.parse_dsn(dsn).items()}
    path = os.pathsep.join([bin_folder, os.environ.get("PATH", os.defpath)])
    return {**kept, **server, "PATH": path}
