"""What the database says of itself in its one row of settings."""

from __future__ import annotations

from procrastinate.drive import Flow, Request
from procrastinate.errors import SchemaError
from procrastinate.model.partitions import Partitions


def read_settings() -> Flow[Partitions]:
    """Return into how many partitions the database has put its jobs.

    Raises `SchemaError` if the database does not say.
    """
    found = yield from settings_rows()
    if len(found) != 1:
        raise SchemaError(
            f"the table procrastinate_settings has {len(found) or 'no'} rows instead of one:"
            " `procrastinate schema --check` says what to do"
        )
    return found[0]


def settings_rows() -> Flow[list[Partitions]]:
    """Return what each row of the settings says: there should be one."""
    rows = yield Request("get_settings")
    return [Partitions(int(count), int(last), bool(nodes)) for count, last, nodes in rows]
