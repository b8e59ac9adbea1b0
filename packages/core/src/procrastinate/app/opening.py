"""What ``app.open()`` and ``app.open_async()`` return: blocks that close the app at their end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Generic, TypeVar

AppT = TypeVar("AppT")


class Opened(Generic[AppT]):
    """An app that is open. Leaving the block closes it."""

    def __init__(self, app: AppT, close: Callable[[], None]) -> None:
        self._app = app
        self._close = close

    def __enter__(self) -> AppT:
        return self._app

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


class OpenedAsync(Generic[AppT]):
    """An app that is opened when this is awaited, or for a block when it is entered."""

    def __init__(
        self,
        app: AppT,
        open: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._open = open
        self._close = close

    def __await__(self) -> Generator[Any, None, AppT]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AppT:
        await self._open()
        return self._app

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()
