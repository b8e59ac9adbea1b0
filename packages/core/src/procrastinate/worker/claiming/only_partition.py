"""Getting the jobs of a database with one partition.

A worker asks this fetcher what it asks the one for several partitions
(`procrastinate.worker.claiming.partitioned`).
"""

from __future__ import annotations

from procrastinate.worker.claiming.fetcher import Fetcher


class OnlyFetcher(Fetcher):
    """The fetcher of the only partition."""

    claims_beside_lines = False  # whether it can claim while the lines before locks go on
    sweeper = None  # what finds jobs in partitions that were not announced
    must_be_sure = False  # a claim that brings no job always shows that there is none

    def look_at(self, partition: int) -> None:
        """Look at everything."""
        self.look_at_everything()

    def left_none_in(self, partition: int, is_claimed: bool) -> bool:
        """Return whether the last look left no ready job behind, and nothing was heard since.

        ``is_claimed`` says whether a claim is under way or due.
        """
        return not is_claimed
