"""``connection=`` with a connection of Django's: ``django.db.connection`` or one by its alias.

Which connection that is depends on the thread, so it is looked up when a query runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from procrastinate.connector import Binder, Query, Rows
from procrastinate_django import drivers
from procrastinate_django.connector import check_database, real_connection

T = TypeVar("T")


class _Bound:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, query: Query, /) -> Rows:
        """Execute one query, without its settings (rule 9). Raises `ConnectorException`."""
        return drivers.driver().bound(real_connection(self._connection)).execute(query)


def _bind(connection: Any) -> _Bound:
    check_database(connection)
    return _Bound(connection)


async def _call_async(function: Callable[[], T]) -> T:
    return await sync_to_async(function, thread_sensitive=True)()


CONNECTION = Binder(words="Django connection", bind=_bind, call_async=_call_async)
