"""Notifications that a statement of a distributed database leaves to its flow.

`pg_notify` is heard where it is run: on the node to which the statement was sent, and not where its
jobs are. So the texts for a distributed database notify nothing. Their rows have two columns more
than the others: the channel, null if there is nothing to tell, and the payload.
"""

from __future__ import annotations

from procrastinate.connector import Rows
from procrastinate.drive import Flow, Request


def tell(rows: Rows, width: int) -> Flow[None]:
    """Send what the rows of a statement say after their first ``width`` columns."""
    news = sorted({row[width:] for row in rows if len(row) > width and row[width] is not None})
    if news:
        channels, payloads = zip(*news, strict=True)
        yield Request("notify", channels=list(channels), payloads=list(payloads))
