"""What methods return that were coroutines in releases up to 3.x, under the same name."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


class AwaitedList(list[T]):
    """A list that may be awaited, with a DeprecationWarning, and is itself what comes of it."""

    def __await__(self) -> Generator[Any, None, AwaitedList[T]]:
        warnings.warn(
            "this list need not be awaited: in a coroutine await the method whose name ends in"
            " _async",
            DeprecationWarning,
            stacklevel=2,
        )
        return self
        yield
