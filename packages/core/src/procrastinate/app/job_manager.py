"""Listing, searching, cancelling, retrying and deleting jobs, and waiting for their ends.

Each method is a pair: ``x`` for synchronous code, ``x_async`` for coroutines.
"""

from __future__ import annotations

from procrastinate.app.deleting_jobs import DeletingJobs
from procrastinate.app.fleet import ListingFleet
from procrastinate.app.former_calls import FormerCalls
from procrastinate.app.searching_jobs import SearchingJobs
from procrastinate.app.throughput import ReadingThroughput
from procrastinate.app.waiting_jobs import WaitingForJobs
from procrastinate.former import HasFormerNames


class JobManager(
    HasFormerNames,
    WaitingForJobs,
    SearchingJobs,
    FormerCalls,
    DeletingJobs,
    ListingFleet,
    ReadingThroughput,
):
    """The jobs of one app's database.

    Filters left at None match everything, and one that matches nothing gives an empty list.
    ``connection=`` runs the operation inside the caller's transaction. Every method raises
    `InvalidOption` for a value that cannot be, `AppNotOpen`, and `ConnectorException` where the
    database fails.
    """
