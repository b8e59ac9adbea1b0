"""Looks at rows that may be impossible: for lack of a right, or in memory, which runs no SQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from procrastinate.errors import ConnectorException, InsufficientPrivilege

NOT_SUPPORTED = "0A000"  # the SQLSTATE feature_not_supported: what the memory says of a script


@contextlib.contextmanager
def as_far_as_possible() -> Iterator[None]:
    """End a look, without an error, that the connector or the role cannot take."""
    try:
        yield
    except ConnectorException as exc:
        if exc.sqlstate != NOT_SUPPORTED and not isinstance(exc, InsufficientPrivilege):
            raise
