"""What a notification of a distributed database says: a queue, and the partition of its jobs."""

from __future__ import annotations

from collections.abc import Container


def queue_and_partition(payload: str, partitions: Container[int]) -> tuple[str, int] | None:
    """Return what ``queue@partition`` says, or None if a payload is anything else.

    The queue may have an ``@`` in its name. It is empty in the news of a sweep, which are about
    any queue of the partition.
    """
    queue, _, number = payload.rpartition("@")
    if not (number.isascii() and number.isdecimal()) or len(number) > 4:
        return None
    partition = int(number)
    return (queue, partition) if partition in partitions else None
