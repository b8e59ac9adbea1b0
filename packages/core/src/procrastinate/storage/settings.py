"""What the database says of itself in its one row of settings."""

from __future__ import annotations

from procrastinate.drive import Flow, Request
from procrastinate.model.partitions import Partitions


def read_settings() -> Flow[Partitions]:
    """Return into how many partitions the database has put its jobs."""
    ((count, boundary_id, on_cluster),) = yield Request("get_settings")
    return Partitions(int(count), int(boundary_id), bool(on_cluster))
