"""``connection=`` with an aiopg connection."""

from __future__ import annotations

from procrastinate.connector import Binder
from procrastinate_aiopg.sessions import bound

CONNECTION = Binder(words="aiopg connection", bind_async=bound)
