"""``connection=`` with a psycopg2 connection."""

from __future__ import annotations

from procrastinate.connector import Binder
from procrastinate_psycopg2.sessions import bound

CONNECTION = Binder(words="psycopg2 connection", bind=bound)
