"""Refuses Procrastinate 3's entry in ``INSTALLED_APPS``, which Django looks for here."""

from __future__ import annotations

from procrastinate.contrib.django import PAGE
from procrastinate.errors import ConfigurationError

raise ConfigurationError(
    "INSTALLED_APPS has 'procrastinate.contrib.django', which was Procrastinate 3's: write"
    " 'procrastinate_django' instead (run `pip install 'procrastinate-django[psycopg]'`), and"
    f" name a schema for its tables, PROCRASTINATE = {{'SCHEMA': 'jobs'}}; {PAGE}"
)
