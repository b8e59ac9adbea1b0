"""``connection=`` with an SQLAlchemy Connection or Session."""

from __future__ import annotations

from procrastinate.connector import Binder
from procrastinate_sqlalchemy.sessions import bound

CONNECTION = Binder(words="SQLAlchemy Connection", bind=bound)
SESSION = Binder(words="SQLAlchemy Session", bind=bound)
