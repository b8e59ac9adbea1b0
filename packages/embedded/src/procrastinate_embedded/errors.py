"""The one error that this package raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from procrastinate import errors
from procrastinate_embedded.failure import LaunchFailed


class EmbeddedServerError(errors.ProcrastinateException):
    """The embedded PostgreSQL server cannot be found, started, used or stopped."""


@contextmanager
def reported() -> Iterator[None]:
    """Turn what went wrong inside into an EmbeddedServerError with the same message."""
    try:
        yield
    except LaunchFailed as exc:
        raise EmbeddedServerError(str(exc)) from exc
    except OSError as exc:  # a full disk, a missing permission: the text names the file
        raise EmbeddedServerError(f"the embedded server failed: {exc}") from exc
